// One streamed upload on the event loop's side: fills slabs, hands full ones to its thread, keeps few in flight.
//
// The promise of write() is the credit: it settles when another slab may be filled. Bytes are copied once, into the
// slab, except for chunks that own most of their buffer: those travel as they are.

import type { DigestFunction } from "../digest/digest.ts";
import type { AppendJob, IngestAnswer, IngestJob, IngestResult } from "./ingest-protocol.ts";
import { SLAB_BYTES, type SlabPool } from "./slab-pool.ts";

/** One is hashed while the next fills; a third keeps the thread busy when the loop is late. */
const MAX_SLABS_IN_FLIGHT = 3;

/** A chunk this large that fills at least half of its buffer is sent without copying. */
const MIN_TRANSFER_BYTES = 128 * 1024;

/** Of a slab that is sent before it is full; more is worth sending as it is. */
const MAX_COPIED_BYTES = 64 * 1024;

/** The part of an ingest thread that a stream needs. */
interface Thread {
  streams: number;
  run(job: IngestJob, transfer: readonly ArrayBuffer[]): Promise<IngestAnswer>;
  result(job: IngestJob, transfer: readonly ArrayBuffer[]): Promise<IngestResult>;
}

export interface IngestStreamOptions {
  readonly fn: DigestFunction;
  readonly path: string;
  readonly uploadId: number;
  readonly thread: Thread;
  readonly slabs: SlabPool;
}

export class IngestStream {
  readonly #options: IngestStreamOptions;
  #slab: ArrayBuffer | undefined;
  #filled = 0;
  #sentBytes = 0;
  #inFlight = 0;
  #failure: unknown;
  #wake: (() => void)[] = [];
  #begun = false;
  #ended = false;

  constructor(options: IngestStreamOptions) {
    this.#options = options;
    options.thread.streams++;
  }

  /** Takes over `chunk`. */
  async write(chunk: Uint8Array): Promise<void> {
    if (isWorthTransferring(chunk)) {
      this.#sendSlab();
      this.#run(this.#appendJob(chunk.buffer as ArrayBuffer, chunk.byteOffset, chunk.length));
      return this.#credit();
    }
    for (let offset = 0; offset < chunk.length;) {
      this.#slab ??= this.#options.slabs.take(this);
      const take = Math.min(chunk.length - offset, this.#slab.byteLength - this.#filled);
      new Uint8Array(this.#slab, this.#filled, take).set(chunk.subarray(offset, offset + take));
      this.#filled += take;
      offset += take;
      if (this.#filled === this.#slab.byteLength) {
        this.#sendSlab();
        await this.#credit();
      }
    }
    this.#throwFailure();
  }

  /** Sends a half-filled slab away, so that a silent upload holds no buffer. */
  flush(): void {
    const job = this.#takeSlab();
    if (job === undefined) return;
    if (job.length > MAX_COPIED_BYTES) return this.#run(job);
    // Whoever flushes thousands of uploads must not queue a slab with a few bytes for each (8.8 GB for 20,000 of them).
    this.#run({ ...job, slab: job.slab.slice(0, job.length) });
    this.#options.slabs.give(job.slab);
  }

  /** The hash, size and checksums of everything written; the file is complete and read-only, not yet synced. */
  async finish(): Promise<IngestResult> {
    while (this.#inFlight > 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
    const last = this.#failure === undefined ? this.#takeSlab() : undefined;
    this.#end();
    const { thread, uploadId, fn, path } = this.#options;
    if (this.#failure !== undefined) {
      if (this.#begun) void thread.run({ type: "forget", uploadId }, []).catch(() => undefined);
      throw this.#failure;
    }
    // The last slab goes with the end: a blob of one slab takes one job.
    return thread.result({ type: "finish", uploadId, fn, path, last }, last === undefined ? [] : [last.slab]);
  }

  /** Drops the state; resolves once no job of this stream touches the file any more. */
  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#end();
    this.#options.slabs.letGo(this);
    if (this.#slab !== undefined) this.#options.slabs.give(this.#slab);
    this.#slab = undefined;
    const { thread, uploadId } = this.#options;
    // A failure here means that the thread is gone, and the state with it.
    if (this.#begun) await thread.run({ type: "forget", uploadId }, []).catch(() => undefined);
  }

  #end(): void {
    if (!this.#ended) this.#options.thread.streams--;
    this.#ended = true;
  }

  #sendSlab(): void {
    const job = this.#takeSlab();
    if (job !== undefined) this.#run(job);
  }

  /** The half-filled slab as a job; it is not this stream's any more. */
  #takeSlab(): AppendJob | undefined {
    const slab = this.#slab;
    if (slab === undefined) return undefined;
    const length = this.#filled;
    this.#options.slabs.letGo(this);
    this.#slab = undefined;
    this.#filled = 0;
    return this.#appendJob(slab, 0, length);
  }

  #appendJob(slab: ArrayBuffer, offset: number, length: number): AppendJob {
    const { uploadId, fn, path } = this.#options;
    const position = this.#sentBytes;
    this.#sentBytes += length;
    return { type: "append", uploadId, fn, path, position, slab, offset, length };
  }

  #run(job: AppendJob): void {
    if (this.#failure !== undefined || this.#ended) return;
    this.#inFlight++;
    this.#begun = true;
    this.#options.thread.run(job, [job.slab]).then(
      (answer) => this.#returned(answer as ArrayBuffer | undefined),
      (error: unknown) => {
        this.#failure ??= error;
        this.#returned(undefined);
      },
    );
  }

  #returned(slab: ArrayBuffer | undefined): void {
    if (slab !== undefined) this.#options.slabs.give(slab);
    this.#inFlight--;
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #credit(): Promise<void> {
    while (this.#inFlight >= MAX_SLABS_IN_FLIGHT) await new Promise<void>((resolve) => this.#wake.push(resolve));
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

function isWorthTransferring(chunk: Uint8Array): boolean {
  if (chunk.length < MIN_TRANSFER_BYTES || chunk.length * 2 < chunk.buffer.byteLength) return false;
  return chunk.buffer instanceof ArrayBuffer && chunk.buffer.byteLength <= 4 * SLAB_BYTES;
}
