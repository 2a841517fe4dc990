// Compressed transfers: ByteStream names with compressed-blobs/zstd, and zstd in the batch calls.

import { Code } from "../../../src/base/status.ts";
import { Compressor_Value } from "../../../src/proto/remote_execution.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectRefusal,
  expectThat,
  type Check,
} from "../check.ts";
import { inParts, type Probe } from "../probe.ts";

const CITES = "REv2 ContentAddressableStorage: compressed-blobs";

export const zstdChecks: readonly Check[] = defineArea(
  "zstd",
  ["cache", "sha256", "zstd"],
  [
    {
      id: "read",
      level: "MUST",
      says: "A blob is read as a zstd stream of its bytes.",
      cites: CITES,
      advice: "Every advertised compressor must work for every blob.",
      run: async (p) => {
        for (const size of [10, 5000, 1_000_000]) {
          const blob = await p.storeNew(size);
          const read = await p.read(p.readName(blob.digest, "zstd"));
          expectOk(read, `Read of ${size} bytes`);
          expectBytes(p.unzstd(read.data), blob.data, "The decompressed bytes");
        }
      },
    },
    {
      id: "read-incompressible",
      level: "MUST",
      says: "Random bytes are read as a valid zstd stream as well.",
      cites: CITES,
      advice: "Use raw blocks; never send the plain bytes.",
      run: async (p) => {
        const blob = p.blobOf(p.random.bytes(100_000));
        await p.store(blob);
        const read = await p.read(p.readName(blob.digest, "zstd"));
        expectOk(read, "Read");
        expectBytes(p.unzstd(read.data), blob.data, "The decompressed bytes");
      },
    },
    {
      id: "read-empty",
      level: "MUST",
      says: "The empty blob is read as a valid empty zstd stream, or as no bytes.",
      cites: CITES,
      advice: "A frame without content is 28 B5 2F FD 20 00 01 00 00.",
      run: async (p) => {
        const read = await p.read(p.readName(p.emptyDigest, "zstd"));
        expectOk(read, "Read of the empty blob");
        if (read.data.length > 0) expectEqual(p.unzstd(read.data).length, 0, "Decompressed bytes");
      },
    },
    {
      id: "read-absent",
      level: "MUST",
      says: "An absent blob is NOT_FOUND.",
      cites: CITES,
      advice: "As for the uncompressed name.",
      run: async (p) =>
        expectCode(await p.read(p.readName(p.absentDigest(), "zstd")), [Code.NOT_FOUND], "Read of an absent blob"),
    },
    {
      id: "read-offset",
      level: "MUST",
      says: "read_offset counts uncompressed bytes and the stream is a fresh one.",
      cites: `${CITES}: offsets are in the uncompressed blob`,
      advice: "Compress the rest of the blob anew.",
      run: async (p) => {
        const blob = await p.storeNew(300_000);
        const read = await p.read(p.readName(blob.digest, "zstd"), { offset: 123_456 });
        expectOk(read, "Read");
        expectBytes(p.unzstd(read.data), blob.data.subarray(123_456), "The decompressed bytes");
      },
    },
    {
      id: "read-offset-beyond",
      level: "MUST",
      says: "read_offset beyond the uncompressed size is OUT_OF_RANGE.",
      cites: "google.bytestream ReadRequest.read_offset",
      advice: "Compare with the size of the digest.",
      run: async (p) => {
        const { digest } = await p.storeNew(1000);
        expectCode(
          await p.read(p.readName(digest, "zstd"), { offset: 1001 }),
          [Code.OUT_OF_RANGE],
          "Read from 1001 of 1000",
        );
      },
    },
    {
      id: "read-limit",
      level: "MUST",
      says: "A read_limit with a compressed name is INVALID_ARGUMENT.",
      cites: `${CITES}: read_limit must be 0`,
      advice: "A cut compressed stream is of no use.",
      run: async (p) => {
        const { digest } = await p.storeNew(1000);
        expectCode(
          await p.read(p.readName(digest, "zstd"), { limit: 10 }),
          [Code.INVALID_ARGUMENT],
          "Read with a limit",
        );
      },
    },
    {
      id: "write",
      level: "MUST",
      says: "A blob uploaded compressed is stored and read back plain.",
      cites: CITES,
      advice: "Digest and size are those of the uncompressed bytes.",
      run: async (p) => {
        const blob = p.blob(200_000);
        await expectCompressedUpload(p, blob.data, inParts(p.zstd(blob.data), 30_000));
      },
    },
    {
      id: "write-one-message",
      level: "MUST",
      says: "A small blob uploaded compressed in one message is stored.",
      cites: CITES,
      advice: "As above.",
      run: async (p) => {
        const data = p.blob(100).data;
        await expectCompressedUpload(p, data, [{ offset: 0, data: p.zstd(data), finish: true }]);
      },
    },
    {
      id: "write-committed-size",
      level: "CLIENTS",
      says: "committed_size of a compressed upload is the number of compressed bytes, or -1.",
      cites: "Bazel and Buck2 fail on any other number",
      advice: "Do not answer with the uncompressed size.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.concat([p.random.bytes(100), Buffer.alloc(50_000, 0x63)]));
        const compressed = p.zstd(blob.data);
        const reply = await p.write(p.writeName(blob.digest, { compressor: "zstd" }), inParts(compressed));
        expectOk(reply, "Write");
        const committed = reply.response?.committedSize;
        expectThat(
          committed === compressed.length || committed === -1,
          `committed_size is ${committed}, sent were ${compressed.length} bytes of ${blob.data.length}`,
        );
      },
    },
    {
      id: "write-duplicate",
      level: "CLIENTS",
      says: "A compressed upload of a present blob answers -1 or the bytes sent.",
      cites: `${CITES}: -1 when the server ends early`,
      advice: "-1 says that the blob is there, whatever was sent.",
      run: async (p) => {
        const blob = await p.storeNew(50_000);
        const compressed = p.zstd(blob.data);
        const reply = await p.write(p.writeName(blob.digest, { compressor: "zstd" }), [
          { offset: 0, data: compressed, finish: true },
        ]);
        expectOk(reply, "Write");
        const committed = reply.response?.committedSize;
        expectThat(committed === -1 || committed === compressed.length, `committed_size is ${committed}`);
      },
    },
    {
      id: "write-wrong-content",
      level: "MUST",
      says: "A compressed stream of other bytes is INVALID_ARGUMENT.",
      cites: `${CITES}: the server verifies the uncompressed data`,
      advice: "Hash after decompressing.",
      run: async (p) => {
        const { digest } = p.blob(1000);
        const reply = await p.write(p.writeName(digest, { compressor: "zstd" }), [
          { offset: 0, data: p.zstd(p.blob(1000).data), finish: true },
        ]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "Other bytes");
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "write-not-zstd",
      level: "MUST",
      says: "Bytes that are not zstd are INVALID_ARGUMENT.",
      cites: CITES,
      advice: "Never store them as they are.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const reply = await p.write(p.writeName(digest, { compressor: "zstd" }), [{ offset: 0, data, finish: true }]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "Plain bytes under a compressed name");
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "write-cut",
      level: "MUST",
      says: "A zstd stream that is cut is INVALID_ARGUMENT.",
      cites: CITES,
      advice: "Check that the last frame is complete.",
      run: async (p) => {
        const { data, digest } = p.blob(100_000);
        const compressed = p.zstd(data);
        const reply = await p.write(p.writeName(digest, { compressor: "zstd" }), [
          { offset: 0, data: compressed.subarray(0, compressed.length - 10), finish: true },
        ]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "A cut stream");
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "write-too-long",
      level: "MUST",
      says: "A stream that decompresses beyond the size is INVALID_ARGUMENT.",
      cites: `${CITES}; Digest.size_bytes`,
      advice: "Bound decompression by the size, so that a small stream cannot fill memory.",
      run: async (p) => {
        const { digest } = p.blob(1000);
        const bomb = p.zstd(Buffer.alloc(20_000_000));
        expectCode(
          await p.write(p.writeName(digest, { compressor: "zstd" }), [{ offset: 0, data: bomb, finish: true }]),
          [Code.INVALID_ARGUMENT],
          "20 MB for a size of 1,000",
        );
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "write-more-than-blob",
      level: "MUST",
      says: "A stream of the blob and more is INVALID_ARGUMENT, although it begins with the right bytes.",
      cites: `${CITES}; Digest.size_bytes`,
      advice: "Do not cut what decompresses beyond the size: refuse it.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const longer = p.zstd(Buffer.concat([data, p.random.bytes(500)]));
        const name = p.writeName(digest, { compressor: "zstd" });
        expectCode(
          await p.write(name, [{ offset: 0, data: longer, finish: true }]),
          [Code.INVALID_ARGUMENT],
          "1,500 bytes for a size of 1,000",
        );
      },
    },
    {
      id: "write-too-short",
      level: "MUST",
      says: "A stream that decompresses to less than the size is INVALID_ARGUMENT.",
      cites: `${CITES}; Digest.size_bytes`,
      advice: "Compare the length at the end.",
      run: async (p) => {
        const { data, digest } = p.blob(1000);
        const reply = await p.write(p.writeName(digest, { compressor: "zstd" }), [
          { offset: 0, data: p.zstd(data.subarray(0, 900)), finish: true },
        ]);
        expectCode(reply, [Code.INVALID_ARGUMENT], "900 bytes for a size of 1,000");
      },
    },
    {
      id: "write-several-frames",
      level: "SHOULD",
      says: "Several zstd frames one after the other are one stream.",
      cites: "RFC 8878 section 3: frames are concatenated",
      advice: "Go on after the first frame.",
      run: async (p) => {
        const blob = p.blob(60_000);
        const frames = Buffer.concat([p.zstd(blob.data.subarray(0, 25_000)), p.zstd(blob.data.subarray(25_000))]);
        await expectCompressedUpload(p, blob.data, [{ offset: 0, data: frames, finish: true }]);
      },
    },
    {
      id: "write-offsets-compressed",
      level: "MUST",
      says: "Later offsets count compressed bytes.",
      cites: `${CITES}: write_offset of following messages`,
      advice: "Offsets are those of what is sent in this call.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.concat([p.random.bytes(40_000), Buffer.alloc(400_000)]));
        await expectCompressedUpload(p, blob.data, inParts(p.zstd(blob.data), 5000));
      },
    },
    {
      id: "write-offset-wrong",
      level: "MUST",
      says: "A gap between compressed messages is refused.",
      cites: "google.bytestream WriteRequest.write_offset",
      advice: "INVALID_ARGUMENT.",
      run: async (p) => {
        const { data, digest } = p.blob(100_000);
        const compressed = p.zstd(data);
        const parts = [
          { offset: 0, data: compressed.subarray(0, 1000) },
          { offset: 1500, data: compressed.subarray(1500), finish: true },
        ];
        expectRefusal(await p.write(p.writeName(digest, { compressor: "zstd" }), parts), "A gap of 500 bytes");
      },
    },
    {
      id: "write-empty",
      level: "SHOULD",
      says: "The empty blob may be uploaded compressed.",
      cites: "REv2 ContentAddressableStorage: the empty blob is always present",
      advice: "It is always there, so answer at once.",
      run: async (p) => {
        const reply = await p.write(p.writeName(p.emptyDigest, { compressor: "zstd" }), [
          { offset: 0, data: p.zstd(Buffer.alloc(0)), finish: true },
        ]);
        expectOk(reply, "Write of the empty blob");
      },
    },
    {
      id: "both-ways",
      level: "MUST",
      says: "A blob uploaded compressed can be read compressed and plain.",
      cites: `${CITES}: every blob in every advertised form`,
      advice: "How it was uploaded must not matter.",
      run: async (p) => {
        const blob = p.blob(70_000);
        expectOk(
          await p.write(p.writeName(blob.digest, { compressor: "zstd" }), [
            { offset: 0, data: p.zstd(blob.data), finish: true },
          ]),
          "Write",
        );
        expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "The plain bytes");
        expectBytes(
          p.unzstd((await p.read(p.readName(blob.digest, "zstd"))).data),
          blob.data,
          "The decompressed bytes",
        );
      },
    },
    {
      id: "identity-name",
      level: "SHOULD",
      says: "compressed-blobs/identity is not a name.",
      cites: CITES,
      advice: "INVALID_ARGUMENT; identity is read under blobs/.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        expectCode(
          await p.read(p.readName(digest, "identity")),
          [Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.NOT_FOUND],
          "Read",
        );
      },
    },
  ],
);

