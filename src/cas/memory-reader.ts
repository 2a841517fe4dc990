// Reads bytes held in memory, chunk by chunk: as copies that the caller owns, or lent as they are.

import type { BlobReader } from "./blob-store.ts";
import type { ReadBounds } from "./read-bounds.ts";

/** Large enough to hide the cost of a call, small enough for one HTTP/2 window. */
const CHUNK_BYTES = 256 * 1024;

export class MemoryReader implements BlobReader {
  readonly sizeBytes: number;
  /** The blob's bytes in order. */
  #parts: readonly Uint8Array[];
  #part = 0;
  /** Bytes of the current part that are behind us. */
  #offset: number;
  #leftBytes: number;
  readonly #signal: AbortSignal | undefined;

  /** `data` is the blob, whole or in parts; it never changes. */
  constructor(data: Uint8Array | readonly Uint8Array[], bounds: ReadBounds, signal?: AbortSignal) {
    this.#parts = data instanceof Uint8Array ? [data] : data;
    this.sizeBytes = this.#parts.reduce((sum, { length }) => sum + length, 0);
    this.#offset = bounds.beginBytes;
    this.#leftBytes = bounds.endBytes - bounds.beginBytes;
    this.#signal = signal;
  }

  async next(): Promise<Uint8Array | undefined> {
    const chunk = this.lend();
    return chunk === undefined ? undefined : new Uint8Array(chunk);
  }

  lend(): Uint8Array | undefined {
    this.#signal?.throwIfAborted();
    if (this.#leftBytes <= 0) return undefined;
    let part = this.#parts[this.#part]!;
    while (this.#offset >= part.length) {
      this.#offset -= part.length;
      part = this.#parts[++this.#part]!;
    }
    const count = Math.min(CHUNK_BYTES, part.length - this.#offset, this.#leftBytes);
    const chunk = part.subarray(this.#offset, this.#offset + count);
    this.#offset += count;
    this.#leftBytes -= count;
    return chunk;
  }

  async close(): Promise<void> {
    this.#parts = [];
    this.#leftBytes = 0;
  }
}
