// Zstandard with a bound on everything: whole buffers, and streams in pull form.
//
// Invariant: decompression never makes more bytes than the declared size, and needs no more memory than the larger of
// 8 MiB and that size (128 MiB at most). Nothing is held by a stream while nobody pushes: neither a thread nor a
// descriptor. Node's zlib does the work, larger pieces of it on libuv's threads, where LMDB commits and files are
// written too: so only a few pieces are under way at any time. (Node has no synchronous zstd stream, which is what a
// worker thread of our own would need.) Source of the format: RFC 8878.

import { constants, createZstdCompress, createZstdDecompress, zstdCompress, zstdCompressSync } from "node:zlib";
import { zstdDecompress, zstdDecompressSync, type ZstdCompress, type ZstdDecompress } from "node:zlib";
import { availableParallelism } from "node:os";
import { Limiter } from "./limiter.ts";
import { Code, StatusError, invalidArgument } from "./status.ts";

/** Level 1: on the way out time costs more than bytes. 3 halves the throughput for a few per cent. */
const LEVEL = 1;
/** Up to here the work (about 50 µs, most of it set-up) costs less than waiting for a thread. */
const IN_PLACE_BYTES = 32 * 1024;
const CHUNK_BYTES = 256 * 1024;

/**
 * As many as there are cores: more would not be faster. Without a bound 30 readers of compressed blobs filled libuv's 16
 * threads, and a small durable write took half a second instead of 10 ms.
 */
const threadJobs = new Limiter(Math.max(1, Math.min(availableParallelism(), 8)));

/**
 * Where compression is optional, blobs below this size go plain: a frame costs about 50 µs to set up, whatever its size,
 * and saves at most a few kilobytes. At half of it a batch of small blobs takes ten times as long.
 */
export const MIN_COMPRESSIBLE_BYTES = 4096;

const COMPRESS_OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } };

/** Returns one frame holding `data`, which is borrowed until the promise settles. */
export function compressZstd(data: Uint8Array): Uint8Array | Promise<Uint8Array> {
  if (data.length <= IN_PLACE_BYTES) return zstdCompressSync(data, COMPRESS_OPTIONS);
  return threadJobs.run(
    () =>
      new Promise((resolve, reject) => {
        zstdCompress(data, COMPRESS_OPTIONS, (error, result) => {
          if (error === null) resolve(result);
          else reject(new StatusError(Code.INTERNAL, `Cannot compress ${data.length} bytes: ${error.message}`));
        });
      }),
  );
}

/** Returns the `sizeBytes` bytes that the frames in `data` hold; throws INVALID_ARGUMENT for anything else. */
export async function decompressZstd(data: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  // One byte more than declared, so that a frame that is too long fails here and not by its hash.
  const options = { maxOutputLength: sizeBytes + 1, params: decoderParams(sizeBytes) };
  let result: Uint8Array;
  try {
    if (Math.max(data.length, sizeBytes) <= IN_PLACE_BYTES) result = zstdDecompressSync(data, options);
    else {
      result = await threadJobs.run(
        () =>
          new Promise<Uint8Array>((resolve, reject) => {
            zstdDecompress(data, options, (error, output) => (error === null ? resolve(output) : reject(error)));
          }),
      );
    }
  } catch (error) {
    throw decodingError(error, sizeBytes);
  }
  if (result.length !== sizeBytes) throw wrongSize(result.length, sizeBytes);
  return result;
}

/** A full buffer of one byte: after each output the stream does nothing until it is read. So one read is one job. */
const STEPWISE = { chunkSize: CHUNK_BYTES, readableHighWaterMark: 1 };

/** Compresses a stream of unknown length into one frame. */
export function createZstdCompressor(): ZstdStream {
  return new ZstdStream(createZstdCompress({ ...COMPRESS_OPTIONS, ...STEPWISE }), undefined);
}

/** Decompresses frames that hold `sizeBytes` in all; the last byte over it throws INVALID_ARGUMENT. */
export function createZstdDecompressor(sizeBytes: number): ZstdStream {
  return new ZstdStream(createZstdDecompress({ ...STEPWISE, params: decoderParams(sizeBytes) }), sizeBytes);
}

