// ByteStream.Write: receives one blob.
//
//   first message ─► present? ─yes─► answer at once
//                      │no
//                      ├─ whole blob in this message ─► put
//                      └─ stream: message ─► (zstd) ─► skip what is kept already ─► upload.write ─► … ─► upload.finish
//
// Invariant: a blob becomes visible only through upload.finish or put, which verify it. A call that is cut off leaves
// what it sent for a later one; a call whose data is wrong leaves nothing. While the client is silent the call holds
// only its entry in the table. Memory: one message and one chunk of decompressed data.

import type { Clock } from "../base/clock.ts";
import type { AnnouncingBlobStore } from "../cas/announcing-blob-store.ts";
import type { AnswerAtOnce, StreamCall, StreamHandler } from "../grpc/service.ts";
import type { Zstd, ZstdStream } from "../base/zstd.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import { digestKey, formatDigest, type Digest } from "../digest/digest.ts";
import { parseWriteName, type WriteName } from "../digest/resource-name.ts";
import { WriteRequest, WriteResponse } from "../proto/bytestream.ts";
import { decodeRequest } from "./decode.ts";
import { InterruptibleReader } from "./interruptible-reader.ts";
import type { PartialUploads, UploadLease } from "./partial-uploads.ts";
import { assertResourceNameHeader } from "./resource-name-header.ts";
import { WriteSequence } from "./write-sequence.ts";

/** A message's buffer is the handler's alone only above this size (StreamCall.read); smaller ones are copied. */
const SHARED_BUFFER_BYTES = 64 * 1024;
/** Larger ones hardly ever come in one read. */
const AT_ONCE_BYTES = 16 * 1024;
/** A compressed blob of up to this size that came in one message is decompressed whole. */
const WHOLE_BYTES = 1024 * 1024;
/** How long the end of the stream may lag behind finish_write. Clients send both at once. */
const HALF_CLOSE_WAIT_MS = 1000;
/** A complete compressed blob has no meaningful count for a duplicate. See WriteResponse.committed_size. */
const DUPLICATE_COMPRESSED = -1;

export interface WriteDeps {
  readonly blobs: AnnouncingBlobStore;
  readonly partialUploads: PartialUploads;
  readonly zstd: Zstd;
  readonly clock: Clock;
  /** As announced in max_cas_blob_size_bytes; 0 = no limit. */
  readonly maxBlobSizeBytes: number;
}

export function createWrite(deps: WriteDeps): StreamHandler {
  return async (call) => {
    const bytes = await call.read();
    if (bytes === undefined) throw invalidArgument("Write ended without a message");
    const first = decodeRequest(WriteRequest, bytes);
    const sequence = new WriteSequence(first);
    const name = parseWriteName(sequence.resourceName);
    assertResourceNameHeader(call, sequence.resourceName);
    assertBlobSize(name, deps.maxBlobSizeBytes);
    if (await deps.blobs.has(name.digest)) return answer(call, duplicateSize(name));
    sequence.accept(first);
    const committedSize = isWholeBlob(first, name)
      ? await putWhole(deps, call, { name, sequence, data: first.data })
      : await receive(deps, call, { name, sequence, first: { message: first, bytes } });
    await answer(call, committedSize);
  };
}

/**
 * A small plain blob that came whole, and with the end of the call: neither a stream nor a timer for the end is needed.
 * Everything else, and what the digest's size contradicts, is left to createWrite().
 */
export function createWriteAtOnce(deps: WriteDeps): AnswerAtOnce {
  return (bytes, call) => {
    const { resourceName, writeOffset, finishWrite, data } = decodeRequest(WriteRequest, bytes);
    if (resourceName === "" || !finishWrite || writeOffset !== 0 || data.length > AT_ONCE_BYTES) return undefined;
    const name = parseWriteName(resourceName);
    if (name.encoding !== "identity" || data.length !== name.digest.sizeBytes) return undefined;
    assertResourceNameHeader(call, resourceName);
    assertBlobSize(name, deps.maxBlobSizeBytes);
    const present = deps.blobs.has(name.digest);
    if (present instanceof Promise) return undefined;
    const answer = WriteResponse.encode({ committedSize: data.length });
    // The request lies in a buffer that the next read overwrites.
    return present ? answer : deps.blobs.put(name.digest, Buffer.from(data)).then(() => answer);
  };
}

/** Under what name a partial upload is kept: what the resource name says, without the ignored rest. */
export function uploadKey(name: WriteName): string {
  return `${name.instanceName}\n${name.uuid}\n${name.encoding}\n${digestKey(name.digest)}`;
}

