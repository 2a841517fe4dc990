// Zstandard on worker threads: whole buffers wherever there is room, each stream to be decompressed on one thread.
//
// Invariant: a stream has at most two pieces on its thread, so memory is bounded however fast data comes; a silent client
// holds neither thread nor job. Small buffers are done in place. What a silent stream costs: its context, one piece that
// is being filled and one that is done.

import { availableParallelism } from "node:os";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import { workerFile } from "../base/worker-file.ts";
import type { Zstd, ZstdStream } from "../base/zstd.ts";
import { leastBusy, PinnedThread } from "./pinned-thread.ts";
import { ZstdError } from "./zstd-context.ts";
import { STREAM_OUTPUT_BYTES, type ZstdAnswer, type ZstdJob } from "./zstd-protocol.ts";
import { StoredFrame } from "./zstd-stored.ts";
import { compressWhole, decompressWhole } from "./zstd-whole.ts";

/**
 * Up to here the work takes the event loop about as long as handing it to a thread would (60 µs): 8 KiB to compress,
 * 32 KiB to decompress. At twice the size it takes twice as long, and the hop does not.
 */
const COMPRESS_IN_PLACE_BYTES = 8 * 1024;
const DECOMPRESS_IN_PLACE_BYTES = 32 * 1024;

/** A stream is compressed in pieces of this many bytes, each a job. */
const PIECE_BYTES = 512 * 1024;

/**
 * Streams compressed at once with a context of their own (1.3 MB at level 1) into one frame, which is what every client
 * can read. Beyond it a stream is one frame of plain blocks, which takes no context, so stalled readers cost a bounded
 * number of them.
 */
const MAX_ENCODERS = 64;

/**
 * Clients send messages of 16 KiB and more; as much as this is collected for one job. It is less than the smallest
 * context of a stream takes, so a silent client costs hardly more; at a quarter of it streams are a third slower.
 */
const MAX_WAITING_BYTES = 64 * 1024;

type Thread = PinnedThread<ZstdJob, ZstdAnswer>;

export interface ZstdPoolOptions {
  /** Defaults to the number of cores, at most 8. They start when they are needed. */
  readonly threads?: number;
}

export class ZstdPool implements Zstd {
  readonly #threads: Thread[];
  #nextStreamId = 1;
  #encoders = 0;

  constructor(options: ZstdPoolOptions = {}) {
    const count = options.threads ?? Math.min(availableParallelism(), 8);
    this.#threads = Array.from({ length: count }, () => new PinnedThread(() => workerFile("compute/zstd-worker")));
  }

  compress(data: Uint8Array): Uint8Array | Promise<Uint8Array> {
    if (data.length <= COMPRESS_IN_PLACE_BYTES) return compressWhole(data);
    return this.#compressOwned(new Uint8Array(data).buffer, data.length);
  }

  async decompress(data: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
    const result = await this.#decompress(data, sizeBytes);
    if (result.length !== sizeBytes) throw wrongSize(result.length, sizeBytes);
    return result;
  }

