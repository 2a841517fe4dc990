// Cuts a request body into messages: 1 octet flag, 4 octets length, payload (G-20).
//
// Invariants: a length over the limit is refused on its prefix, before anything is allocated (G-21); payload is copied
// exactly once into storage of its own; no more than MAX_PARSED_MESSAGES wait parsed, what comes after them waits as
// octets. Pure: granting credit and decompressing is left to the calls.

import { copyOctets } from "../base/copy-octets.ts";
import { giveLargeBuffer, takeLargeBuffer } from "../base/large-buffers.ts";
import { Code, StatusError } from "../base/status.ts";
import { formatBytes } from "../base/units.ts";
import { PREFIX_BYTES } from "./message-prefix.ts";

export interface ReceivedMessage {
  readonly bytes: Uint8Array;
  readonly compressed: boolean;
}

/** Parsed messages that wait; each costs an object, so ten thousand empty messages must not. */
const MAX_PARSED_MESSAGES = 64;

/** First allocation for a message; the rest follows when this is full, so that a lie about the length is cheap (G-21). */
const FIRST_ALLOCATION_BYTES = 64 * 1024;

export class MessageReader {
  readonly #maxBytes: number;
  readonly #path: string;
  #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixBytes = 0;
  /** The message being filled; its final size is #sizeBytes. */
  #partial: Uint8Array | undefined;
  #filledBytes = 0;
  #sizeBytes = 0;
  #ready: ReceivedMessage[] = [];
  /** Octets after MAX_PARSED_MESSAGES messages; at most the stream's window. */
  #backlog: Uint8Array[] = [];

  constructor(path: string, maxBytes: number) {
    this.#path = path;
    this.#maxBytes = maxBytes;
  }

  get readyCount(): number {
    return this.#ready.length;
  }

  /** Octets still missing from the message whose prefix has been read. */
  get missingBytes(): number {
    return this.#partial === undefined ? 0 : this.#sizeBytes - this.#filledBytes;
  }

  /** Whether the body may end here: not inside a prefix or a message. */
  get atBoundary(): boolean {
    return this.#prefixBytes === 0 && this.#backlog.length === 0;
  }

  /** Takes a part of the body; `chunk` is not kept. Throws a StatusError when the framing is wrong or a limit is passed. */
  push(chunk: Uint8Array): void {
    if (this.#backlog.length > 0) this.#backlog.push(copyOctets(chunk));
    else this.#parse(chunk);
  }

  /** The next whole message. */
  take(): ReceivedMessage | undefined {
    const message = this.#ready.shift();
    if (this.#ready.length === 0 && this.#backlog.length > 0) {
      const waiting = Buffer.concat(this.#backlog);
      this.#backlog = [];
      this.#parse(waiting);
    }
    return message ?? this.#ready.shift();
  }

  #parse(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#ready.length >= MAX_PARSED_MESSAGES) {
        this.#backlog.push(copyOctets(chunk, at));
        return;
      }
      at = this.#prefixBytes < PREFIX_BYTES ? this.#readPrefix(chunk, at) : this.#readPayload(chunk, at);
    }
  }

  #readPrefix(chunk: Uint8Array, start: number): number {
    let at = start;
    while (at < chunk.length && this.#prefixBytes < PREFIX_BYTES) this.#prefix[this.#prefixBytes++] = chunk[at++] ?? 0;
    if (this.#prefixBytes < PREFIX_BYTES) return at;
    const [flag = 0, b3 = 0, b2 = 0, b1 = 0, b0 = 0] = this.#prefix;
    assertMessageFlag(flag, this.#path);
    this.#sizeBytes = ((b3 << 24) | (b2 << 16) | (b1 << 8) | b0) >>> 0;
    assertMessageSize(this.#sizeBytes, this.#maxBytes, this.#path);
    this.#partial = allocateMessage(Math.min(this.#sizeBytes, FIRST_ALLOCATION_BYTES));
    this.#filledBytes = 0;
    if (this.#sizeBytes === 0) this.#complete();
    return at;
  }

  #readPayload(chunk: Uint8Array, start: number): number {
    let target = this.#partial ?? allocateMessage(0);
    if (this.#filledBytes === target.length) {
      const whole = allocateMessage(this.#sizeBytes);
      whole.set(target);
      giveLargeBuffer(target.buffer as ArrayBuffer); // nobody else has it
      this.#partial = target = whole;
    }
    const count = Math.min(target.length - this.#filledBytes, chunk.length - start);
    target.set(chunk.subarray(start, start + count), this.#filledBytes);
    this.#filledBytes += count;
    if (this.#filledBytes === this.#sizeBytes) this.#complete();
    return start + count;
  }

  #complete(): void {
    this.#ready.push({ bytes: this.#partial ?? allocateMessage(0), compressed: this.#prefix[0] === 1 });
    this.#partial = undefined;
    this.#prefixBytes = 0;
  }
}

export function assertMessageFlag(flag: number, path: string): void {
  if (flag > 1) {
    throw new StatusError(
      Code.INTERNAL,
      `Cannot read a message of ${path}: its compressed flag is ${flag}, expected 0 or 1`,
    );
  }
}

export function assertMessageSize(sizeBytes: number, maxBytes: number, path: string): void {
  if (sizeBytes > maxBytes) throw messageTooLarge(`${sizeBytes} bytes`, maxBytes, path);
}

export function messageTooLarge(size: string, maxBytes: number, path: string): StatusError {
  return new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `Cannot read a message of ${path}: it has ${size}, the limit is ${maxBytes} bytes (${formatBytes(maxBytes)})`,
  );
}

/**
 * Storage that shares its ArrayBuffer with nothing, so that it can be transferred to a thread; not zeroed. Whoever owns a
 * large one and is done with it may give its buffer back (base/large-buffers.ts).
 */
export function allocateMessage(sizeBytes: number): Uint8Array {
  if (sizeBytes >= FIRST_ALLOCATION_BYTES) return new Uint8Array(takeLargeBuffer(sizeBytes), 0, sizeBytes);
  return new Uint8Array(Buffer.allocUnsafeSlow(sizeBytes).buffer);
}
