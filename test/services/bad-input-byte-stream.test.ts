// What clients send wrong to ByteStream, and what a full disk does to them.

import { zstdCompressSync } from "node:zlib";
import { Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ByteStream, type WriteRequestInit } from "../../src/proto/bytestream.ts";
import { ContentAddressableStorage } from "../../src/proto/remote_execution.ts";
import { BadInputServer, failureOf, hash, MIB, witness } from "./bad-input-table.ts";
import { MAX_BLOB_SIZE_BYTES, Served } from "./served.ts";
import { noise, sample } from "./sample-blobs.ts";

const { BatchUpdateBlobs } = ContentAddressableStorage.methods;
const { Read, Write, QueryWriteStatus } = ByteStream.methods;

const server = new BadInputServer();

const present = () => `blobs/${witness.digest.hash}/${witness.digest.sizeBytes}`;
const compressed = () => `compressed-blobs/zstd/${witness.digest.hash}/${witness.digest.sizeBytes}`;
const read = (request: object) => server.served.stream(Read, [{ resourceName: present(), ...request }]);

server.rows("reads", [
  ["an absent blob", () => read({ resourceName: `blobs/${hash}/5` }), Code.NOT_FOUND, /blob .* is not in the CAS|not/],
  ["an absent large blob", () => read({ resourceName: `blobs/${hash}/5000000` }), Code.NOT_FOUND, new RegExp(hash)],
  ["the right hash with another size", () => read({ resourceName: `blobs/${witness.digest.hash}/12` }), 5, /not/],
  ["a negative offset", () => read({ readOffset: -1 }), Code.OUT_OF_RANGE, /read_offset -1 is negative/],
  ["an offset past the end", () => read({ readOffset: 12 }), Code.OUT_OF_RANGE, /read_offset 12 is beyond the end/],
  ["a negative limit", () => read({ readLimit: -1 }), Code.INVALID_ARGUMENT, /read_limit -1 is negative/],
  ["a limit with compression", () => read({ resourceName: compressed(), readLimit: 5 }), 3, /it must be 0/],
  ["no name", () => server.served.stream(Read, [{}]), Code.INVALID_ARGUMENT, /resource_name is empty/],
  ["an unknown compressor", () => read({ resourceName: `compressed-blobs/lz4/${hash}/5` }), 3, /compressor "lz4"/],
  [
    "a header that names another resource",
    () => {
      const metadata = new Metadata();
      metadata.set("build.bazel.remote.execution.v2.resource-name", "blobs/other");
      return server.served.stream(Read, [{ resourceName: present() }], { metadata });
    },
    Code.INVALID_ARGUMENT,
    /header .* "blobs\/other" differs from resource_name/,
  ],
]);

const blob = sample(noise(200_000));
let uploads = 0;
/** Writes under a fresh name; the first message gets the name. */
function write(messages: readonly WriteRequestInit[], kind = "blobs", digest = blob.digest): Promise<unknown> {
  const resourceName = `uploads/bad-${uploads++}/${kind}/${digest.hash}/${digest.sizeBytes}`;
  return server.served.stream(
    Write,
    messages.map((message, i) => (i === 0 ? { resourceName, ...message } : message)),
  );
}
const zstd = zstdCompressSync(blob.data);
const ZSTD = "compressed-blobs/zstd";

