// Compresses and decompresses whole buffers on the thread that calls it, with one context for each direction.
//
// Invariant: decompression makes at most one byte more than declared, so that a frame that is too long fails here and
// not by its hash. What streams of unknown length need is zstd-decoder.ts.

import { ZstdContext, ZstdError } from "./zstd-context.ts";

/** Blobs handled whole are at most one batch (4 MiB), so one decoder with the smallest window limit does for all. */
const WINDOW_BYTES = 8 * 1024 * 1024;

let encoder: ZstdContext | undefined;
let decoder: ZstdContext | undefined;
/** Where a frame is made before its size is known. Grows to the largest that was needed, about 4 MiB. */
let scratch: Uint8Array = new Uint8Array(0);

/** One frame that says how many bytes it holds, in a buffer of exactly its size. */
export function compressWhole(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const context = (encoder ??= ZstdContext.encoder());
  context.reset();
  const maxBytes = maxFrameBytes(data.length);
  if (scratch.length < maxBytes) scratch = Buffer.allocUnsafeSlow(maxBytes);
  const { read, written } = context.step(data, scratch, true);
  if (read !== data.length || written === scratch.length) throw new Error("a zstd frame is larger than its bound");
  return new Uint8Array(scratch.subarray(0, written));
}

/** What the frames in `data` hold: `sizeBytes` bytes, or fewer, or one more. Throws ZstdError when they are corrupt. */
export function decompressWhole(data: Uint8Array, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const context = (decoder ??= ZstdContext.decoder(WINDOW_BYTES));
  try {
    context.reset();
    const output = new Uint8Array(sizeBytes + 1);
    let used = 0;
    let made = 0;
    for (;;) {
      const { read, written } = context.step(data.subarray(used), output.subarray(made), true);
      used += read;
      made += written;
      if (made === output.length || (used === data.length && written === 0)) return output.subarray(0, made);
      if (read === 0 && written === 0) throw garbageAfter(used);
    }
  } catch (error) {
    // A context that failed is in an unknown state.
    context.close();
    decoder = undefined;
    throw error;
  }
}

export function garbageAfter(bytes: number): ZstdError {
  return new ZstdError(`garbage after ${bytes} bytes`, "ERR_GARBAGE");
}

/** The bound that the format's reference gives, and a byte by which a full buffer is told from one that overflowed. */
export function maxFrameBytes(dataBytes: number): number {
  return dataBytes + (dataBytes >> 8) + 1024;
}
