// Zstandard as services and routes see it: whole buffers, and streams in pull form. compute/zstd-pool.ts does the work.
//
// Invariant, of every implementation: decompression never makes more than one slab beyond the declared size, and the
// promises settle in the order of the calls on one stream. An interface, because http-cache/ knows nothing of threads.

/**
 * Where compression is optional, blobs below this size go plain: a frame costs about 30 µs, and saves at most a few
 * kilobytes. At half of it a batch of small blobs takes several times as long.
 */
export const MIN_COMPRESSIBLE_BYTES = 4096;

export interface Zstd {
  /** One frame holding `data`, which is borrowed until the promise settles. */
  compress(data: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** The `sizeBytes` bytes that the frames in `data` hold; throws INVALID_ARGUMENT for anything else. */
  decompress(data: Uint8Array, sizeBytes: number): Promise<Uint8Array>;
  /**
   * Compresses a stream of exactly `sizeBytes`. The result is one frame, since many clients read no second one;
   * under heavy load it may hold the bytes as they are.
   */
  createCompressor(sizeBytes: number): ZstdStream;
  /** Decompresses frames that hold `sizeBytes` in all; the last byte over it throws INVALID_ARGUMENT. */
  createDecompressor(sizeBytes: number): ZstdStream;
}

/** One direction of a stream. `push` and `finish` are called one after the other, and their output is read to its end. */
export interface ZstdStream {
  /** Yields what is ready. `chunk` is borrowed until the end of the loop; the output belongs to the caller. */
  push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>>;
  /** Yields the rest; for a decompressor throws INVALID_ARGUMENT when bytes are missing or garbage follows. */
  finish(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
  /** Frees what the stream holds. Idempotent; must be called. */
  close(): void;
}
