// Large blobs: ByteStream.Read and ByteStream.Write of 64 MiB on one or several streams, and what a plain socket moves in
// place of them.
//
// Invariant: the time counts from the first request to the last trailers, and every octet of every blob is accounted
// for. Uploads differ in their last octets, so no server has the blob already, and their digests are made beforehand.

import { createHash, randomUUID, type Hash } from "node:crypto";
import {
  Flag,
  FRAME_HEADER_BYTES,
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  FrameType,
} from "../../src/http2/frame.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { prepare, prepareWrite } from "../load/prepared-calls.ts";
import { frame } from "../load/raw-frames.ts";
import { RequestHeaderEncoder } from "../load/request-headers.ts";
import { RandomData } from "../random-data.ts";
import { LoadConnection, openSocket, type Endpoint, type StreamEvents } from "./load-connection.ts";

export const BLOB_BYTES = 64 * 1024 * 1024;

/** Stream credit in steps of this, an eighth of the window. */
const CREDIT_STEP_BYTES = 2 * 1024 * 1024;

/** 64 MiB, and what they are called. */
export class BigBlob {
  /** The same in every process that is given the same number. */
  static readonly seed = 64;
  readonly data: Buffer = new RandomData(BigBlob.seed).bytes(BLOB_BYTES);
  readonly #prefixHash: Hash = createHash("sha256").update(this.data.subarray(0, BLOB_BYTES - TAIL_BYTES));

  /** Changes the last octets; returns the digest's hash. */
  renew(): string {
    this.data.set(Buffer.from(randomUUID()).subarray(0, TAIL_BYTES), BLOB_BYTES - TAIL_BYTES);
    return this.#prefixHash
      .copy()
      .update(this.data.subarray(BLOB_BYTES - TAIL_BYTES))
      .digest("hex");
  }
}

const TAIL_BYTES = 16;

/** Reads the blob `repeats` times on each of `streams` streams at once; returns octets of blob per second. */
export async function measureRead(
  endpoint: Endpoint,
  { hash, streams, repeats }: { readonly hash: string; readonly streams: number; readonly repeats: number },
): Promise<number> {
  const transfer = new Transfer();
  const connection = await LoadConnection.open(endpoint, transfer);
  const encoder = new RequestHeaderEncoder(`${endpoint.host}:${endpoint.port}`, "http");
  const call = prepare(ByteStream.methods.Read, { resourceName: `blobs/${hash}/${BLOB_BYTES}` });
  const ask = (): void => {
    const id = connection.nextStreamId();
    const headers = frame(FrameType.HEADERS, Flag.END_HEADERS, id, [encoder.encode(call.path)]);
    connection.socket.write(Buffer.concat([headers, frame(FrameType.DATA, Flag.END_STREAM, id, call.body)]));
  };
  let left = streams * repeats;
  const begunMs = performance.now();
  await transfer.run(connection, streams, ask, () => {
    left--;
    if (left >= streams) ask();
    return left === 0;
  });
  const seconds = (performance.now() - begunMs) / 1000;
  connection.close();
  const blobBytes = streams * repeats * BLOB_BYTES;
  if (transfer.receivedBytes < blobBytes) {
    throw new Error(`the server on ${endpoint.port} sent ${transfer.receivedBytes} of ${blobBytes} octets`);
  }
  return blobBytes / seconds;
}

/**
 * Uploads `repeats` blobs on each of `streams` streams at once; returns octets of blob per second. Preparing them is not
 * counted. With `hash` it is the blob as it is, which has that hash.
 */
export async function measureWrite(
  endpoint: Endpoint,
  blob: BigBlob,
  { streams = 1, repeats, hash }: { readonly streams?: number; readonly repeats: number; readonly hash?: string },
): Promise<number> {
  const transfer = new Transfer();
  const connection = await LoadConnection.open(endpoint, transfer);
  const encoder = new RequestHeaderEncoder(`${endpoint.host}:${endpoint.port}`, "http");
  let elapsedMs = 0;
  for (let round = 0; round < repeats; round++) {
    const starts = Array.from({ length: streams }, () => {
      const name = `uploads/${randomUUID()}/blobs/${hash ?? blob.renew()}/${BLOB_BYTES}`;
      const call = prepareWrite(name, blob.data);
      const id = connection.nextStreamId();
      const body = dataFrames(id, call.body);
      const headers = frame(FrameType.HEADERS, Flag.END_HEADERS, id, [encoder.encode(call.path)]);
      return () => {
        connection.socket.write(headers);
        transfer.upload(id, body);
      };
    });
    let [begun, ended] = [0, 0];
    const begunMs = performance.now();
    await transfer.run(
      connection,
      streams,
      // In the order in which their headers were encoded.
      () => starts[begun++]!(),
      () => ++ended === streams,
    );
    elapsedMs += performance.now() - begunMs;
  }
  connection.close();
  return (streams * repeats * BLOB_BYTES * 1000) / elapsedMs;
}

/** What a plain socket brings, from a server that sends `bytes` octets for each octet it gets. */
export async function measurePlainReceive(endpoint: Endpoint, bytes: number): Promise<number> {
  let left = bytes;
  let done: () => void = () => undefined;
  const socket = await openSocket(endpoint, (_octets, count) => {
    left -= count;
    if (left <= 0) done();
  });
  const begunMs = performance.now();
  await new Promise<void>((resolve) => {
    done = resolve;
    socket.write("x".repeat(Math.ceil(bytes / BLOB_BYTES)));
  });
  const seconds = (performance.now() - begunMs) / 1000;
  socket.destroy();
  return bytes / seconds;
}

