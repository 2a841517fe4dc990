// One zstd context of Node's, driven step by step without a thread of its own and used again and again.
//
// Invariant: a step reads and writes only inside the given views, and no more is made than fits the output. The public
// zlib functions build a whole stream per call (35 µs, five times the work for a blob of 1 KiB) and have no synchronous
// form for a piece of a stream; so this file, and no other, calls the native handle below them. The exact version of
// Node is pinned, and the constructor throws where the handle is not what we know. Source of the format: RFC 8878.
// See docs/decisions/0006-zstd-on-worker-threads.md.

import { constants, createZstdCompress, createZstdDecompress, type ZstdCompress, type ZstdDecompress } from "node:zlib";

/** Level 1: on the way out time costs more than bytes. 3 halves the throughput for a few per cent. */
const LEVEL = 1;

/** The part of Node's native object that is used; the arguments are input and output, each with offset and length. */
interface NativeHandle {
  writeSync(
    flush: number,
    input: Uint8Array,
    inputOffset: number,
    inputLength: number,
    output: Uint8Array,
    outputOffset: number,
    outputLength: number,
  ): void;
  reset(): void;
  onerror: (message: string, errno: number, code: string) => void;
}

/** What went wrong, with zlib's name of it: `Z_BUF_ERROR` is an input that ends too early. */
export class ZstdError extends Error {
  readonly code: string;

  constructor(message: string, code: string) {
    super(message);
    this.code = code;
  }
}

export class ZstdContext {
  readonly #stream: ZstdCompress | ZstdDecompress;
  readonly #handle: NativeHandle;
  /** What the last step left: output room, then input bytes. */
  readonly #state: Uint32Array;
  #error: ZstdError | undefined;

  static encoder(): ZstdContext {
    return new ZstdContext(createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: LEVEL } }));
  }

  /** For one frame of exactly `sizeBytes`, whose header says so; any other number of bytes fails at its end. */
  static encoderOf(sizeBytes: number): ZstdContext {
    const params = { [constants.ZSTD_c_compressionLevel]: LEVEL };
    return new ZstdContext(createZstdCompress({ params, pledgedSrcSize: sizeBytes }));
  }

  /**
   * For `sizeBytes` in all: a frame may ask for a window of as much, but at least 8 MiB (encoders that know no size ask
   * for that at level 19) and at most 128 MiB. The window is the memory it takes.
   */
  static decoder(sizeBytes: number): ZstdContext {
    const windowLog = Math.ceil(Math.log2(Math.max(sizeBytes, 1)));
    const params = { [constants.ZSTD_d_windowLogMax]: Math.min(27, Math.max(23, windowLog)) };
    return new ZstdContext(createZstdDecompress({ params }));
  }

  private constructor(stream: ZstdCompress | ZstdDecompress) {
    this.#stream = stream;
    const internals = stream as unknown as { readonly _handle?: NativeHandle; readonly _writeState?: Uint32Array };
    const { _handle: handle, _writeState: state } = internals;
    if (typeof handle?.writeSync !== "function" || typeof handle.reset !== "function" || state?.length !== 2) {
      throw new Error(
        `Node ${process.version} has no synchronous zstd streams where this version of ledge expects them`,
      );
    }
    // Node's own would close the stream and emit an event; we want to know at the line that failed.
    handle.onerror = (message, _errno, code) => (this.#error = new ZstdError(message, code));
    this.#handle = handle;
    this.#state = state;
  }

  /** Forgets what came before, so that another frame or stream can begin. */
  reset(): void {
    this.#handle.reset();
  }

  /**
   * Reads from `input` and writes to `output` until one of them is used up. `isLast` says that no more input follows:
   * only then a frame is ended (encoder), or missed (decoder). Throws ZstdError, and is not to be used again after it.
   */
  step(input: Uint8Array, output: Uint8Array, isLast: boolean): { readonly read: number; readonly written: number } {
    const flush = isLast ? constants.ZSTD_e_end : constants.ZSTD_e_continue;
    this.#handle.writeSync(flush, input, 0, input.length, output, 0, output.length);
    if (this.#error !== undefined) throw this.#error;
    const [outputLeft = 0, inputLeft = 0] = this.#state;
    return { read: input.length - inputLeft, written: output.length - outputLeft };
  }

  /** Frees the memory. Idempotent. */
  close(): void {
    this.#stream.destroy();
  }
}