function assertBlobSize(name: WriteName, maxBytes: number): void {
  if (maxBytes === 0 || name.digest.sizeBytes <= maxBytes) return;
  throw invalidArgument(
    `blob "${formatDigest(name.digest)}" is larger than ${maxBytes} bytes (max_cas_blob_size_bytes)`,
  );
}

function answer(call: StreamCall, committedSize: number): Promise<void> {
  return call.write(WriteResponse.encode({ committedSize }));
}

function duplicateSize(name: WriteName): number {
  return name.encoding === "zstd" ? DUPLICATE_COMPRESSED : name.digest.sizeBytes;
}

function isWholeBlob(first: WriteRequest, name: WriteName): boolean {
  if (!first.finishWrite || first.writeOffset !== 0) return false;
  return name.encoding === "identity" || name.digest.sizeBytes <= WHOLE_BYTES;
}

async function putWhole(
  deps: WriteDeps,
  call: StreamCall,
  write: { readonly name: WriteName; readonly sequence: WriteSequence; readonly data: Uint8Array },
): Promise<number> {
  const { digest, encoding } = write.name;
  await assertNothingFollows(deps, new InterruptibleReader(call), write.sequence);
  const data = encoding === "zstd" ? await deps.zstd.decompress(write.data, digest.sizeBytes) : write.data;
  if (data.length !== digest.sizeBytes) throw wrongSize(write.name, data.length);
  if (encoding === "identity" && data.length > SHARED_BUFFER_BYTES) await give(deps.blobs, digest, data);
  else await deps.blobs.put(digest, data);
  return write.sequence.receivedBytes;
}

/** As put(), but the store may keep the buffer: a large blob then goes to its file without being copied. */
async function give(blobs: AnnouncingBlobStore, digest: Digest, data: Uint8Array): Promise<void> {
  const upload = await blobs.openUpload(digest);
  try {
    await upload.write(data);
    await upload.finish();
  } finally {
    await upload.abort();
  }
}

interface Stream {
  readonly name: WriteName;
  readonly sequence: WriteSequence;
  readonly first: { readonly message: WriteRequest; readonly bytes: Uint8Array };
}

async function receive(deps: WriteDeps, call: StreamCall, stream: Stream): Promise<number> {
  const { digest } = stream.name;
  const reader = new InterruptibleReader(call);
  const unsubscribe = deps.blobs.subscribe(digest, () => reader.interrupt("stored"));
  try {
    const lease = await deps.partialUploads.acquire(uploadKey(stream.name), {
      resume: stream.sequence.firstOffset > 0,
      open: () => deps.blobs.openUpload(digest),
      interrupt: () => reader.interrupt("superseded"),
    });
    return await receiveInto(lease, deps, reader, stream);
  } finally {
    unsubscribe();
  }
}

/** What becomes of an upload when the call is over: kept for a later call, or dropped. */
async function receiveInto(
  lease: UploadLease,
  deps: WriteDeps,
  reader: InterruptibleReader,
  stream: Stream,
): Promise<number> {
  const { name, sequence } = stream;
  const { firstOffset } = sequence;
  const isCompressed = name.encoding === "zstd";
  const decompressor = isCompressed ? deps.zstd.createDecompressor(name.digest.sizeBytes - firstOffset) : undefined;
  const receiver = new Receiver({ name, lease, firstOffset, decompressor });
  let keep = true;
  try {
    // Stored since the call began: by another writer, or by the call that held this upload until now.
    if (await deps.blobs.has(name.digest)) {
      keep = false;
      return duplicateSize(name);
    }
    assertFirstOffset(sequence, lease);
    let { message, bytes } = stream.first;
    for (;;) {
      keep = false; // an error while data is taken in leaves an upload that cannot go on
      await receiver.push(message.data, bytes);
      keep = true;
      if (sequence.isFinished) break;
      const event = await reader.next();
      if (event === undefined) return keptBytes(name, lease);
      if (!(event instanceof Uint8Array)) {
        if (event === "superseded") throw superseded(name);
        keep = false;
        return duplicateSize(name);
      }
      bytes = event;
      message = decodeRequest(WriteRequest, bytes);
      sequence.accept(message);
    }
    await assertNothingFollows(deps, reader, sequence);
    keep = false;
    await receiver.finish();
    return sequence.firstOffset + sequence.receivedBytes;
  } catch (error) {
    // Somebody else may have stored the blob while ours failed, for lack of room say: then all is well.
    if (!keep && (await deps.blobs.has(name.digest))) return duplicateSize(name);
    throw error;
  } finally {
    receiver.close();
    if (keep) await lease.keep();
    else await lease.drop();
  }
}

/**
 * The answer to a call that ended without finish_write. A client that sent everything would read its full size as
 * "stored", and some never look (the gRPC proxy of bazel-remote): it must hear that nothing is.
 */
