// BatchUpdateBlobs: many small uploads in one call, each with a status of its own.
//
// Invariant: one blob's failure never touches another's; only a batch above the announced limit fails as a whole, and
// then nothing is stored. Writes run together, so that they share a commit.

import { setImmediate } from "node:timers/promises";
import type { BlobStore } from "../cas/blob-store.ts";
import type { UnaryHandler } from "../grpc/service.ts";
import type { Zstd } from "../base/zstd.ts";
import { invalidArgument, toStatusError } from "../base/status.ts";
import { isEmptyDigest, parseDigest, parseDigestFunction, type DigestFunction } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, Compressor_Value } from "../proto/remote_execution.ts";
import type {
  BatchUpdateBlobsRequest_Request,
  BatchUpdateBlobsResponse_ResponseInit,
} from "../proto/remote_execution.ts";
import { BatchUpdateAtHand } from "./batch-update-at-hand.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_BATCH_TOTAL_BYTES } from "./message-limits.ts";

/** Kept for reuse between calls. */
const MAX_SPARE = 4;

export function createBatchUpdateBlobs(blobs: BlobStore, zstd: Zstd): UnaryHandler {
  const oneByOne = createUpdateOneByOne(blobs, zstd);
  const spare: BatchUpdateAtHand[] = [];
  return (bytes, call) => {
    const atHand = spare.pop() ?? new BatchUpdateAtHand();
    const giveBack = () => {
      atHand.clear();
      if (spare.length < MAX_SPARE) spare.push(atHand);
    };
    const answer = atHand.answer(blobs, bytes);
    if (answer === undefined) {
      giveBack();
      return oneByOne(bytes, call);
    }
    // What could not be stored together may be stored in part, and each blob has a status of its own.
    return answer.catch(() => oneByOne(bytes, call)).finally(giveBack);
  };
}

function createUpdateOneByOne(blobs: BlobStore, zstd: Zstd): UnaryHandler {
  return async (bytes) => {
    const request = decodeRequest(BatchUpdateBlobsRequest, bytes);
    parseInstanceName(request.instanceName);
    const fn = parseDigestFunction(request.digestFunction);
    assertWithinLimit(request.requests);
    const responses: Promise<BatchUpdateBlobsResponse_ResponseInit>[] = [];
    for (const [index, item] of request.requests.entries()) {
      if (item.compressor === Compressor_Value.ZSTD && index % ZSTD_TURN === ZSTD_TURN - 1) await setImmediate();
      responses.push(update({ blobs, zstd }, fn, item, index));
    }
    return BatchUpdateBlobsResponse.encode({ responses: await Promise.all(responses) });
  };
}

/** Small frames are decompressed in place, up to 60 µs each: after so many the event loop gets a turn. */
const ZSTD_TURN = 16;

/** Both counts matter: the bytes that came, and those that a compressed blob will become. */
function assertWithinLimit(requests: readonly BatchUpdateBlobsRequest_Request[]): void {
  let dataBytes = 0;
  let declaredBytes = 0;
  for (const { data, digest } of requests) {
    dataBytes += data.length;
    if (digest !== undefined && digest.sizeBytes > 0) declaredBytes += digest.sizeBytes;
  }
  const totalBytes = Math.max(dataBytes, declaredBytes);
  if (totalBytes <= MAX_BATCH_TOTAL_BYTES) return;
  throw invalidArgument(
    `the batch holds ${totalBytes} bytes of blobs, at most ${MAX_BATCH_TOTAL_BYTES} are allowed ` +
      "(max_batch_total_size_bytes): send several batches, or large blobs through ByteStream.Write",
  );
}

async function update(
  { blobs, zstd }: { readonly blobs: BlobStore; readonly zstd: Zstd },
  fn: DigestFunction,
  item: BatchUpdateBlobsRequest_Request,
  index: number,
): Promise<BatchUpdateBlobsResponse_ResponseInit> {
  try {
    const digest = parseDigest(fn, item.digest, `requests[${index}].digest`);
    const data = await plainData(zstd, item, digest.sizeBytes, index);
    if (data.length !== digest.sizeBytes) {
      throw invalidArgument(`requests[${index}]: ${data.length} bytes of data, digest says ${digest.sizeBytes}`);
    }
    if (!isEmptyDigest(digest)) await blobs.put(digest, data);
    return { digest: item.digest };
  } catch (error) {
    const { code, message } = toStatusError(error);
    return { digest: item.digest, status: { code, message } };
  }
}

function plainData(
  zstd: Zstd,
  item: BatchUpdateBlobsRequest_Request,
  sizeBytes: number,
  index: number,
): Uint8Array | Promise<Uint8Array> {
  if (item.compressor === Compressor_Value.IDENTITY) return item.data;
  if (item.compressor === Compressor_Value.ZSTD) return zstd.decompress(item.data, sizeBytes);
  throw invalidArgument(
    `requests[${index}].compressor ${item.compressor} is not supported: this server takes IDENTITY (0) and ZSTD (1)`,
  );
}
