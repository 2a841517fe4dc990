// One streamed upload on the event loop's side: fills slabs, hands full ones to its thread, keeps few in flight.
//
// The promise of write() is the credit: it settles when another slab may be filled. Bytes are copied once, into the
// slab, except for chunks that own most of their buffer: those travel as they are.

import type { DigestFunction } from "../digest/digest.ts";
import type { IngestJob, IngestResult, IngestAnswer } from "./ingest-protocol.ts";
import { SLAB_BYTES, type SlabPool } from "./slab-pool.ts";

/** One is hashed while the next fills; a third keeps the thread busy when the loop is late. */
const MAX_SLABS_IN_FLIGHT = 3;

/** A chunk this large that fills at least half of its buffer is sent without copying. */
const MIN_TRANSFER_BYTES = 128 * 1024;

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
      this.#send(chunk.buffer as ArrayBuffer, chunk.byteOffset, chunk.length);
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
    this.#sendSlab();
  }

  /** The hash, size and checksums of everything written; the file is complete, not yet synced. */
  async finish(): Promise<IngestResult> {
    this.#sendSlab();
    while (this.#inFlight > 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
    this.#end();
    const { thread, uploadId, fn } = this.#options;
    if (this.#failure !== undefined) void thread.run({ type: "forget", uploadId }, []).catch(() => undefined);
    this.#throwFailure();
    return thread.result({ type: "finish", uploadId, fn }, []);
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
    const slab = this.#slab;
    if (slab === undefined) return;
    const length = this.#filled;
    this.#options.slabs.letGo(this);
    this.#slab = undefined;
    this.#filled = 0;
    this.#send(slab, 0, length);
  }

  #send(slab: ArrayBuffer, offset: number, length: number): void {
    if (this.#failure !== undefined || this.#ended) return;
    const { thread, uploadId, fn, path } = this.#options;
    const position = this.#sentBytes;
    this.#sentBytes += length;
    this.#inFlight++;
    this.#begun = true;
    thread.run({ type: "append", uploadId, fn, path, position, slab, offset, length }, [slab]).then(
      (answer) => this.#returned(answer as ArrayBuffer),
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