  createCompressor(sizeBytes: number): ZstdStream {
    if (sizeBytes <= PIECE_BYTES) return this.#frameCompressor();
    if (this.#encoders >= MAX_ENCODERS) return new StoredFrame(sizeBytes);
    const thread = leastBusy(this.#threads);
    const streamId = this.#nextStreamId++;
    thread.streams++;
    this.#encoders++;
    let isKnown = false;
    return new PieceCompressor({
      press: async (bytes, length, isLast) => {
        isKnown = true;
        return outputOf(await thread.run({ type: "press", streamId, sizeBytes, bytes, length, isLast }, [bytes]));
      },
      release: () => {
        thread.streams--;
        this.#encoders--;
        // Fails only when the thread is gone, and the context with it.
        if (isKnown) thread.run({ type: "forget", streamId }, []).catch(() => undefined);
      },
    });
  }

  /** For what is one piece: any thread makes the frame. */
  #frameCompressor(): ZstdStream {
    let isFirst = true;
    return new PieceCompressor({
      press: async (bytes, length) => {
        // Nothing at all is a frame as well; nothing after something is none.
        if (length === 0 && !isFirst) return new Uint8Array(0);
        isFirst = false;
        return this.#compressOwned(bytes, length);
      },
      release: () => undefined,
    });
  }

  createDecompressor(sizeBytes: number): ZstdStream {
    return new ThreadDecompressor({ thread: leastBusy(this.#threads), streamId: this.#nextStreamId++, sizeBytes });
  }

  /** Ends the threads when they have done what they were given. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  async #compressOwned(bytes: ArrayBuffer, length: number): Promise<Uint8Array<ArrayBuffer>> {
    return outputOf(await leastBusy(this.#threads).run({ type: "compress", bytes, length }, [bytes]));
  }

  async #decompress(data: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
    if (Math.max(data.length, sizeBytes) > DECOMPRESS_IN_PLACE_BYTES) {
      const bytes = new Uint8Array(data).buffer;
      const job = { type: "decompress", bytes, length: data.length, sizeBytes } as const;
      return outputOf(await leastBusy(this.#threads).run(job, [bytes]));
    }
    try {
      return decompressWhole(data, sizeBytes);
    } catch (error) {
      throw error instanceof ZstdError ? decodingError(error.message, error.code) : error;
    }
  }
}

interface Press {
  /** Compresses one piece, which it takes over, and resolves with what that makes. */
  readonly press: (bytes: ArrayBuffer, length: number, isLast: boolean) => Promise<Uint8Array<ArrayBuffer>>;
  /** Called once, at the end. */
  readonly release: () => void;
}

/** Collects pieces, has them compressed, and yields each result when the next one is on its way. */
class PieceCompressor implements ZstdStream {
  readonly #press: Press;
  #piece: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  /** The piece before, while the next is collected. */
  #pending: Promise<Uint8Array<ArrayBuffer>> | undefined;
  #isClosed = false;

  constructor(press: Press) {
    this.#press = press;
  }

  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for (let rest = chunk; rest.length > 0;) {
      const piece = (this.#piece ??= new Uint8Array(PIECE_BYTES));
      const part = rest.subarray(0, piece.length - this.#filled);
      piece.set(part, this.#filled);
      this.#filled += part.length;
      rest = rest.subarray(part.length);
      if (this.#filled === piece.length) yield* this.#next(false);
    }
  }

  async *finish(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    yield* this.#next(true);
    yield* this.#finished();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#piece = undefined;
    this.#pending = undefined;
    this.#press.release();
  }

  async *#next(isLast: boolean): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.#isClosed) throw new StatusError(Code.CANCELLED, "the stream was closed");
    const { buffer } = this.#piece ?? new Uint8Array(0);
    const pressing = this.#press.press(buffer, this.#filled, isLast);
    pressing.catch(() => undefined); // seen by who awaits it; after close() nobody does
    this.#piece = undefined;
    this.#filled = 0;
    yield* this.#finished();
    this.#pending = pressing;
  }

  async *#finished(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const before = this.#pending;
    this.#pending = undefined;
    if (before === undefined) return;
    const output = await before;
    if (output.length > 0) yield output;
  }
}

/** The event loop's side of a stream whose context lives on a thread. */
class ThreadDecompressor implements ZstdStream {
  readonly #thread: Thread;
  readonly #streamId: number;
  readonly #sizeBytes: number;
  #pushedBytes = 0;
  #producedBytes = 0;
  /** What is too little for a job of its own. */
  #waiting: Uint8Array<ArrayBuffer>[] = [];
  #waitingBytes = 0;
  /** The thread has a context of ours. */
  #isKnown = false;
  #isClosed = false;

  constructor(options: { readonly thread: Thread; readonly streamId: number; readonly sizeBytes: number }) {
    this.#thread = options.thread;
    this.#streamId = options.streamId;
    this.#sizeBytes = options.sizeBytes;
    this.#thread.streams++;
  }

  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (chunk.length === 0) return;
    this.#pushedBytes += chunk.length;
    this.#waiting.push(new Uint8Array(chunk));
    this.#waitingBytes += chunk.length;
    // Never more than came before, so that a stream that is corrupt or too long is refused early.
    const enoughBytes = Math.min(MAX_WAITING_BYTES, this.#pushedBytes - this.#waitingBytes);
    if (this.#waitingBytes >= enoughBytes) yield* this.#outputs(this.#takeWaiting(), false);
  }

  async *finish(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.#pushedBytes === 0) throw invalidArgument("the zstd stream is empty");
    yield* this.#outputs(this.#takeWaiting(), true);
    this.#isKnown = false;
    if (this.#producedBytes !== this.#sizeBytes) throw wrongSize(this.#producedBytes, this.#sizeBytes);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#takeWaiting();
    this.#thread.streams--;
    if (!this.#isKnown) return;
    // Fails only when the thread is gone, and the context with it.
    this.#thread.run({ type: "forget", streamId: this.#streamId }, []).catch(() => undefined);
  }

  #takeWaiting(): ArrayBuffer {
    const [first = new Uint8Array(0), ...others] = this.#waiting;
    const piece = others.length === 0 ? first : new Uint8Array(Buffer.concat([first, ...others]));
    this.#waiting = [];
    this.#waitingBytes = 0;
    return piece.buffer;
  }

  async *#outputs(bytes: ArrayBuffer, isLast: boolean): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const streamId = this.#streamId;
    const sizeBytes = this.#sizeBytes;
    this.#isKnown = true;
    let job: ZstdJob = { type: "feed", streamId, sizeBytes, bytes, length: bytes.byteLength, isLast };
    for (;;) {
      if (this.#isClosed) throw new StatusError(Code.CANCELLED, "the stream was closed");
      const output = outputOf(await this.#thread.run(job, job.type === "feed" ? [bytes] : []));
      this.#producedBytes += output.length;
      if (this.#producedBytes > sizeBytes) throw wrongSize(this.#producedBytes, sizeBytes);
      const hasMore = output.length === STREAM_OUTPUT_BYTES;
      if (output.length > 0) yield output;
      if (!hasMore) return;
      job = { type: "drain", streamId };
    }
  }
}

function outputOf(answer: ZstdAnswer): Uint8Array<ArrayBuffer> {
  if (answer === undefined) throw new Error("a zstd thread answered nothing");
  if ("failed" in answer) throw decodingError(answer.failed, answer.code);
  return answer;
}

/** Errors without one of zlib's codes are ours, or the machine's. */
function decodingError(message: string, code: string): StatusError {
  if (code === "Z_BUF_ERROR") return invalidArgument("corrupt zstd stream: it ends in the middle of a frame");
  if (code === "" || code.startsWith("ZSTD_error_memory_allocation")) {
    return new StatusError(Code.INTERNAL, `zstd: ${message}`);
  }
  return invalidArgument(`corrupt zstd stream: ${message}`);
}

function wrongSize(producedBytes: number, sizeBytes: number): StatusError {
  const produced = producedBytes > sizeBytes ? `more than ${sizeBytes}` : String(producedBytes);
  return invalidArgument(`the zstd stream holds ${produced} bytes, expected ${sizeBytes}`);
}