/** One direction of a stream. `push` and `finish` are called one after the other, and their output is read to its end. */
export class ZstdStream {
  readonly #stream: ZstdCompress | ZstdDecompress;
  readonly #maxBytes: number | undefined;
  #pushedBytes = 0;
  #producedBytes = 0;
  /** Input was given, or the end announced, and the stream has not done with it yet. */
  #isBusy = false;
  #error: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(stream: ZstdCompress | ZstdDecompress, maxBytes: number | undefined) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    stream.on("readable", () => this.#wake());
    stream.on("end", () => this.#done());
    stream.on("close", () => this.#done());
    stream.on("error", (error) => {
      this.#error = error;
      this.#done();
    });
  }

  /** Yields what `chunk` makes available. `chunk` is borrowed until the end; the output belongs to the caller. */
  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (chunk.length === 0) return;
    this.#pushedBytes += chunk.length;
    yield* this.#outputs(() => this.#stream.write(chunk, () => this.#done()));
  }

  /** Yields the rest; for a decompressor throws INVALID_ARGUMENT when the last frame is cut or followed by garbage. */
  async *finish(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.#pushedBytes === 0 && this.#maxBytes !== undefined) throw invalidArgument("the zstd stream is empty");
    yield* this.#outputs(() => this.#stream.end());
    // The decoder ends after the last frame it knows and leaves the rest of the input where it is.
    if (this.#maxBytes !== undefined && this.#stream.bytesWritten < this.#pushedBytes) {
      throw invalidArgument(`corrupt zstd stream: garbage after ${this.#stream.bytesWritten} bytes`);
    }
  }

  /** Frees the memory. Idempotent; must be called. */
  close(): void {
    this.#stream.destroy();
    this.#done();
  }

  async *#outputs(begin: () => void): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    this.#isBusy = true;
    await this.#step(begin);
    while (this.#isBusy || this.#stream.readableLength > 0) {
      // Reading is what starts the next job; waiting for it before handing out the output costs one more chunk.
      const output = await this.#step(() => this.#stream.read() as Buffer | null);
      if (output === null) continue;
      this.#producedBytes += output.length;
      if (this.#maxBytes !== undefined && this.#producedBytes > this.#maxBytes) {
        throw wrongSize(this.#producedBytes, this.#maxBytes);
      }
      // A copy: consecutive outputs share memory, and the caller may transfer what it gets.
      yield new Uint8Array(output);
    }
  }

  /** Starts at most one job on a thread, and waits until no job of this stream is under way. */
  #step<T>(start: () => T): Promise<T> {
    return threadJobs.run(async () => {
      const result = start();
      while (this.#isBusy && this.#stream.readableLength === 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        // Awake without output: perhaps at the end, which the stream announces only to who reads.
        if (this.#isBusy && this.#stream.readableLength === 0) this.#stream.read();
      }
      if (this.#error !== undefined) throw decodingError(this.#error, this.#maxBytes ?? 0);
      if (this.#stream.destroyed && !this.#stream.readableEnded) {
        throw new StatusError(Code.CANCELLED, "the stream was closed");
      }
      return result;
    });
  }

  #done(): void {
    this.#isBusy = false;
    this.#wake();
  }
}

/** A frame may ask for a window of this many bytes; encoders that know no size ask for 8 MiB at level 19. */
function decoderParams(sizeBytes: number): Record<number, number> {
  const windowLog = Math.ceil(Math.log2(Math.max(sizeBytes, 1)));
  return { [constants.ZSTD_d_windowLogMax]: Math.min(27, Math.max(23, windowLog)) };
}

function decodingError(error: unknown, sizeBytes: number): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "ERR_BUFFER_TOO_LARGE") return wrongSize(sizeBytes + 1, sizeBytes);
  if (code.startsWith("ZSTD_error_memory_allocation")) return error;
  if (code === "Z_BUF_ERROR") return invalidArgument("corrupt zstd stream: it ends in the middle of a frame", error);
  const reason = error instanceof Error ? error.message : String(error);
  return invalidArgument(`corrupt zstd stream: ${reason}`, error);
}

function wrongSize(producedBytes: number, sizeBytes: number): StatusError {
  const produced = producedBytes > sizeBytes ? `more than ${sizeBytes}` : String(producedBytes);
  return invalidArgument(`the zstd stream holds ${produced} bytes, expected ${sizeBytes}`);
}
