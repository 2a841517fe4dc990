// ByteStream.Read: a blob or a part of it, plain or compressed afresh with zstd.
//
// Invariant: one chunk is on its way to the client; another is asked for only then (the reader itself may be one ahead).
// Errors of the request come before the first byte. Offsets count uncompressed bytes; a compressed read has no limit.

import { CopyOutcome, type BlobReader, type BlobStore } from "../cas/blob-store.ts";
import type { AnswerAtOnce, StreamCall, StreamHandler } from "../grpc/service.ts";
import type { Zstd, ZstdStream } from "../base/zstd.ts";
import { Code, StatusError, invalidArgument, notFound } from "../base/status.ts";
import { formatDigest, isEmptyDigest, type Digest } from "../digest/digest.ts";
import { DigestBatch } from "../digest/digest-batch.ts";
import { parseReadName, type ReadName } from "../digest/resource-name.ts";
import { ReadRequest } from "../proto/bytestream.ts";
import { fieldHeader } from "../proto/wire.ts";
import { decodeOnlyRequest, decodeRequest } from "./decode.ts";
import { assertResourceNameHeader } from "./resource-name-header.ts";

const TAG_DATA = 0x52;
/** Blobs up to here are fetched whole: one message, and no reader to open and close. */
const WHOLE_BYTES = 64 * 1024;

interface Range {
  readonly offsetBytes: number;
  /** 0: to the end. */
  readonly limitBytes: number;
}

export interface ReadDeps {
  readonly blobs: BlobStore;
  readonly zstd: Zstd;
}

export function createRead(deps: ReadDeps): StreamHandler {
  return async (call) => {
    const request = await decodeOnlyRequest(ReadRequest, call);
    const name = parseReadName(request.resourceName);
    assertResourceNameHeader(call, request.resourceName);
    const range = { offsetBytes: request.readOffset, limitBytes: request.readLimit };
    assertRange(name, range);
    const sink = new DataSink(call);
    try {
      if (name.digest.sizeBytes <= WHOLE_BYTES) await sendWhole(deps, name, range, sink);
      else await sendInChunks(deps, name, range, sink);
    } catch (error) {
      // Found damaged before anything went out: absent, as far as the client is concerned, so that it uploads it again.
      if (!sink.hasSent && error instanceof StatusError && error.code === Code.DATA_LOSS) throw notFound(error.message);
      throw error;
    }
  };
}

/**
 * Small plain blobs that are in memory, whole: one buffer, no promise. What needs more, or an error, is left to createRead().
 */
export function createReadAtOnce({ blobs }: ReadDeps): AnswerAtOnce {
  const batch = new DigestBatch();
  return (bytes, call) => {
    const request = decodeRequest(ReadRequest, bytes);
    if (request.readOffset !== 0 || request.readLimit !== 0) return undefined;
    const { digest, encoding } = parseReadName(request.resourceName);
    if (encoding !== "identity" || isEmptyDigest(digest) || digest.sizeBytes > WHOLE_BYTES) return undefined;
    assertResourceNameHeader(call, request.resourceName);
    batch.clear(digest.fn);
    batch.add(digest);
    const header = fieldHeader(TAG_DATA, digest.sizeBytes);
    const answer = Buffer.allocUnsafe(header.length + digest.sizeBytes);
    answer.set(header);
    return blobs.copyAtHand(batch, 0, answer, header.length) === CopyOutcome.COPIED ? answer : undefined;
  };
}

function assertRange({ digest, encoding }: ReadName, { offsetBytes, limitBytes }: Range): void {
  if (offsetBytes < 0) throw new StatusError(Code.OUT_OF_RANGE, `read_offset ${offsetBytes} is negative`);
  if (limitBytes < 0) throw invalidArgument(`read_limit ${limitBytes} is negative; 0 means no limit`);
  if (encoding === "zstd" && limitBytes !== 0) {
    throw invalidArgument(`read_limit ${limitBytes} with a compressed resource: it must be 0 there`);
  }
  if (offsetBytes > digest.sizeBytes) {
    throw new StatusError(
      Code.OUT_OF_RANGE,
      `read_offset ${offsetBytes} is beyond the end of blob "${formatDigest(digest)}"`,
    );
  }
}

async function sendWhole(
  { blobs, zstd }: ReadDeps,
  { digest, encoding }: ReadName,
  range: Range,
  sink: DataSink,
): Promise<void> {
  const stored = blobs.get(digest);
  const data = stored instanceof Promise ? await stored : stored;
  if (data === undefined) throw absent(digest);
  const end = range.limitBytes === 0 ? data.length : range.offsetBytes + range.limitBytes;
  const part = data.subarray(range.offsetBytes, end);
  if (encoding === "zstd") await sink.send(await zstd.compress(part));
  else if (part.length > 0) await sink.send(part);
}

async function sendInChunks(
  { blobs, zstd }: ReadDeps,
  { digest, encoding }: ReadName,
  range: Range,
  sink: DataSink,
): Promise<void> {
  const reader = await blobs.openRead(digest, range);
  try {
    if (encoding === "zstd") await sendCompressed(zstd.createCompressor(sizeOf(range, digest)), reader, sink);
    else await sendPlain(reader, sink);
  } finally {
    await reader.close();
  }
}

async function sendPlain(reader: BlobReader, sink: DataSink): Promise<void> {
  if (reader.lend !== undefined) {
    for (let chunk = reader.lend(); chunk !== undefined; chunk = reader.lend()) await sink.send(chunk);
    return;
  }
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
    const sent = chunk;
    await sink.send(sent, () => reader.giveBack?.(sent));
  }
}

/** What a read of `range` yields: it begins inside the blob and ends with it. */
function sizeOf({ offsetBytes, limitBytes }: Range, { sizeBytes }: Digest): number {
  const restBytes = sizeBytes - offsetBytes;
  return limitBytes === 0 ? restBytes : Math.min(limitBytes, restBytes);
}

async function sendCompressed(compressor: ZstdStream, reader: BlobReader, sink: DataSink): Promise<void> {
  try {
    for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
      for await (const output of compressor.push(chunk)) await sink.send(output);
    }
    for await (const output of compressor.finish()) await sink.send(output);
  } finally {
    compressor.close();
  }
}

/** Wraps data in ReadResponses, without copying it. */
class DataSink {
  readonly #call: StreamCall;
  hasSent = false;

  constructor(call: StreamCall) {
    this.#call = call;
  }

  /** `written` is called when `data` has left, perhaps never. */
  send(data: Uint8Array, written?: () => void): Promise<void> {
    this.hasSent = true;
    return this.#call.write([fieldHeader(TAG_DATA, data.length), data], written);
  }
}

function absent(digest: Digest): StatusError {
  return notFound(`blob "${formatDigest(digest)}" is not in the CAS`);
}
