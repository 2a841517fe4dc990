// BatchReadBlobs: many small downloads, each with its own verdict.

import { Code } from "../../../src/base/status.ts";
import { Compressor_Value, ContentAddressableStorage } from "../../../src/proto/remote_execution.ts";
import type { BatchReadBlobsResponse_Response } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectBytes, expectCode, expectEqual, expectOk, expectThat, type Check } from "../check.ts";
import type { Probe } from "../probe.ts";
import type { BlobDigest } from "../../digest-functions.ts";

const CITES = "REv2 ContentAddressableStorage.BatchReadBlobs";

export const batchReadChecks: readonly Check[] = defineArea(
  "batch-read",
  ["cache", "sha256"],
  [
    {
      id: "reads",
      level: "MUST",
      says: "Stored blobs come back with their bytes.",
      cites: CITES,
      advice: "Return the stored bytes, uncompressed unless the client accepts a compressor.",
      run: async (p) => {
        const blobs = p.blobs(10, 300);
        await p.store(...blobs);
        const responses = await read(
          p,
          blobs.map(({ digest }) => digest),
        );
        for (const { data, digest } of blobs) {
          const response = find(responses, digest);
          expectOk(statusOf(response), `The status of ${digest.hash}`);
          expectBytes(response.data, data, "The bytes");
        }
      },
    },
    {
      id: "absent",
      level: "MUST",
      says: "An absent blob is NOT_FOUND in its own status, and the call is OK.",
      cites: `${CITES}: errors of single blobs go into their status`,
      advice: "Do not fail the call for one blob.",
      run: async (p) => {
        const digest = p.absentDigest();
        const response = find(await read(p, [digest]), digest);
        expectCode(statusOf(response), [Code.NOT_FOUND], "The status");
        expectEqual(response.data.length, 0, "Bytes of an absent blob");
      },
    },
    {
      id: "mixed",
      level: "MUST",
      says: "Present and absent blobs are told apart in one call.",
      cites: CITES,
      advice: "One response per digest, each with its own status.",
      run: async (p) => {
        const present = await p.storeNew(77);
        const absent = p.absentDigest(77);
        const responses = await read(p, [absent, present.digest]);
        expectEqual(responses.length, 2, "Responses");
        expectCode(statusOf(find(responses, absent)), [Code.NOT_FOUND], "The absent one");
        const found = find(responses, present.digest);
        expectOk(statusOf(found), "The present one");
        expectBytes(found.data, present.data, "Its bytes");
      },
    },
    {
      id: "empty-request",
      level: "MUST",
      says: "A request without digests is OK and empty.",
      cites: CITES,
      advice: "An empty list is not an error.",
      run: async (p) => expectEqual((await read(p, [])).length, 0, "Responses"),
    },
    {
      id: "empty-blob",
      level: "MUST",
      says: "The empty blob is read as zero bytes.",
      cites: "REv2 ContentAddressableStorage: the empty blob is always present",
      advice: "Answer before asking the store.",
      run: async (p) => {
        const response = find(await read(p, [p.emptyDigest]), p.emptyDigest);
        expectOk(statusOf(response), "The status");
        expectEqual(response.data.length, 0, "Bytes");
      },
    },
    {
      id: "identity-by-default",
      level: "MUST",
      says: "Without acceptable_compressors the data is not compressed.",
      cites: "REv2 BatchReadBlobsRequest.acceptable_compressors",
      advice: "Compress only with what the client lists.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.alloc(5000, 0x61));
        await p.store(blob);
        const response = find(await read(p, [blob.digest]), blob.digest);
        expectEqual(response.compressor, Compressor_Value.IDENTITY, "The compressor");
        expectBytes(response.data, blob.data, "The bytes");
      },
    },
    {
      id: "zstd-when-accepted",
      level: "MUST",
      says: "With ZSTD acceptable the data is identity or zstd, as its compressor says.",
      cites: "REv2 BatchReadBlobsResponse.Response.compressor",
      advice: "Label what was done; IDENTITY stays allowed.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.alloc(5000, 0x62));
        await p.store(blob);
        const reply = await p.batchRead([blob.digest], [Compressor_Value.ZSTD]);
        expectOk(reply, "BatchReadBlobs");
        const response = find(reply.response!.responses, blob.digest);
        expectOk(statusOf(response), "The status");
        expectThat(
          response.compressor === Compressor_Value.IDENTITY || response.compressor === Compressor_Value.ZSTD,
          `compressor ${response.compressor} was not acceptable`,
        );
        expectBytes(
          response.compressor === Compressor_Value.ZSTD ? p.unzstd(response.data) : response.data,
          blob.data,
          "The bytes",
        );
      },
    },
    {
      id: "unknown-acceptable-compressor",
      level: "SHOULD",
      says: "An unknown acceptable compressor is ignored.",
      cites: "REv2 BatchReadBlobsRequest.acceptable_compressors: IDENTITY is always acceptable",
      advice: "The list is an offer; take what is known from it.",
      run: async (p) => {
        const blob = await p.storeNew(100);
        const reply = await p.batchRead([blob.digest], [55]);
        expectOk(reply, "BatchReadBlobs");
        expectBytes(find(reply.response!.responses, blob.digest).data, blob.data, "The bytes");
      },
    },
    {
      id: "wrong-size",
      level: "MUST",
      says: "A stored hash asked for with another size is not served.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "NOT_FOUND or INVALID_ARGUMENT.",
      run: async (p) => {
        const { digest } = await p.storeNew(90);
        const lie = { hash: digest.hash, sizeBytes: 91 };
        const reply = await p.batchRead([lie]);
        if (reply.code !== Code.OK) return expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
        expectCode(
          statusOf(find(reply.response!.responses, lie)),
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT],
          "The status",
        );
      },
    },
    {
      id: "duplicates",
      level: "SHOULD",
      says: "A digest asked twice is answered with its bytes.",
      cites: CITES,
      advice: "Answer it once or twice; clients look responses up by digest.",
      run: async (p) => {
        const blob = await p.storeNew(60);
        const responses = await read(p, [blob.digest, blob.digest]);
        expectThat(responses.length >= 1, "no response");
        for (const response of responses) expectBytes(response.data, blob.data, "The bytes");
      },
    },
    {
      id: "full-batch",
      level: "CLIENTS",
      says: "A read of max_batch_total_size_bytes is answered in a message of at most 4 MiB.",
      cites: "client libraries refuse messages above 4 MiB by default",
      advice: "Announce a limit that leaves room for digests and statuses.",
      needs: ["batch-limit"],
      run: async (p) => {
        const limit = Math.min(p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes, 16 * 1024 * 1024);
        const size = Math.floor(limit / 16);
        const blobs = p.blobs(16, size);
        await p.store(...blobs);
        const responses = await read(
          p,
          blobs.map(({ digest }) => digest),
        );
        for (const { data, digest } of blobs) expectBytes(find(responses, digest).data, data, "The bytes");
      },
    },
    {
      id: "over-batch",
      level: "MUST",
      says: "A request for more than max_batch_total_size_bytes is INVALID_ARGUMENT.",
      cites: `${CITES}: INVALID_ARGUMENT beyond the limit`,
      advice: "Sum the sizes of the digests before reading anything.",
      needs: ["batch-limit"],
      run: async (p) => {
        const limit = p.capabilities.cacheCapabilities!.maxBatchTotalSizeBytes;
        const digests = Array.from({ length: 4 }, () => ({
          ...p.absentDigest(10),
          sizeBytes: Math.ceil(limit / 4) + 1,
        }));
        expectCode(
          await p.batchRead(digests),
          [Code.INVALID_ARGUMENT],
          `A request for ${4 * (Math.ceil(limit / 4) + 1)} bytes`,
        );
      },
    },
    {
      id: "malformed-digest",
      level: "SHOULD",
      says: "A malformed digest is INVALID_ARGUMENT, for the blob or for the call.",
      cites: "REv2 Digest.hash",
      advice: "Validate before looking: hashes become file names in many stores.",
      run: async (p) => {
        const digest = { hash: "../../../../etc/passwd", sizeBytes: 10 };
        const reply = await p.batchRead([digest]);
        if (reply.code === Code.OK)
          expectCode(statusOf(reply.response!.responses[0]), [Code.INVALID_ARGUMENT], "The status");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
      },
    },
    {
      id: "unknown-digest-function",
      level: "SHOULD",
      says: "A digest function that is not advertised is INVALID_ARGUMENT.",
      cites: "REv2 BatchReadBlobsRequest.digest_function",
      advice: "Do not fall back to another function.",
      run: async (p) => {
        const request = { instanceName: p.instanceName, digestFunction: 99, digests: [p.absentDigest()] };
        expectCode(
          await p.call(ContentAddressableStorage.methods.BatchReadBlobs, request),
          [Code.INVALID_ARGUMENT],
          "Digest function 99",
        );
      },
    },
    {
      id: "after-bytestream",
      level: "MUST",
      says: "A blob written by ByteStream is read by BatchReadBlobs.",
      cites: "REv2 ContentAddressableStorage: one store behind all paths",
      advice: "Share one store.",
      run: async (p) => {
        const blob = p.blob(2000);
        expectOk(
          await p.write(p.writeName(blob.digest), [{ offset: 0, data: blob.data, finish: true }]),
          "ByteStream.Write",
        );
        expectBytes(find(await read(p, [blob.digest]), blob.digest).data, blob.data, "The bytes");
      },
    },
    {
      id: "hundred",
      level: "MUST",
      says: "100 blobs are read in one call, each with its own bytes.",
      cites: CITES,
      advice: "Look at how responses are paired with digests.",
      run: async (p) => {
        const blobs = p.blobs(100, 1000);
        await p.store(...blobs);
        const responses = await read(
          p,
          blobs.map(({ digest }) => digest),
        );
        for (const { data, digest } of blobs)
          expectBytes(find(responses, digest).data, data, `The bytes of ${digest.hash}`);
      },
    },
  ],
);

async function read(p: Probe, digests: readonly BlobDigest[]): Promise<readonly BatchReadBlobsResponse_Response[]> {
  const reply = await p.batchRead(digests);
  expectOk(reply, "BatchReadBlobs");
  return reply.response!.responses;
}

function find(
  responses: readonly BatchReadBlobsResponse_Response[],
  digest: { hash: string },
): BatchReadBlobsResponse_Response {
  const found = responses.find((response) => response.digest?.hash === digest.hash);
  expectThat(found !== undefined, `no response has the digest ${digest.hash}`);
  return found;
}

function statusOf(response: BatchReadBlobsResponse_Response | undefined): { code: number; message: string } {
  expectThat(response !== undefined, "there is no response");
  return { code: response.status?.code ?? 0, message: response.status?.message ?? "" };
}
