// The ingest thread: hashes slabs of uploads, writes them to their temporary files, hashes files.
//
// Runs in a worker thread of piscina; file calls are synchronous here, and a blocked disk blocks this thread alone.

import { chmodSync, closeSync, openSync, readSync, writeSync } from "node:fs";
import { move } from "piscina";
import type { DigestFunction } from "../digest/digest.ts";
import { chunkFile } from "./chunk-file.ts";
import { PieceChecksums } from "./checksums.ts";
import { createIncrementalHash, hashHex, toHex, type IncrementalHash } from "./hash.ts";
import type { AppendJob, FinishJob, HashFileJob, IngestAnswer, IngestJob, IngestResult } from "./ingest-protocol.ts";
import { SLAB_BYTES } from "./slab-pool.ts";

interface UploadState {
  readonly hash: IncrementalHash;
  readonly checksums: PieceChecksums;
  sizeBytes: number;
}

const uploads = new Map<number, UploadState>();

export default function run(job: IngestJob): IngestAnswer {
  try {
    switch (job.type) {
      case "append":
        return append(job);
      case "finish":
        return finish(job);
      case "forget":
        uploads.delete(job.uploadId);
        return undefined;
      case "hash-file":
        return hashFile(job);
      case "chunk-file":
        return chunkFile(job.fn, job.path, job.params);
      case "hash-bytes":
        return {
          hash: hashHex(job.fn, new Uint8Array(job.bytes, 0, job.length)),
          sizeBytes: job.length,
          checksums: new Uint32Array(0),
        };
    }
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    return {
      failed: error instanceof Error ? error.message : String(error),
      code: typeof code === "string" ? code : undefined,
    };
  }
}

function append(job: AppendJob): IngestAnswer {
  const state = uploads.get(job.uploadId) ?? newState(job.fn);
  if (job.position !== state.sizeBytes) {
    throw new Error(`slab for position ${job.position} arrived at ${state.sizeBytes} of upload ${job.uploadId}`);
  }
  const data = new Uint8Array(job.slab, job.offset, job.length);
  // The first slab makes the file, so that a name in use is an error and not somebody else's bytes.
  const file = openSync(job.path, state.sizeBytes === 0 ? "wx" : "r+", 0o600);
  try {
    writeFully(file, data, state.sizeBytes);
  } finally {
    closeSync(file);
  }
  // Only what is in the file counts: after a failed write the upload is dropped by its owner.
  state.hash.update(data);
  state.checksums.update(data);
  state.sizeBytes += data.length;
  uploads.set(job.uploadId, state);
  // A slab goes back by transfer as it came: the event loop fills it again.
  if (job.slab.byteLength === SLAB_BYTES) return move(job.slab) as ArrayBuffer;
  free(job.slab);
  return undefined;
}

/** Gives the memory back now: left to the collector, a MiB for each upload made it mark the heap several times a second. */
function free(buffer: ArrayBuffer): void {
  buffer.transfer(0);
}

function finish(job: FinishJob): IngestResult {
  if (job.last !== undefined) {
    append(job.last);
    free(job.last.slab);
  }
  const state = uploads.get(job.uploadId);
  uploads.delete(job.uploadId);
  if (state === undefined) return emptyResult(job.fn);
  chmodSync(job.path, 0o444);
  return resultOf(state);
}

function emptyResult(fn: DigestFunction): IngestResult {
  return resultOf(newState(fn));
}

function resultOf(state: UploadState): IngestResult {
  return { hash: toHex(state.hash.digest()), sizeBytes: state.sizeBytes, checksums: state.checksums.finish() };
}

function newState(fn: AppendJob["fn"]): UploadState {
  return { hash: createIncrementalHash(fn), checksums: new PieceChecksums(), sizeBytes: 0 };
}

function writeFully(file: number, data: Uint8Array, position: number): void {
  for (let done = 0; done < data.length;) done += writeSync(file, data, done, data.length - done, position + done);
}

const READ_BYTES = 1024 * 1024;
const readBuffer = new Uint8Array(READ_BYTES);

function hashFile(job: HashFileJob): IngestResult {
  const state = newState(job.fn);
  const source = openSync(job.path, "r");
  let copy: number | undefined;
  try {
    copy = job.copyTo === undefined ? undefined : openSync(job.copyTo, "wx", 0o600);
    for (;;) {
      const count = readSync(source, readBuffer, 0, READ_BYTES, state.sizeBytes);
      if (count === 0) break;
      const data = readBuffer.subarray(0, count);
      state.hash.update(data);
      state.checksums.update(data);
      if (copy !== undefined) writeFully(copy, data, state.sizeBytes);
      state.sizeBytes += count;
    }
  } finally {
    closeSync(source);
    if (copy !== undefined) closeSync(copy);
  }
  if (job.copyTo !== undefined) chmodSync(job.copyTo, 0o444);
  return resultOf(state);
}
