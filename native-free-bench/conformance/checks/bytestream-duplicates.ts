// ByteStream.Write: blobs that are there already, upload ids, and names.

import { ByteStream, WriteRequest, WriteResponse } from "../../../src/proto/bytestream.ts";
import { defineArea, expectBytes, expectEqual, expectOk, expectThat, type Check } from "../check.ts";
import { inParts, type Blob, type Probe } from "../probe.ts";
import { malformedChecks } from "./write-names.ts";

const REAPI = "REv2 ContentAddressableStorage: uploads by ByteStream.Write";

export const byteStreamDuplicateChecks: readonly Check[] = defineArea(
  "write",
  ["cache", "sha256"],
  [
    {
      id: "duplicate",
      level: "MUST",
      says: "Writing a present blob again is OK with committed_size of the whole blob.",
      cites: `${REAPI}: end early with the full size`,
      advice: "Do not answer ALREADY_EXISTS; clients treat errors as failures.",
      run: async (p) => {
        const blob = await p.storeNew(70_000);
        const reply = await p.write(p.writeName(blob.digest), inParts(blob.data, 10_000));
        expectOk(reply, "The second upload");
        expectEqual(reply.response?.committedSize, 70_000, "committed_size");
      },
    },
    {
      id: "duplicate-early",
      level: "SHOULD",
      says: "Writing a present blob is answered after the first message, without waiting for the data.",
      cites: `${REAPI}: the server may end the call as soon as it knows the blob`,
      advice: "Send the response and its trailers, then RST_STREAM(NO_ERROR).",
      run: async (p) => {
        const blob = await p.storeNew(1024 * 1024);
        const call = await p.options.channel.start(ByteStream.methods.Write.path, { signal: p.signal });
        await call.send(
          WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data.subarray(0, 1000) }),
        );
        const answer = await Promise.race([call.receive(), p.pause(3000).then(() => "silence" as const)]);
        if (answer === "silence") call.cancel();
        expectThat(answer !== "silence" && answer !== undefined, "no answer within 3 s of the first message");
        expectOk(await call.outcome, "The early answer");
        expectEqual(WriteResponse.decode(answer).committedSize, 1024 * 1024, "committed_size");
      },
    },
    {
      id: "duplicate-wrong-bytes",
      level: "MUST",
      says: "Wrong bytes for a present blob do not change it.",
      cites: "REv2 ContentAddressableStorage: content is addressed by its digest",
      advice: "Never overwrite.",
      run: async (p) => {
        const blob = await p.storeNew(5000);
        await p.write(p.writeName(blob.digest), [{ offset: 0, data: p.blob(5000).data, finish: true }]);
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Reading the blob");
        expectBytes(read.data, blob.data, "Its bytes");
      },
    },
    {
      id: "metadata-suffix",
      level: "MUST",
      says: "Segments after the size of an upload name are ignored.",
      cites: `${REAPI}: optional metadata after the size`,
      advice: "Take anything after the size.",
      run: async (p) => {
        const blob = p.blob(100);
        expectOk(
          await p.write(`${p.writeName(blob.digest)}/some/file.txt`, [{ offset: 0, data: blob.data, finish: true }]),
          "Write",
        );
        await p.expectStored(blob.digest, "Afterwards");
      },
    },
    {
      id: "uuid-reused",
      level: "SHOULD",
      says: "One upload id may serve several blobs.",
      cites: `${REAPI}: the client chooses the id`,
      advice: "Key uploads by the whole name.",
      run: async (p) => {
        const uuid = p.random.uuid();
        for (const blob of p.blobs(3, 200)) {
          expectOk(
            await p.write(p.writeName(blob.digest, { uuid }), [{ offset: 0, data: blob.data, finish: true }]),
            "Write",
          );
          await p.expectStored(blob.digest, "Afterwards");
        }
      },
    },
    {
      id: "uuid-any-form",
      level: "CLIENTS",
      says: "An upload id that is not a UUID is accepted.",
      cites: "older tools send other strings",
      advice: "Do not validate the form of the id.",
      run: async (p) => {
        const blob = p.blob(200);
        expectOk(
          await p.write(p.writeName(blob.digest, { uuid: "upload-1" }), [{ offset: 0, data: blob.data, finish: true }]),
          "Write",
        );
      },
    },
    {
      id: "readable-at-once",
      level: "MUST",
      says: "A blob is readable as soon as its upload is acknowledged.",
      cites: "REv2 ContentAddressableStorage: lifetime of new blobs",
      advice: "Acknowledge after publishing.",
      run: async (p) => {
        for (const size of [100, 100_000, 2_000_000]) {
          const blob = p.blob(size);
          await expectWritten(p, blob, inParts(blob.data));
        }
      },
    },
    ...malformedChecks,
  ],
);

async function expectWritten(
  p: Probe,
  blob: Blob,
  parts: readonly { offset: number; data?: Uint8Array; finish?: boolean }[],
): Promise<void> {
  const reply = await p.write(p.writeName(blob.digest), parts);
  expectOk(reply, "Write");
  expectEqual(reply.response?.committedSize, blob.digest.sizeBytes, "committed_size");
  const read = await p.read(p.readName(blob.digest));
  expectOk(read, "Reading it back");
  expectBytes(read.data, blob.data, "The bytes read back");
}
