// Zstandard with a bound on everything: whole buffers, and streams in pull form.
//
// Invariant: decompression never makes more bytes than the declared size, and needs no more memory than the larger of
// 8 MiB and that size (128 MiB at most). Nothing is held by a stream while nobody pushes: neither a thread nor a
// descriptor. Node's zlib does the work, larger pieces of it on libuv's threads. Source of the format: RFC 8878.

import { constants, createZstdCompress, createZstdDecompress, zstdCompress, zstdCompressSync } from "node:zlib";
import { zstdDecompress, zstdDecompressSync, type ZstdCompress, type ZstdDecompress } from "node:zlib";
import { Code, StatusError, invalidArgument } from "./status.ts";

/** Level 1: on the way out time costs more than bytes. 3 halves the throughput for a few per cent. */
const LEVEL = 1;
/** Up to here the work (about 50 µs, most of it set-up) costs less than waiting for a thread. */
const IN_PLACE_BYTES = 32 * 1024;
const CHUNK_BYTES = 256 * 1024;

/**
 * Where compression is optional, blobs below this size go plain: a frame costs about 50 µs to set up, whatever its size,
 * and saves at most a few kilobytes. At half of it a batch of small blobs takes ten times as long.
 */
export const MIN_COMPRESSIBLE_BYTES = 4096;

const COMPRESS_OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } };

/** Returns one frame holding `data`, which is borrowed until the promise settles. */
export function compressZstd(data: Uint8Array): Uint8Array | Promise<Uint8Array> {
  if (data.length <= IN_PLACE_BYTES) return zstdCompressSync(data, COMPRESS_OPTIONS);
  return new Promise((resolve, reject) => {
    zstdCompress(data, COMPRESS_OPTIONS, (error, result) => {
      if (error === null) resolve(result);
      else reject(new StatusError(Code.INTERNAL, `Cannot compress ${data.length} bytes: ${error.message}`));
    });
  });
}

/** Returns the `sizeBytes` bytes that the frames in `data` hold; throws INVALID_ARGUMENT for anything else. */
export async function decompressZstd(data: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  // One byte more than declared, so that a frame that is too long fails here and not by its hash.
  const options = { maxOutputLength: sizeBytes + 1, params: decoderParams(sizeBytes) };
  let result: Uint8Array;
  try {
    if (Math.max(data.length, sizeBytes) <= IN_PLACE_BYTES) result = zstdDecompressSync(data, options);
    else {
      result = await new Promise<Uint8Array>((resolve, reject) => {
        zstdDecompress(data, options, (error, output) => (error === null ? resolve(output) : reject(error)));
      });
    }
  } catch (error) {
    throw decodingError(error, sizeBytes);
  }
  if (result.length !== sizeBytes) throw wrongSize(result.length, sizeBytes);
  return result;
}

/** Compresses a stream of unknown length into one frame. */
export function createZstdCompressor(): ZstdStream {
  return new ZstdStream(createZstdCompress({ ...COMPRESS_OPTIONS, chunkSize: CHUNK_BYTES }), undefined);
}

/** Decompresses frames that hold `sizeBytes` in all; the last byte over it throws INVALID_ARGUMENT. */
export function createZstdDecompressor(sizeBytes: number): ZstdStream {
  const options = { chunkSize: CHUNK_BYTES, params: decoderParams(sizeBytes) };
  return new ZstdStream(createZstdDecompress(options), sizeBytes);
}

/** One direction of a stream. `push` and `finish` are called one after the other, and their output is read to its end. */
export class ZstdStream {
  readonly #stream: ZstdCompress | ZstdDecompress;
  readonly #maxBytes: number | undefined;
  #pushedBytes = 0;
  #producedBytes = 0;
  #error: Error | undefined;
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(stream: ZstdCompress | ZstdDecompress, maxBytes: number | undefined) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    stream.on("readable", () => this.#wake());
    stream.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    stream.on("error", (error) => {
      this.#error = error;
      this.#wake();
    });
  }

  /** Yields what `chunk` makes available. `chunk` is borrowed until the end; the output belongs to the caller. */
  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (chunk.length === 0) return;
    this.#pushedBytes += chunk.length;
    let consumed = false;
    this.#stream.write(chunk, () => {
      consumed = true;
      this.#wake();
    });
    yield* this.#outputs(() => consumed);
  }

  /** Yields the rest; for a decompressor throws INVALID_ARGUMENT when the last frame is cut or followed by garbage. */
  async *finish(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.#pushedBytes === 0 && this.#maxBytes !== undefined) throw invalidArgument("the zstd stream is empty");
    this.#stream.end();
    yield* this.#outputs(() => this.#ended);
    // The decoder ends after the last frame it knows and leaves the rest of the input where it is.
    if (this.#maxBytes !== undefined && this.#stream.bytesWritten < this.#pushedBytes) {
      throw invalidArgument(`corrupt zstd stream: garbage after ${this.#stream.bytesWritten} bytes`);
    }
  }

  /** Frees the memory. Idempotent; must be called. */
  close(): void {
    this.#stream.destroy();
    this.#wake();
  }

  async *#outputs(isDone: () => boolean): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for (;;) {
      if (this.#error !== undefined) throw decodingError(this.#error, this.#maxBytes ?? 0);
      const output = this.#stream.read() as Buffer | null;
      if (output !== null) {
        this.#producedBytes += output.length;
        if (this.#maxBytes !== undefined && this.#producedBytes > this.#maxBytes) {
          throw wrongSize(this.#producedBytes, this.#maxBytes);
        }
        // A copy: consecutive outputs share memory, and the caller may transfer what it gets.
        yield new Uint8Array(output);
      } else if (isDone()) {
        return;
      } else if (this.#stream.destroyed) {
        throw new StatusError(Code.CANCELLED, "the stream was closed");
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
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