export const zstdBatchChecks: readonly Check[] = defineArea(
  "zstd-batch",
  ["cache", "sha256", "zstd-batch"],
  [
    {
      id: "update",
      level: "MUST",
      says: "Compressed data in BatchUpdateBlobs is stored decompressed.",
      cites: "REv2 BatchUpdateBlobsRequest.Request.compressor",
      advice: "Decompress, then verify.",
      run: async (p) => {
        const blob = p.blob(20_000);
        const reply = await p.batchUpdate([
          { digest: blob.digest, data: p.zstd(blob.data), compressor: Compressor_Value.ZSTD },
        ]);
        expectOk(reply, "BatchUpdateBlobs");
        expectEqual(reply.response!.responses[0]?.status?.code ?? 0, Code.OK, "The status");
        expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "The bytes");
      },
    },
    {
      id: "update-corrupt",
      level: "MUST",
      says: "Data that is not zstd is INVALID_ARGUMENT.",
      cites: "REv2 ContentAddressableStorage.BatchUpdateBlobs",
      advice: "Never store it as it is.",
      run: async (p) => {
        const blob = p.blob(500);
        const reply = await p.batchUpdate([
          { digest: blob.digest, data: blob.data, compressor: Compressor_Value.ZSTD },
        ]);
        expectOk(reply, "BatchUpdateBlobs");
        expectEqual(reply.response!.responses[0]?.status?.code, Code.INVALID_ARGUMENT, "The status");
        await p.expectAbsent(blob.digest, "Afterwards");
      },
    },
    {
      id: "update-bomb",
      level: "MUST",
      says: "Data that decompresses beyond the size is INVALID_ARGUMENT.",
      cites: "REv2 Digest.size_bytes counts uncompressed bytes",
      advice: "Bound decompression by the size.",
      run: async (p) => {
        const { digest } = p.blob(500);
        const reply = await p.batchUpdate([
          { digest, data: p.zstd(Buffer.alloc(20_000_000)), compressor: Compressor_Value.ZSTD },
        ]);
        expectOk(reply, "BatchUpdateBlobs");
        expectEqual(reply.response!.responses[0]?.status?.code, Code.INVALID_ARGUMENT, "The status");
      },
    },
    {
      id: "update-mixed",
      level: "MUST",
      says: "Plain and compressed blobs may share a call.",
      cites: "REv2 BatchUpdateBlobsRequest.Request.compressor is per blob",
      advice: "Look at the compressor of each entry.",
      run: async (p) => {
        const [plain, packed] = [p.blob(800), p.blob(800)];
        expectOk(
          await p.batchUpdate([
            plain,
            { digest: packed.digest, data: p.zstd(packed.data), compressor: Compressor_Value.ZSTD },
          ]),
          "BatchUpdateBlobs",
        );
        expectEqual((await p.missingOf([plain.digest, packed.digest])).size, 0, "Blobs missing afterwards");
      },
    },
  ],
);

async function expectCompressedUpload(
  p: Probe,
  data: Uint8Array,
  parts: readonly { offset: number; data?: Uint8Array; finish?: boolean }[],
): Promise<void> {
  const blob = p.blobOf(data);
  expectOk(await p.write(p.writeName(blob.digest, { compressor: "zstd" }), parts), "The compressed upload");
  const read = await p.read(p.readName(blob.digest));
  expectOk(read, "Reading it plain");
  expectBytes(read.data, blob.data, "The bytes");
}
