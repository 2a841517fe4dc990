// Buffers of one piece for reading files, used again when whoever got a piece gives it back.
//
// Left to the collector, a buffer of 1 MiB for each MiB read made it mark the heap twenty times a second.
// Invariant: a buffer is in one place: free here, or with the reader and whoever it was handed to.

import { CHECKSUM_PIECE_BYTES } from "../compute/ingest-protocol.ts";

/** Enough for five busy readers: a piece being read, one being sent, one in the socket. Further ones are left to the collector. */
const MAX_FREE = 16;

export class PieceBuffers {
  readonly #free: Buffer[] = [];

  get freeCount(): number {
    return this.#free.length;
  }

  /** A buffer of `length` bytes, at most a piece, with any content. */
  take(length: number): Buffer {
    const free = this.#free.pop();
    if (free !== undefined) return free.subarray(0, length);
    // A short piece alone is not worth a whole buffer.
    return Buffer.allocUnsafeSlow(length < CHECKSUM_PIECE_BYTES / 2 ? length : CHECKSUM_PIECE_BYTES).subarray(
      0,
      length,
    );
  }

  /** `bytes` is a view of a buffer from take(), or of anything else, which is ignored; nobody may use it any more. */
  give(bytes: Uint8Array): void {
    const { buffer } = bytes;
    if (buffer.byteLength !== CHECKSUM_PIECE_BYTES || this.#free.length >= MAX_FREE) return;
    this.#free.push(Buffer.from(buffer));
  }
}
