// ByteStream.Write of uncompressed blobs: offsets, duplicates, refusals.

import { Code } from "../../../src/base/status.ts";
import { ByteStream, WriteRequest } from "../../../src/proto/bytestream.ts";
import { defineArea, expectBytes, expectCode, expectEqual, expectOk, expectRefusal, type Check } from "../check.ts";
import { inParts, type Blob, type Probe } from "../probe.ts";

const CITES = "google.bytestream ByteStream.Write, WriteRequest";

const REAPI = "REv2 ContentAddressableStorage: uploads by ByteStream.Write";

export const byteStreamWriteChecks: readonly Check[] = defineArea(
  "write",
  ["cache", "sha256"],
  [
    {
      id: "one-message",
      level: "MUST",
      says: "A blob in one message is stored and committed_size is its size.",
      cites: `${CITES}; WriteResponse.committed_size`,
      advice: "committed_size of an uncompressed upload is the size of the blob.",
      run: async (p) => {
        const blob = p.blob(1000);
        await expectWritten(p, blob, [{ offset: 0, data: blob.data, finish: true }]);
      },
    },
    {
      id: "many-messages",
      level: "MUST",
      says: "A blob in many messages is stored.",
      cites: CITES,
      advice: "Offsets grow by the data sent.",
      run: async (p) => {
        const blob = p.blob(3_000_001);
        await expectWritten(p, blob, inParts(blob.data, 100_000));
      },
    },
    {
      id: "one-byte-messages",
      level: "MUST",
      says: "A blob in messages of one byte is stored.",
      cites: CITES,
      advice: "Messages may be of any size.",
      run: async (p) => {
        const blob = p.blob(120);
        await expectWritten(p, blob, inParts(blob.data, 1));
      },
    },
    {
      id: "name-repeated",
      level: "MUST",
      says: "Later messages may repeat the name.",
      cites: "google.bytestream WriteRequest.resource_name",
      advice: "Accept the same name or none.",
      run: async (p) => {
        const blob = p.blob(4000);
        const name = p.writeName(blob.digest);
        const parts = inParts(blob.data, 1000).map((part) => ({ ...part, name }));
        expectOk(await p.write(name, parts), "Write with the name in every message");
        await p.expectStored(blob.digest, "Afterwards");
      },
    },
    {
      id: "name-changed",
      level: "MUST",
      says: "A different name in a later message is refused.",
      cites: "google.bytestream WriteRequest.resource_name: must match",
      advice: "INVALID_ARGUMENT.",
      run: async (p) => {
        const blob = p.blob(4000);
        const [first, second] = inParts(blob.data, 2000);
        const reply = await p.write(p.writeName(blob.digest), [
          first!,
          { ...second!, name: p.writeName(p.absentDigest(4000)) },
        ]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "Write with a second name");
      },
    },
    {
      id: "separate-finish",
      level: "MUST",
      says: "finish_write may come in a last message without data.",
      cites: "google.bytestream WriteRequest.finish_write",
      advice: "Data may be empty in any message.",
      run: async (p) => {
        const blob = p.blob(1500);
        await expectWritten(p, blob, [
          { offset: 0, data: blob.data },
          { offset: 1500, finish: true },
        ]);
      },
    },
    {
      id: "empty-messages",
      level: "SHOULD",
      says: "Messages without data in between change nothing.",
      cites: "google.bytestream WriteRequest.data",
      advice: "Accept them at the current offset.",
      run: async (p) => {
        const blob = p.blob(600);
        const parts = [
          { offset: 0 },
          { offset: 0, data: blob.data.subarray(0, 300) },
          { offset: 300 },
          { offset: 300, data: blob.data.subarray(300), finish: true },
        ];
        await expectWritten(p, blob, parts);
      },
    },
    {
      id: "empty-blob",
      level: "MUST",
      says: "The empty blob is accepted in one message without data.",
      cites: "REv2 ContentAddressableStorage: the empty blob is always present",
      advice: "Answer 0 without storing.",
      run: async (p) => {
        const reply = await p.write(p.writeName(p.emptyDigest), [{ offset: 0, finish: true }]);
        expectOk(reply, "Write of the empty blob");
        expectEqual(reply.response?.committedSize, 0, "committed_size");
      },
    },
    {
      id: "wrong-hash",
      level: "MUST",
      says: "Data that does not match its hash is INVALID_ARGUMENT and is not stored.",
      cites: `${REAPI}: INVALID_ARGUMENT`,
      advice: "Hash what was received before publishing it.",
      run: async (p) => {
        const { digest } = p.blob(5000);
        const reply = await p.write(p.writeName(digest), [{ offset: 0, data: p.blob(5000).data, finish: true }]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "Write of other bytes");
        await p.expectAbsent(digest, "After the refused upload");
      },
    },
    {
      id: "wrong-hash-large",
      level: "MUST",
      says: "One changed bit in 3 MiB is INVALID_ARGUMENT.",
      cites: `${REAPI}: INVALID_ARGUMENT`,
      advice: "Verify large uploads as well as small ones.",
      run: async (p) => {
        const { data, digest } = p.blob(3 * 1024 * 1024);
        const changed = Buffer.from(data);
        changed[2_000_000] = changed[2_000_000]! ^ 1;
        expectCode(
          await p.write(p.writeName(digest), inParts(changed)),
          [Code.INVALID_ARGUMENT],
          "Write of changed bytes",
        );
        await p.expectAbsent(digest, "After the refused upload");
      },
    },
    {
      id: "too-long",
      level: "MUST",
      says: "More data than the size is INVALID_ARGUMENT.",
      cites: `${REAPI}: INVALID_ARGUMENT`,
      advice: "Stop at the first byte beyond the size.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const name = p.writeName({ hash: digest.hash, sizeBytes: 999 });
        expectCode(
          await p.write(name, [{ offset: 0, data, finish: true }]),
          [Code.INVALID_ARGUMENT],
          "Write of 1,000 bytes to size 999",
        );
        await p.expectAbsent({ hash: digest.hash, sizeBytes: 999 }, "Afterwards");
      },
    },
    {
      id: "too-short",
      level: "MUST",
      says: "finish_write before the size is reached is INVALID_ARGUMENT.",
      cites: `${REAPI}: INVALID_ARGUMENT`,
      advice: "The size is part of the digest. The blob must not appear.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const reply = await p.write(p.writeName(digest), [{ offset: 0, data: data.subarray(0, 600), finish: true }]);
        expectCode(reply, [Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE], "finish_write after 600 of 1,000 bytes");
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "size-lie-right-hash",
      level: "MUST",
      says: "The right bytes under a larger size are refused.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "Check length and hash.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const lie = { hash: digest.hash, sizeBytes: 1001 };
        expectRefusal(
          await p.write(p.writeName(lie), [{ offset: 0, data, finish: true }]),
          "The right bytes under size 1001",
        );
        await p.expectAbsent(lie, "Afterwards");
      },
    },
    {
      id: "gap",
      level: "MUST",
      says: "A message that leaves a gap is refused.",
      cites: "google.bytestream WriteRequest.write_offset",
      advice: "INVALID_ARGUMENT (OUT_OF_RANGE is accepted): never fill gaps with zeros.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const parts = [
          { offset: 0, data: data.subarray(0, 400) },
          { offset: 500, data: data.subarray(500), finish: true },
        ];
        expectCode(
          await p.write(p.writeName(digest), parts),
          [Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.FAILED_PRECONDITION],
          "A gap of 100 bytes",
        );
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "overlap",
      level: "MUST",
      says: "A message that goes back inside one call is refused.",
      cites: "google.bytestream WriteRequest.write_offset",
      advice: "INVALID_ARGUMENT (OUT_OF_RANGE is accepted).",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const parts = [
          { offset: 0, data: data.subarray(0, 500) },
          { offset: 400, data: data.subarray(400), finish: true },
        ];
        expectCode(
          await p.write(p.writeName(digest), parts),
          [Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.FAILED_PRECONDITION],
          "Going back 100 bytes",
        );
      },
    },
    {
      id: "first-offset-unknown",
      level: "MUST",
      says: "A new upload that begins beyond 0 is refused.",
      cites: "google.bytestream WriteRequest.write_offset: must equal what QueryWriteStatus reports",
      advice: "Nothing is committed under a new name, so only 0 is right.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        expectRefusal(
          await p.write(p.writeName(digest), [{ offset: 100, data: data.subarray(100), finish: true }]),
          "A first offset of 100",
        );
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "negative-offset",
      level: "MUST",
      says: "A negative write_offset is refused.",
      cites: "google.bytestream WriteRequest.write_offset",
      advice: "INVALID_ARGUMENT.",
      run: async (p) => {
        const { data, digest } = p.blob(100);
        expectRefusal(await p.write(p.writeName(digest), [{ offset: -1, data, finish: true }]), "Offset -1");
      },
    },
    {
      id: "after-finish",
      level: "SHOULD",
      says: "Data after finish_write does not change the stored blob.",
      cites: "google.bytestream WriteRequest.finish_write: an error to write afterwards",
      advice: "Answer at finish_write, or refuse the call.",
      run: async (p) => {
        const blob = p.blob(800);
        await p.write(p.writeName(blob.digest), [
          { offset: 0, data: blob.data, finish: true },
          { offset: 800, data: p.random.bytes(50) },
        ]);
        const read = await p.read(p.readName(blob.digest));
        if (read.code === Code.OK) expectBytes(read.data, blob.data, "The stored bytes");
        else expectCode(read, [Code.NOT_FOUND], "Reading the blob");
      },
    },
    {
      id: "abandoned",
      level: "MUST",
      says: "An upload that is half-closed in the middle stores nothing.",
      cites: "google.bytestream ByteStream.Write: the resource is incomplete until finish_write",
      advice: "Answer with the bytes kept, or refuse; never publish a prefix.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        await p.write(p.writeName(digest), [{ offset: 0, data: data.subarray(0, 500) }]);
        await p.expectAbsent(digest, "After half an upload");
        expectCode(await p.read(p.readName(digest)), [Code.NOT_FOUND], "Reading it");
      },
    },
    {
      id: "no-finish",
      level: "MUST",
      says: "All bytes without finish_write do not answer with success and no blob.",
      cites: "google.bytestream ByteStream.Write",
      advice: "Either the blob is complete and present, or the answer does not claim its full size.",
      run: async (p) => {
        const { data, digest } = p.blob(900);
        const reply = await p.write(p.writeName(digest), [{ offset: 0, data }]);
        if (reply.code === Code.OK && reply.response?.committedSize === 900 && !p.has("write-status"))
          await p.expectStored(digest, "After committed_size 900");
      },
    },
    {
      id: "cancelled",
      level: "MUST",
      says: "An upload that is cancelled stores nothing, and can be made again.",
      cites: "google.bytestream ByteStream.Write",
      advice: "Release the upload's lock and temporary file when the stream is reset.",
      run: async (p) => {
        const blob = p.blob(300_000);
        const call = await p.options.channel.start(ByteStream.methods.Write.path);
        await call.send(
          WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data.subarray(0, 100_000) }),
        );
        call.cancel();
        await call.outcome;
        await p.expectAbsent(blob.digest, "After the cancelled upload");
        await expectWritten(p, blob, inParts(blob.data));
      },
    },
    {
      id: "empty-call",
      level: "SHOULD",
      says: "A call without any message is refused.",
      cites: "google.bytestream WriteRequest.resource_name: required in the first message",
      advice: "INVALID_ARGUMENT; do not wait for ever.",
      run: async (p) => expectRefusal(await p.write("unused", []), "A Write without messages"),
    },
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
