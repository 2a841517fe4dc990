// BatchReadBlobs: many small blobs in one answer.
//
// Invariant: the answer is below what gRPC clients take by default. Only a batch that could not be answered so fails as
// a whole; a blob that is absent or malformed has its own status.

import { setImmediate } from "node:timers/promises";
import type { BlobStore } from "../cas/blob-store.ts";
import type { UnaryHandler } from "../grpc/service.ts";
import { MIN_COMPRESSIBLE_BYTES, type Zstd } from "../base/zstd.ts";
import { Code, StatusError, invalidArgument, toStatusError } from "../base/status.ts";
import { isEmptyDigest, parseDigest, parseDigestFunction, type DigestFunction } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { BatchReadBlobsRequest, BatchReadBlobsResponse, Compressor_Value } from "../proto/remote_execution.ts";
import type { BatchReadBlobsResponse_ResponseInit, Digest as WireDigest } from "../proto/remote_execution.ts";
import { ABSENT, BatchReadAtHand } from "./batch-read-at-hand.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_BATCH_TOTAL_BYTES, MAX_RESPONSE_BYTES } from "./message-limits.ts";

/** What one response costs beyond data and hash: tags, lengths, size, compressor or a status. */
const OVERHEAD_BYTES = 48;

export function createBatchReadBlobs(blobs: BlobStore, zstd: Zstd): UnaryHandler {
  const atHand = new BatchReadAtHand();
  return (bytes) => {
    const answerAtHand = atHand.answer(blobs, bytes);
    if (answerAtHand !== undefined) return answerAtHand;
    const request = decodeRequest(BatchReadBlobsRequest, bytes);
    parseInstanceName(request.instanceName);
    const fn = parseDigestFunction(request.digestFunction);
    assertWithinLimit(request.digests);
    if (request.acceptableCompressors.includes(Compressor_Value.ZSTD))
      return readCompressed(blobs, fn, request.digests, zstd);
    const answers = request.digests.map((digest, index) => read(blobs, fn, digest, { index, zstd: undefined }));
    if (answers.every(isReady)) return encode(answers);
    return Promise.all(answers.map(async (each) => each)).then(encode);
  };
}

/** Small blobs are compressed in place, up to 60 µs each: after so many the event loop gets a turn. */
const ZSTD_TURN = 16;

async function readCompressed(
  blobs: BlobStore,
  fn: DigestFunction,
  digests: readonly WireDigest[],
  zstd: Zstd,
): Promise<Uint8Array> {
  const answers: Promise<Answer>[] = [];
  for (const [index, digest] of digests.entries()) {
    if (index % ZSTD_TURN === ZSTD_TURN - 1) await setImmediate();
    answers.push(Promise.resolve(read(blobs, fn, digest, { index, zstd })));
  }
  return encode(await Promise.all(answers));
}

function isReady(value: Answer | Promise<Answer>): value is Answer {
  return !(value instanceof Promise);
}

function encode(responses: readonly Answer[]): Uint8Array {
  const response = BatchReadBlobsResponse.encode({ responses });
  if (response.length > MAX_RESPONSE_BYTES) throw tooManyBytes("the answer would have", response.length);
  return response;
}

function assertWithinLimit(digests: readonly WireDigest[]): void {
  let totalBytes = 0;
  let answerBytes = 0;
  for (const { hash, sizeBytes } of digests) {
    const dataBytes = Math.max(0, sizeBytes);
    totalBytes += dataBytes;
    answerBytes += dataBytes + hash.length + OVERHEAD_BYTES;
  }
  if (totalBytes > MAX_BATCH_TOTAL_BYTES) {
    throw invalidArgument(
      `the batch asks for ${totalBytes} bytes of blobs, at most ${MAX_BATCH_TOTAL_BYTES} are allowed ` +
        "(max_batch_total_size_bytes): ask in several batches, or read large blobs through ByteStream.Read",
    );
  }
  if (answerBytes > MAX_RESPONSE_BYTES) throw tooManyBytes(`${digests.length} digests make an answer of`, answerBytes);
}

function tooManyBytes(subject: string, bytes: number): StatusError {
  return invalidArgument(
    `${subject} ${bytes} bytes, more than the ${MAX_RESPONSE_BYTES} a gRPC client takes: ask in several batches`,
  );
}

type Answer = BatchReadBlobsResponse_ResponseInit;

/** Synchronous when the store is, which it is for small blobs: a promise per blob costs more than reading it. */
function read(
  blobs: BlobStore,
  fn: DigestFunction,
  wire: WireDigest,
  options: { readonly index: number; readonly zstd: Zstd | undefined },
): Answer | Promise<Answer> {
  try {
    const digest = parseDigest(fn, wire, `digests[${options.index}]`);
    if (isEmptyDigest(digest)) return { digest: wire };
    const data = blobs.get(digest);
    if (!(data instanceof Promise)) return answer(wire, data, options.zstd);
    return data.then((bytes) => answer(wire, bytes, options.zstd)).catch((error: unknown) => failure(wire, error));
  } catch (error) {
    return failure(wire, error);
  }
}

function answer(wire: WireDigest, data: Uint8Array | undefined, zstd: Zstd | undefined): Answer | Promise<Answer> {
  if (data === undefined) return { digest: wire, status: ABSENT };
  if (zstd === undefined || data.length < MIN_COMPRESSIBLE_BYTES) return { digest: wire, data };
  const choose = (compressed: Uint8Array): Answer =>
    compressed.length >= data.length
      ? { digest: wire, data }
      : { digest: wire, data: compressed, compressor: Compressor_Value.ZSTD };
  const compressed = zstd.compress(data);
  if (!(compressed instanceof Promise)) return choose(compressed);
  return compressed.then(choose).catch((error: unknown) => failure(wire, error));
}

function failure(wire: WireDigest, error: unknown): Answer {
  const { code, message } = toStatusError(error);
  // A damaged blob is an absent one, so that the client uploads it again.
  return { digest: wire, status: { code: code === Code.DATA_LOSS ? Code.NOT_FOUND : code, message } };
}
