// Reads bytes held in memory, chunk by chunk; each chunk is a copy that the caller owns.

import type { BlobReader } from "./blob-store.ts";
import type { ReadBounds } from "./read-bounds.ts";

/** Large enough to hide the cost of a call, small enough for one HTTP/2 window. */
const CHUNK_BYTES = 256 * 1024;

export class MemoryReader implements BlobReader {
  readonly sizeBytes: number;
  #data: Uint8Array | undefined;
  #position: number;
  readonly #end: number;
  readonly #signal: AbortSignal | undefined;

  constructor(data: Uint8Array, bounds: ReadBounds, signal?: AbortSignal) {
    this.sizeBytes = data.length;
    this.#data = data;
    this.#position = bounds.beginBytes;
    this.#end = bounds.endBytes;
    this.#signal = signal;
  }

  async next(): Promise<Uint8Array | undefined> {
    this.#signal?.throwIfAborted();
    if (this.#data === undefined || this.#position >= this.#end) return undefined;
    const chunk = new Uint8Array(
      this.#data.subarray(this.#position, Math.min(this.#end, this.#position + CHUNK_BYTES)),
    );
    this.#position += chunk.length;
    return chunk;
  }

  async close(): Promise<void> {
    this.#data = undefined;
  }
}