/** What a plain socket takes: `blob` again and again, until the server has acknowledged the last octet. */
export async function measurePlainSend(endpoint: Endpoint, blob: BigBlob, repeats: number): Promise<number> {
  let done: () => void = () => undefined;
  let acknowledged = 0;
  const socket = await openSocket(endpoint, (_octets, count) => {
    acknowledged += count;
    if (acknowledged >= repeats) done();
  });
  const frames = dataFrames(1, [blob.data]);
  const begunMs = performance.now();
  await new Promise<void>((resolve) => {
    done = resolve;
    for (let round = 0; round < repeats; round++) {
      for (let at = 0; at < frames.length; at += WRITE_BYTES) socket.write(frames.subarray(at, at + WRITE_BYTES));
    }
  });
  const seconds = (performance.now() - begunMs) / 1000;
  socket.destroy();
  return (repeats * BLOB_BYTES) / seconds;
}

/** Octets of an upload per write to the socket. */
const WRITE_BYTES = 1024 * 1024;

/** `parts` as DATA frames of the default size, the last one with END_STREAM. */
function dataFrames(streamId: number, parts: readonly Uint8Array[]): Buffer {
  const frames: Buffer[] = [];
  for (const [index, part] of parts.entries()) {
    for (let at = 0; at < part.length; at += DEFAULT_MAX_FRAME_BYTES) {
      const piece = part.subarray(at, at + DEFAULT_MAX_FRAME_BYTES);
      const last = index === parts.length - 1 && at + piece.length === part.length;
      frames.push(frame(FrameType.DATA, last ? Flag.END_STREAM : 0, streamId, [piece]));
    }
  }
  return Buffer.concat(frames);
}

/** Streams of one connection until they have ended. */
class Transfer implements StreamEvents {
  receivedBytes = 0;
  readonly #received = new Map<number, number>();
  #connection: LoadConnection | undefined;
  #onEnd: () => boolean = () => true;
  #resolve: () => void = () => undefined;
  #reject: (error: Error) => void = () => undefined;
  #ended = false;

  readonly #uploads = new Map<number, Upload>();
  #connectionWindowBytes = DEFAULT_WINDOW_BYTES;
  #initialWindowBytes = DEFAULT_WINDOW_BYTES;

  /** Calls `start` `streams` times; ends when `onEnd`, called at the end of each stream, returns true. */
  run(connection: LoadConnection, streams: number, start: () => void, onEnd: () => boolean): Promise<void> {
    this.#connection = connection;
    this.#onEnd = onEnd;
    this.#ended = false;
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      for (let stream = 0; stream < streams; stream++) start();
    });
  }

  upload(id: number, frames: Buffer): void {
    this.#uploads.set(id, { frames, at: 0, windowBytes: this.#initialWindowBytes });
    this.#pump();
  }

  onData(streamId: number, sizeBytes: number): void {
    this.receivedBytes += sizeBytes;
    const owed = (this.#received.get(streamId) ?? 0) + sizeBytes;
    if (owed >= CREDIT_STEP_BYTES) this.#connection?.credit(streamId, owed);
    this.#received.set(streamId, owed >= CREDIT_STEP_BYTES ? 0 : owed);
  }

  onHeaders(streamId: number, flags: number): void {
    if ((flags & Flag.END_STREAM) === 0) return;
    this.#received.delete(streamId);
    const upload = this.#uploads.get(streamId);
    if (upload !== undefined && upload.at < upload.frames.length) this.onBroken("answered before it had all");
    this.#uploads.delete(streamId);
    if (this.#onEnd()) {
      this.#ended = true;
      this.#resolve();
    }
  }

  onBroken(reason: string): void {
    if (!this.#ended) this.#reject(new Error(reason));
  }

  onReadEnd(): void {
    this.#pump();
  }

  onWindow(streamId: number, incrementBytes: number): void {
    if (streamId === 0) this.#connectionWindowBytes += incrementBytes;
    const upload = this.#uploads.get(streamId);
    if (upload !== undefined) upload.windowBytes += incrementBytes;
  }

  onInitialWindow(sizeBytes: number): void {
    for (const upload of this.#uploads.values()) upload.windowBytes += sizeBytes - this.#initialWindowBytes;
    this.#initialWindowBytes = sizeBytes;
  }

  /** Whole frames as far as both windows go, of each upload in turn. */
  #pump(): void {
    let sent = true;
    while (sent) {
      sent = false;
      for (const upload of this.#uploads.values()) sent = this.#sendSome(upload) || sent;
    }
  }

  #sendSome(upload: Upload): boolean {
    const { frames, at } = upload;
    const roomBytes = Math.min(upload.windowBytes, this.#connectionWindowBytes, WRITE_BYTES);
    let end = at;
    let payloadBytes = 0;
    while (end < frames.length) {
      const sizeBytes = frames.readUIntBE(end, 3);
      if (payloadBytes + sizeBytes > roomBytes) break;
      payloadBytes += sizeBytes;
      end += FRAME_HEADER_BYTES + sizeBytes;
    }
    if (end === at) return false;
    upload.windowBytes -= payloadBytes;
    this.#connectionWindowBytes -= payloadBytes;
    this.#connection?.socket.write(frames.subarray(at, end));
    upload.at = end;
    return true;
  }
}

/** What is left to send of one blob. */
interface Upload {
  readonly frames: Buffer;
  at: number;
  windowBytes: number;
}