function keptBytes(name: WriteName, { upload }: UploadLease): number {
  const { sizeBytes } = name.digest;
  if (upload.writtenBytes < sizeBytes) return upload.writtenBytes;
  throw invalidArgument(
    `Cannot store blob "${formatDigest(name.digest)}": all ${sizeBytes} bytes arrived, but no message had finish_write; ` +
      "they are kept for now: set finish_write in the last message, or send one more with it",
  );
}

/**
 * A call begins where QueryWriteStatus said, or at 0: the Go client library repeats an upload from the start under the
 * same name, and what is kept already is then skipped.
 */
function assertFirstOffset(sequence: WriteSequence, lease: UploadLease): void {
  const { firstOffset } = sequence;
  const { writtenBytes } = lease.upload;
  if (firstOffset === 0 || firstOffset === writtenBytes) return;
  if (firstOffset === lease.reportedBytes && firstOffset < writtenBytes) return;
  throw invalidArgument(
    `write to "${sequence.resourceName}": it begins at write_offset ${firstOffset}, but ${writtenBytes} bytes are ` +
      "committed: ask QueryWriteStatus where to go on",
  );
}

interface ReceiverOptions {
  readonly name: WriteName;
  readonly lease: UploadLease;
  readonly firstOffset: number;
  /** Absent for plain data; closed by the receiver. */
  readonly decompressor: ZstdStream | undefined;
}

/** Takes data messages in, decompresses them and drops the part that the upload has already. */
class Receiver {
  readonly #name: WriteName;
  readonly #lease: UploadLease;
  readonly #decompressor: ZstdStream | undefined;
  /** Bytes of the blob still to be skipped. */
  #skipBytes: number;
  readonly #isRepeated: boolean;

  constructor(options: ReceiverOptions) {
    this.#name = options.name;
    this.#lease = options.lease;
    this.#skipBytes = Math.max(0, options.lease.upload.writtenBytes - options.firstOffset);
    this.#isRepeated = this.#skipBytes > 0;
    this.#decompressor = options.decompressor;
  }

  /** `data` is a view of `message`. */
  async push(data: Uint8Array, message: Uint8Array): Promise<void> {
    if (data.length === 0) return;
    if (this.#decompressor === undefined) {
      const isOurs = message.length > SHARED_BUFFER_BYTES;
      await this.#write(isOurs ? data : new Uint8Array(data));
      return;
    }
    for await (const output of this.#decompressor.push(data)) await this.#write(output);
  }

  async finish(): Promise<void> {
    if (this.#decompressor !== undefined) {
      for await (const output of this.#decompressor.finish()) await this.#write(output);
    }
    const { writtenBytes } = this.#lease.upload;
    if (this.#skipBytes > 0 || writtenBytes !== this.#name.digest.sizeBytes) {
      throw wrongSize(this.#name, writtenBytes - this.#skipBytes);
    }
    try {
      await this.#lease.upload.finish();
    } catch (error) {
      // What an earlier call sent was wrong, while what this one sent may be right: not the last word.
      if (this.#isRepeated && error instanceof StatusError && error.code === Code.INVALID_ARGUMENT) {
        throw new StatusError(Code.ABORTED, `${error.message}; what was kept is dropped, send all of it again`);
      }
      throw error;
    }
  }

  close(): void {
    this.#decompressor?.close();
  }

  async #write(plain: Uint8Array): Promise<void> {
    const chunk = this.#skipBytes === 0 ? plain : plain.subarray(this.#skipBytes);
    this.#skipBytes -= plain.length - chunk.length;
    if (chunk.length > 0) await this.#lease.upload.write(chunk);
  }
}

/** The message with finish_write is the last one; waits for the client's half-close, but not for ever. */
async function assertNothingFollows(
  deps: WriteDeps,
  reader: InterruptibleReader,
  sequence: WriteSequence,
): Promise<void> {
  const cancelTimer = deps.clock.schedule(HALF_CLOSE_WAIT_MS, () => reader.interrupt("late"));
  try {
    const event = await reader.next();
    if (event instanceof Uint8Array) sequence.accept(decodeRequest(WriteRequest, event));
  } finally {
    cancelTimer();
  }
}

function superseded(name: WriteName): StatusError {
  return new StatusError(
    Code.ABORTED,
    `upload "${name.uuid}" of blob "${formatDigest(name.digest)}" goes on in another call`,
  );
}

function wrongSize(name: WriteName, receivedBytes: number): StatusError {
  return invalidArgument(
    `Cannot store blob "${formatDigest(name.digest)}": received ${receivedBytes} bytes, expected ${name.digest.sizeBytes}`,
  );
}
