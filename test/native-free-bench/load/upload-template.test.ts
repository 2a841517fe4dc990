// Uploads made of shared parts: each is a blob of its own, and what its name says.

import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { MessageReader } from "../../../native-free-bench/client/message-framing.ts";
import { UploadTemplate } from "../../../native-free-bench/load/upload-template.ts";
import { WriteRequest } from "../../../src/proto/bytestream.ts";

const MIB = 1024 * 1024;

for (const sizeBytes of [4 * MIB, 4 * MIB + 1, 6 * MIB - 1]) {
  test(`next() is an upload of ${sizeBytes} bytes with the digest in its name, a new one each time`, () => {
    const template = randomBytes(sizeBytes);
    const source = {
      random: { bytes: (count: number) => randomBytes(count) },
      writeName: ({ hash, sizeBytes: size }: { hash: string; sizeBytes: number }) => `uploads/u/blobs/${hash}/${size}`,
    };
    const uploads = new UploadTemplate(template);
    const names = new Set<string>();
    for (let round = 0; round < 3; round++) {
      const reader = new MessageReader(2 * MIB);
      const messages = uploads.next(source).body.flatMap((part) => reader.push(part));
      const requests = messages.map((message) => WriteRequest.decode(message));
      const data = Buffer.concat(requests.map((request) => request.data));
      const hash = createHash("sha256").update(data).digest("hex");
      expect(requests.map(({ resourceName }) => resourceName).join("")).toBe(`uploads/u/blobs/${hash}/${sizeBytes}`);
      let offset = 0;
      for (const [index, request] of requests.entries()) {
        expect(Number(request.writeOffset)).toBe(offset);
        expect(request.finishWrite).toBe(index === requests.length - 1);
        offset += request.data.length;
      }
      expect(data).toHaveLength(sizeBytes);
      names.add(hash);
    }
    expect(names.size).toBe(3);
  });
}
