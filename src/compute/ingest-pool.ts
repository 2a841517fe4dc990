// The ingest threads as the event loop sees them: streams of slabs, each bound to one thread, and whole-file jobs.
//
// A stream's hash state lives on one thread, and its jobs must run there in order. A stream that nobody feeds holds no
// thread, no descriptor and no job.

import { availableParallelism } from "node:os";
import { Code, StatusError } from "../base/status.ts";
import { workerFile } from "../base/worker-file.ts";
import type { DigestFunction } from "../digest/digest.ts";
import type { FileChunk } from "./chunk-file.ts";
import type { FastCdcParams } from "./fast-cdc.ts";
import { hashHex } from "./hash.ts";
import type { IngestAnswer, IngestFailure, IngestJob, IngestResult } from "./ingest-protocol.ts";
import { IngestStream } from "./ingest-stream.ts";
import { leastBusy, PinnedThread } from "./pinned-thread.ts";
import { SlabPool } from "./slab-pool.ts";

export interface IngestPoolOptions {
  /** Defaults to the number of cores, at most 8: more threads than that only wait for the disk. */
  readonly threads?: number;
}

/**
 * Up to here hashing in place beats a thread: SHA-256 of 64 KiB takes 40 µs, copying it and the two hops about as long.
 */
export const HASH_IN_PLACE_BYTES = 64 * 1024;

export class IngestPool {
  readonly #threads: IngestThread[];
  readonly #slabs = new SlabPool();
  #nextUploadId = 1;

  constructor(options: IngestPoolOptions = {}) {
    const count = options.threads ?? Math.min(availableParallelism(), 8);
    this.#threads = Array.from({ length: count }, () => new IngestThread());
  }

  /** Begins a stream of bytes into a new file at `path`, which appears with the first slab. */
  openStream(fn: DigestFunction, path: string): IngestStream {
    const thread = this.#leastBusyThread();
    return new IngestStream({ fn, path, uploadId: this.#nextUploadId++, thread, slabs: this.#slabs });
  }

  /** Slabs that wait to be filled; bounded however many streams are open. */
  get heldSlabs(): number {
    return this.#slabs.heldSlabs;
  }

  /** The hash of borrowed bytes: in place when they are few, else on a thread (which costs one copy). */
  async hash(fn: DigestFunction, data: Uint8Array): Promise<string> {
    if (data.length <= HASH_IN_PLACE_BYTES) return hashHex(fn, data);
    const bytes = new Uint8Array(data).buffer;
    const job = { type: "hash-bytes", fn, bytes, length: data.length } as const;
    return (await this.#leastBusyThread().result(job, [bytes])).hash;
  }

  /** Hashes the file at `path`; with `copyTo`, copies it to that new file on the way. */
  hashFile(fn: DigestFunction, path: string, copyTo?: string): Promise<IngestResult> {
    return this.#leastBusyThread().result({ type: "hash-file", fn, path, copyTo }, []);
  }

  /** Cuts the file at `path` into content-defined chunks. */
  async chunkFile(fn: DigestFunction, path: string, params: FastCdcParams): Promise<readonly FileChunk[]> {
    return (await this.#leastBusyThread().run({ type: "chunk-file", fn, path, params }, [])) as readonly FileChunk[];
  }

  /** Ends the threads when they have done what they were given. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  #leastBusyThread(): IngestThread {
    return leastBusy(this.#threads);
  }
}

/** A thread whose failures are errors. */
export class IngestThread extends PinnedThread<IngestJob, IngestAnswer> {
  constructor() {
    super(() => workerFile("compute/ingest-worker"));
  }

  override async run(job: IngestJob, transfer: readonly ArrayBuffer[]): Promise<IngestAnswer> {
    const answer = await super.run(job, transfer);
    if (isFailure(answer)) throw ingestError(answer);
    return answer;
  }

  async result(job: IngestJob, transfer: readonly ArrayBuffer[]): Promise<IngestResult> {
    return (await this.run(job, transfer)) as IngestResult;
  }
}

function isFailure(answer: IngestAnswer): answer is IngestFailure {
  return answer !== undefined && "failed" in answer;
}

function ingestError(failure: IngestFailure): StatusError {
  if (failure.code === "ENOSPC" || failure.code === "EDQUOT") {
    return new StatusError(Code.RESOURCE_EXHAUSTED, `Cannot write the blob: the disk is full (${failure.failed})`);
  }
  if (failure.code === "ENOENT") return new StatusError(Code.NOT_FOUND, failure.failed);
  return new StatusError(Code.INTERNAL, failure.failed);
}
