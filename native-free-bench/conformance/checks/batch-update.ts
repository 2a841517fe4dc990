// BatchUpdateBlobs: many small uploads, each with its own verdict.

import { Code } from "../../../src/base/status.ts";
import { Compressor_Value, ContentAddressableStorage } from "../../../src/proto/remote_execution.ts";
import type { BatchUpdateBlobsResponse } from "../../../src/proto/remote_execution.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectPresent,
  expectThat,
  type Check,
} from "../check.ts";
import type { Reply } from "../../client/http2-channel.ts";
import type { BlobDigest } from "../../digest-functions.ts";

const CITES = "REv2 ContentAddressableStorage.BatchUpdateBlobs";

export const batchUpdateChecks: readonly Check[] = defineArea(
  "batch-update",
  ["cache", "sha256"],
  [
    {
      id: "stores",
      level: "MUST",
      says: "An uploaded blob is present and has the bytes that were sent.",
      cites: CITES,
      advice: "Acknowledge only what the next read will return.",
      run: async (p) => {
        const blob = p.blob(700);
        expectOk(statusOf(await p.batchUpdate([blob]), blob.digest), "The blob's status");
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Reading it back");
        expectBytes(read.data, blob.data, "The bytes read back");
      },
    },
    {
      id: "one-response-each",
      level: "MUST",
      says: "Every blob of the request gets one response with its digest.",
      cites: "REv2 BatchUpdateBlobsResponse.responses",
      advice: "Answer for each entry, failed or not.",
      run: async (p) => {
        const blobs = p.blobs(25, 90);
        const reply = await p.batchUpdate(blobs);
        expectOk(reply, "BatchUpdateBlobs");
        expectEqual(reply.response!.responses.length, 25, "Responses");
        for (const { digest } of blobs) expectOk(statusOf(reply, digest), `The status of ${digest.hash}`);
      },
    },
    {
      id: "digest-echoed",
      level: "MUST",
      says: "The digest in a response has the size as well.",
      cites: "REv2 BatchUpdateBlobsResponse.Response.digest",
      advice: "Echo the request's digest.",
      run: async (p) => {
        const blob = p.blob(333);
        const reply = await p.batchUpdate([blob]);
        expectEqual(reply.response?.responses[0]?.digest?.sizeBytes, 333, "The size in the response");
      },
    },
    {
      id: "empty-request",
      level: "MUST",
      says: "A request without blobs is OK and empty.",
      cites: CITES,
      advice: "An empty list is not an error.",
      run: async (p) => {
        const reply = await p.batchUpdate([]);
        expectOk(reply, "BatchUpdateBlobs of nothing");
        expectEqual(reply.response!.responses.length, 0, "Responses");
      },
    },
    {
      id: "wrong-hash",
      level: "MUST",
      says: "Data that does not match its hash is INVALID_ARGUMENT in that blob's status.",
      cites: `${CITES}: INVALID_ARGUMENT if the data does not match the digest`,
      advice: "Hash what was received; a cache that stores wrong bytes poisons every build after it.",
      run: async (p) => {
        const { digest } = p.blob(200);
        const reply = await p.batchUpdate([{ digest, data: p.blob(200).data }]);
        expectOk(reply, "The call");
        expectCode(statusOf(reply, digest), [Code.INVALID_ARGUMENT], "The blob's status");
        await p.expectAbsent(digest, "After the refused upload");
      },
    },
    {
      id: "size-too-large",
      level: "MUST",
      says: "Data shorter than the digest's size is INVALID_ARGUMENT, even when the hash is right.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "Compare the length as well as the hash.",
      run: async (p) => {
        const { data, digest } = p.blob(200);
        const lie = { hash: digest.hash, sizeBytes: 201 };
        const reply = await p.batchUpdate([{ digest: lie, data }]);
        if (reply.code === Code.OK) expectCode(statusOf(reply, lie), [Code.INVALID_ARGUMENT], "The blob's status");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
        await p.expectAbsent(lie, "After the refused upload");
      },
    },
    {
      id: "size-too-small",
      level: "MUST",
      says: "Data longer than the digest's size is INVALID_ARGUMENT.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "Compare the length as well as the hash.",
      run: async (p) => {
        const { data, digest } = p.blob(200);
        const lie = { hash: digest.hash, sizeBytes: 199 };
        const reply = await p.batchUpdate([{ digest: lie, data }]);
        if (reply.code === Code.OK) expectCode(statusOf(reply, lie), [Code.INVALID_ARGUMENT], "The blob's status");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
        await p.expectAbsent(lie, "After the refused upload");
      },
    },
    {
      id: "independent",
      level: "MUST",
      says: "One bad blob does not keep the good ones of the same call out.",
      cites: `${CITES}: as if each were uploaded by itself`,
      advice: "Give each blob its own status; fail the call only for the call's own faults.",
      run: async (p) => {
        const good = p.blobs(3, 80);
        const bad = { digest: p.absentDigest(80), data: p.blob(80).data };
        const reply = await p.batchUpdate([good[0]!, bad, good[1]!, good[2]!]);
        expectOk(reply, "The call");
        for (const { digest } of good) expectOk(statusOf(reply, digest), "The status of a good blob");
        expectCode(statusOf(reply, bad.digest), [Code.INVALID_ARGUMENT], "The status of the bad blob");
        expectEqual((await p.missingOf(good.map(({ digest }) => digest))).size, 0, "Good blobs missing afterwards");
        await p.expectAbsent(bad.digest, "The bad blob");
      },
    },
    {
      id: "again",
      level: "MUST",
      says: "Uploading a present blob again is OK.",
      cites: CITES,
      advice: "Treat it as success; extend its lifetime.",
      run: async (p) => {
        const blob = await p.storeNew(150);
        expectOk(statusOf(await p.batchUpdate([blob]), blob.digest), "The second upload");
      },
    },
    {
      id: "twice-in-one-call",
      level: "SHOULD",
      says: "The same blob twice in one call is OK both times.",
      cites: `${CITES}: as if each were uploaded by itself`,
      advice: "Do not let the second entry fail on the first one's lock or temporary file.",
      run: async (p) => {
        const blob = p.blob(150);
        const reply = await p.batchUpdate([blob, blob]);
        expectOk(reply, "The call");
        for (const { status } of reply.response!.responses)
          expectOk({ code: status?.code ?? 0, message: status?.message ?? "" }, "A status");
        await p.expectStored(blob.digest, "Afterwards");
      },
    },
    {
      id: "bad-after-good",
      level: "MUST",
      says: "Wrong data for a present blob does not replace its bytes.",
      cites: "REv2 ContentAddressableStorage: content is addressed by its digest",
      advice: "Answer OK without looking or refuse, but never overwrite.",
      run: async (p) => {
        const blob = await p.storeNew(400);
        await p.batchUpdate([{ digest: blob.digest, data: p.blob(400).data }]);
        const read = await p.read(p.readName(blob.digest));
        expectOk(read, "Reading the blob");
        expectBytes(read.data, blob.data, "Its bytes");
      },
    },
    {
      id: "empty-blob",
      level: "MUST",
      says: "Uploading the empty blob is OK.",
      cites: "REv2 ContentAddressableStorage: the empty blob is always present",
      advice: "Accept it without storing.",
      run: async (p) =>
        expectOk(statusOf(await p.batchUpdate([{ digest: p.emptyDigest }]), p.emptyDigest), "The status"),
    },
    {
      id: "empty-data-other-digest",
      level: "MUST",
      says: "No data for a digest that is not the empty one is INVALID_ARGUMENT.",
      cites: `${CITES}: INVALID_ARGUMENT if the data does not match the digest`,
      advice: "An absent data field is an empty blob, not a request to skip verification.",
      run: async (p) => {
        const digest = p.absentDigest(64);
        const reply = await p.batchUpdate([{ digest }]);
        if (reply.code === Code.OK) expectCode(statusOf(reply, digest), [Code.INVALID_ARGUMENT], "The status");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
        await p.expectAbsent(digest, "Afterwards");
      },
    },
    {
      id: "malformed-digest",
      level: "SHOULD",
      says: "A malformed digest is INVALID_ARGUMENT, for the blob or for the call.",
      cites: "REv2 Digest.hash",
      advice: "Validate before storing: hashes become file names in many stores.",
      run: async (p) => {
        const digest = { hash: "../../etc/passwd", sizeBytes: 3 };
        const reply = await p.batchUpdate([{ digest, data: Buffer.from("abc") }]);
        if (reply.code === Code.OK) expectCode(statusOf(reply, digest), [Code.INVALID_ARGUMENT], "The status");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
      },
    },
    {
      id: "no-digest",
      level: "SHOULD",
      says: "An entry without a digest is refused.",
      cites: "REv2 BatchUpdateBlobsRequest.Request.digest",
      advice: "Say that the digest is missing.",
      run: async (p) => {
        const reply = await p.batchUpdate([{ data: Buffer.from("abc") }]);
        if (reply.code !== Code.OK) return expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
        expectCode(
          { code: reply.response!.responses[0]?.status?.code ?? 0, message: "" },
          [Code.INVALID_ARGUMENT],
          "The status",
        );
      },
    },
    {
      id: "unknown-compressor",
      level: "SHOULD",
      says: "A compressor that is not advertised is INVALID_ARGUMENT and nothing is stored.",
      cites: "REv2 BatchUpdateBlobsRequest.Request.compressor",
      advice: "Never store compressed bytes as if they were the blob.",
      run: async (p) => {
        const { data, digest } = p.blob(100);
        const reply = await p.batchUpdate([{ digest, data, compressor: 77 }]);
        if (reply.code === Code.OK) expectCode(statusOf(reply, digest), [Code.INVALID_ARGUMENT], "The status");
        else expectCode(reply, [Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED], "The call");
      },
    },
    {
      id: "unknown-digest-function",
      level: "SHOULD",
      says: "A digest function that is not advertised is INVALID_ARGUMENT.",
      cites: "REv2 BatchUpdateBlobsRequest.digest_function",
      advice: "Do not verify with a function the client did not ask for.",
      run: async (p) => {
        const blob = p.blob(100);
        const request = { instanceName: p.instanceName, digestFunction: 99, requests: [blob] };
        expectCode(
          await p.call(ContentAddressableStorage.methods.BatchUpdateBlobs, request),
          [Code.INVALID_ARGUMENT],
          "Digest function 99",
        );
      },
    },
    {
      id: "full-batch",
      level: "MUST",
      says: "A batch of exactly max_batch_total_size_bytes is accepted.",
      cites: "REv2 CacheCapabilities.max_batch_total_size_bytes",
      advice: "The limit is for the sum of the blobs; let the message be as much larger as digests need.",
      needs: ["batch-limit"],
      run: async (p) => {
        const limit = Math.min(p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes, 16 * 1024 * 1024);
        const size = Math.floor(limit / 8);
        const blobs = [...p.blobs(7, size), p.blob(limit - 7 * size)];
        const reply = await p.batchUpdate(blobs);
        expectOk(reply, `A batch of ${limit} bytes`);
        for (const { digest } of blobs) expectOk(statusOf(reply, digest), "A status");
      },
    },
    {
      id: "over-batch",
      level: "SHOULD",
      says: "A batch beyond max_batch_total_size_bytes is refused as a whole.",
      cites: `${CITES}: INVALID_ARGUMENT beyond the announced limit`,
      advice:
        "Answer INVALID_ARGUMENT naming the limit; RESOURCE_EXHAUSTED of the transport is accepted here when the message itself is too large.",
      needs: ["batch-limit"],
      run: async (p) => {
        const limit = p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes;
        if (limit > 16 * 1024 * 1024) return;
        const size = Math.ceil(limit / 8) + 1;
        const blobs = p.blobs(8, size);
        expectCode(
          await p.batchUpdate(blobs),
          [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED],
          `A batch of ${8 * size} bytes`,
        );
      },
    },
    {
      id: "many-small",
      level: "SHOULD",
      says: "A batch of 2,000 blobs of 20 bytes is accepted.",
      cites: CITES,
      advice: "Only the sum of sizes is announced; do not limit the count below what fits a message.",
      run: async (p) => {
        const blobs = p.blobs(2000, 20);
        expectOk(await p.batchUpdate(blobs), "2,000 blobs");
        expectEqual((await p.missingOf(blobs.map(({ digest }) => digest))).size, 0, "Blobs missing afterwards");
      },
    },
    {
      id: "identity-explicit",
      level: "MUST",
      says: "Compressor IDENTITY said explicitly is the same as unset.",
      cites: "REv2 Compressor.Value.IDENTITY: always supported",
      advice: "0 needs no announcement.",
      run: async (p) => {
        const blob = p.blob(128);
        expectOk(
          statusOf(await p.batchUpdate([{ ...blob, compressor: Compressor_Value.IDENTITY }]), blob.digest),
          "The status",
        );
      },
    },
    {
      id: "refused-leaves-nothing",
      level: "MUST",
      says: "After a refused upload the right data can be uploaded.",
      cites: CITES,
      advice: "Clean up what a failed upload left: temporary files, locks, negative entries.",
      run: async (p) => {
        const blob = p.blob(512);
        await p.batchUpdate([{ digest: blob.digest, data: p.blob(512).data }]);
        expectOk(statusOf(await p.batchUpdate([blob]), blob.digest), "The right upload after the wrong one");
        await p.expectStored(blob.digest, "Afterwards");
      },
    },
  ],
);

function statusOf(
  reply: Reply<BatchUpdateBlobsResponse>,
  digest: Partial<BlobDigest>,
): { code: number; message: string } {
  expectOk(reply, "BatchUpdateBlobs");
  const found = reply.response!.responses.find((response) => response.digest?.hash === digest.hash);
  expectThat(found !== undefined, `no response has the digest ${digest.hash}`);
  const response = expectPresent(found, "the response");
  return { code: response.status?.code ?? 0, message: response.status?.message ?? "" };
}