server.rows("writes", [
  ["more bytes than the size", () => write([{ data: Buffer.concat([blob.data, blob.data]) }]), 3, /200000/],
  [
    "more bytes than the size, in one message that finishes",
    () => write([{ data: noise(200_001), finishWrite: true }]),
    3,
    /received 200001 bytes, expected 200000/,
  ],
  [
    "fewer bytes than the size",
    () => write([{ data: noise(5), finishWrite: true }]),
    3,
    /received 5 bytes, expected 200000/,
  ],
  [
    "fewer bytes, over several messages",
    () => write([{ data: noise(5) }, { writeOffset: 5, finishWrite: true }]),
    3,
    /received 5 bytes, expected 200000/,
  ],
  ["another content", () => write([{ data: noise(200_000, 9), finishWrite: true }]), 3, /received bytes are/],
  [
    "another content, over several messages",
    () => write([{ data: noise(100_000, 9) }, { writeOffset: 100_000, data: noise(100_000), finishWrite: true }]),
    3,
    /received bytes are|does not match/,
  ],
  [
    "a first offset to a gap",
    () => write([{ writeOffset: 10, data: noise(5) }]),
    3,
    /begins at write_offset 10, but 0 bytes/,
  ],
  ["a negative offset", () => write([{ writeOffset: -1, data: noise(5) }]), 3, /write_offset -1 is negative/],
  [
    "a later offset to a gap",
    () => write([{ data: noise(5) }, { writeOffset: 6, data: noise(5) }]),
    3,
    /write_offset 6, expected 5/,
  ],
  [
    "a later offset that goes back",
    () => write([{ data: noise(5) }, { writeOffset: 0, data: noise(5) }]),
    3,
    /write_offset 0, expected 5/,
  ],
  [
    "a message after the last",
    () =>
      write([
        { data: blob.data, finishWrite: true },
        { writeOffset: 200_000, data: noise(5) },
      ]),
    3,
    /a message followed the one with finish_write/,
  ],
  [
    "another name in a later message",
    () => write([{ data: noise(5) }, { resourceName: "uploads/x/blobs/y/5", writeOffset: 5 }]),
    3,
    /a later message names another resource/,
  ],
  ["no name", () => server.served.stream(Write, [{ data: noise(5) }]), 3, /must have a resource_name/],
  ["a name for reading", () => server.served.stream(Write, [{ resourceName: present() }]), 3, /no segment "uploads"/],
  ["corrupt zstd", () => write([{ data: noise(1000), finishWrite: true }], ZSTD), 3, /corrupt zstd stream/],
  [
    "corrupt zstd, over several messages",
    () => write([{ data: noise(1000) }, { writeOffset: 1000 }], ZSTD),
    3,
    /corrupt/,
  ],
  [
    "zstd cut short",
    () => write([{ data: zstd.subarray(0, 1000) }, { writeOffset: 1000, finishWrite: true }], ZSTD),
    3,
    /middle of a frame/,
  ],
  [
    "a zstd bomb",
    () => write([{ data: zstdCompressSync(Buffer.alloc(1000 * MIB)) }, { writeOffset: 1 }], ZSTD),
    3,
    /more than 200000 bytes/,
  ],
  [
    "zstd of fewer bytes",
    () => write([{ data: zstdCompressSync(noise(9)), finishWrite: true }], ZSTD),
    3,
    /holds 9 bytes/,
  ],
  [
    "a blob above the limit",
    () => write([{ data: noise(5) }], "blobs", { ...blob.digest, sizeBytes: MAX_BLOB_SIZE_BYTES + 1 }),
    3,
    /larger than 50000000 bytes \(max_cas_blob_size_bytes\)/,
  ],
  [
    "a status query for a name for reading",
    () => server.served.unary(QueryWriteStatus, { resourceName: present() }),
    3,
    /uploads/,
  ],
]);

test("a write abandoned halfway is kept, not visible, and goes on later", async () => {
  const resourceName = `uploads/halfway/blobs/${blob.digest.hash}/200000`;
  const [answer] = await server.served.stream(Write, [{ resourceName, data: blob.data.subarray(0, 70_000) }]);
  expect(answer?.committedSize).toBe(70_000);
  expect(server.blobs.has(blob.digest)).toBe(false);
  const rest = { resourceName, writeOffset: 70_000, data: blob.data.subarray(70_000), finishWrite: true };
  expect((await server.served.stream(Write, [rest]))[0]?.committedSize).toBe(200_000);
});

describe("a full disk", () => {
  const full = new MemoryBlobStore({ maxBytes: 1000 });
  let fullServed: Served;
  beforeAll(async () => {
    await full.put(witness.digest, witness.data);
    full.pin([witness.digest]);
    fullServed = await Served.start(full);
  });
  afterAll(() => fullServed.close());

  test("refuses writes with RESOURCE_EXHAUSTED while reads go on", async () => {
    const [small, large] = [sample(noise(2000)), sample(noise(200_000))];
    const batch = await fullServed.unary(BatchUpdateBlobs, { requests: [small, witness] });
    expect(batch.responses.map(({ status }) => status?.code ?? 0)).toEqual([Code.RESOURCE_EXHAUSTED, Code.OK]);
    for (const { data, digest: tooLarge } of [small, large]) {
      const resourceName = `uploads/u/blobs/${tooLarge.hash}/${tooLarge.sizeBytes}`;
      const half = Math.floor(data.length / 2);
      for (const messages of [
        [{ resourceName, data, finishWrite: true }],
        [
          { resourceName, data: data.subarray(0, half) },
          { writeOffset: half, data: data.subarray(half), finishWrite: true },
        ],
      ]) {
        expect((await failureOf(fullServed.stream(Write, messages))).code).toBe(Code.RESOURCE_EXHAUSTED);
      }
    }
    const response = await fetch(`http://127.0.0.1:${fullServed.port}/cas/${small.digest.hash}`, {
      method: "PUT",
      body: small.data,
    });
    expect(response.status).toBe(507);
    const [read] = await fullServed.stream(Read, [{ resourceName: present() }]);
    expect(Buffer.from(read!.data).toString()).toBe("the witness");
    expect(fullServed.partialUploads.idleCount).toBe(0);
  });
});
