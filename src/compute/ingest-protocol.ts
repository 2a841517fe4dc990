// What the event loop and an ingest thread say to each other: one finite job per slab, one at the end.
//
// A thread keeps the hash state of every upload it was given by number; a silent upload costs it that state and nothing
// else: the temporary file is opened for each job and closed at its end.

import type { DigestFunction } from "../digest/digest.ts";
import type { FileChunk } from "./chunk-file.ts";
import type { FastCdcParams } from "./fast-cdc.ts";

/** Pieces of a large blob that carry a checksum each; reads check a piece before they send any of it. */
export const CHECKSUM_PIECE_BYTES = 1024 * 1024;

export interface AppendJob {
  readonly type: "append";
  readonly uploadId: number;
  readonly fn: DigestFunction;
  readonly path: string;
  /** Where the slab's bytes belong; checked, because a stream out of order would be hashed wrong. */
  readonly position: number;
  /** Transferred; goes back the same way. */
  readonly slab: ArrayBuffer;
  readonly offset: number;
  readonly length: number;
}

/** Ends a stream; the file is left complete and read-only. */
export interface FinishJob {
  readonly type: "finish";
  readonly uploadId: number;
  readonly fn: DigestFunction;
  readonly path: string;
  /** The rest of the bytes: a blob of one slab takes one job. */
  readonly last: AppendJob | undefined;
}

export interface ForgetJob {
  readonly type: "forget";
  readonly uploadId: number;
}

/** Hashes a file that is already there. */
export interface HashFileJob {
  readonly type: "hash-file";
  readonly fn: DigestFunction;
  readonly path: string;
  /** When given, the bytes are copied to this new file while they are hashed. */
  readonly copyTo: string | undefined;
}

export interface HashBytesJob {
  readonly type: "hash-bytes";
  readonly fn: DigestFunction;
  readonly bytes: ArrayBuffer;
  readonly length: number;
}

export interface ChunkFileJob {
  readonly type: "chunk-file";
  readonly fn: DigestFunction;
  readonly path: string;
  readonly params: FastCdcParams;
}

export type IngestJob = ChunkFileJob | AppendJob | FinishJob | ForgetJob | HashFileJob | HashBytesJob;

export interface IngestResult {
  readonly hash: string;
  readonly sizeBytes: number;
  /** CRC-32 of each CHECKSUM_PIECE_BYTES. */
  readonly checksums: Uint32Array;
}

/** A failed file call, as a value: an Error with its errno would lose fields on the way between threads. */
export interface IngestFailure {
  readonly failed: string;
  readonly code: string | undefined;
}

export type IngestAnswer = ArrayBuffer | readonly FileChunk[] | IngestResult | IngestFailure | undefined;
