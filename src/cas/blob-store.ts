// The seam of the content-addressable storage: blobs by digest.
//
// Every implementation and decorator runs test/cas/blob-store-contract.ts. Rules that hold for all of them:
// - The empty blob of every digest function is always present and never stored.
// - `put`, `upload.finish` and `ingestFile` verify hash and size, and resolve only when the blob is durable.
// - A blob is visible to others only when it is whole. Concurrent writers of one blob are legal; the first one wins.
// - Asking touches: what findMissing, find, get or openRead reports as present outlives blobs nobody asked for.
// - Errors are StatusErrors: INVALID_ARGUMENT (bytes do not match), NOT_FOUND, OUT_OF_RANGE, RESOURCE_EXHAUSTED (no
//   room), DATA_LOSS (stored bytes damaged).

import type { Digest, DigestFunction } from "../digest/digest.ts";
import type { DigestBatch } from "../digest/digest-batch.ts";

/**
 * 2000-01-01T00:00:00Z: old enough that no tool takes an input for newer than what it makes from it, and the same on
 * every machine, so that an archive of inputs is the same archive everywhere.
 */
export const BLOB_FILE_MTIME_SECONDS = 946_684_800;

export interface BlobStore {
  /**
   * Returns the positions in `batch`, ascending, of the digests that are absent, each distinct digest once.
   * Present blobs are touched. Exact: a stored hash with another size is missing. Synchronous on the hot path.
   */
  findMissing(batch: DigestBatch): Uint32Array | Promise<Uint32Array>;

  /** True when present (touches it). */
  has(digest: Digest): boolean | Promise<boolean>;

  /** The size of the blob with this hash, or undefined when absent. For HTTP, whose names carry no size. */
  findSize(fn: DigestFunction, hash: string): number | undefined | Promise<number | undefined>;

  /**
   * The whole blob, or undefined when absent. For blobs that fit a message; the caller bounds the size first.
   * The bytes belong to the caller.
   */
  get(digest: Digest): Uint8Array | undefined | Promise<Uint8Array | undefined>;

  /**
   * Copies the blob at `position` of `batch` to `target` at `offsetBytes`, where its size has room. For small blobs by the
   * hundred, without an object for each. Touches it.
   */
  copyAtHand(batch: DigestBatch, position: number, target: Buffer, offsetBytes: number): CopyOutcome;

  /** Opens a blob for reading; throws NOT_FOUND, or OUT_OF_RANGE when offsetBytes is beyond its end. */
  openRead(digest: Digest, options?: ReadOptions): Promise<BlobReader>;

  /** Stores a blob held in memory. `data` is borrowed until the promise settles. A present blob is only touched. */
  put(digest: Digest, data: Uint8Array): Promise<void>;

  /**
   * Stores small blobs held in memory in one step, `data` in the order of `batch`; both are borrowed until the promise
   * settles. Undefined, with nothing stored, when some blob is wrong, large or under way, or there is no room: then put()
   * decides about each.
   */
  putTogether(batch: DigestBatch, data: readonly Uint8Array[]): Promise<void> | undefined;

  /** Begins a streamed upload. The caller checks `has` first for the early answer to duplicates. */
  openUpload(digest: Digest): Promise<BlobUpload>;

  /**
   * Stores a regular file of our own (an output of an action) by moving, linking or copying it; hashes it first.
   * After it resolves the file at `path` may be gone. Returns the digest.
   */
  ingestFile(path: string, fn: DigestFunction): Promise<Digest>;

  /**
   * Keeps the named blobs from being evicted until `release`. Digests that are absent are pinned as well: they
   * stay once they arrive. Pinning is counted.
   */
  pin(digests: Iterable<Digest>): Pin;

  /**
   * The path of an immutable file holding exactly the blob's bytes, mode 0444, modified at BLOB_FILE_MTIME_SECONDS, for
   * hard-linking into an input root, or undefined when the blob is absent or not kept as a plain file of its own. Valid while the blob is pinned.
   */
  filePath(digest: Digest): string | undefined;
}

/** LATER: what stands in the way is only waiting, as for a file; get() does. */
export const CopyOutcome = { COPIED: 1, ABSENT: 2, LATER: 3 } as const;
export type CopyOutcome = (typeof CopyOutcome)[keyof typeof CopyOutcome];

export interface ReadOptions {
  readonly offsetBytes?: number;
  /** 0 or absent: to the end. */
  readonly limitBytes?: number;
  readonly signal?: AbortSignal;
}

export interface BlobReader {
  readonly sizeBytes: number;
  /** The next chunk (64 KiB to 1 MiB), owned by the caller, or undefined at the end. Throws DATA_LOSS. */
  next(): Promise<Uint8Array | undefined>;
  /**
   * As `next`, where the store holds the bytes in memory: they stay the store's and will not change, the caller must not
   * change or transfer them. Saves the copy when they are only sent on.
   */
  lend?(): Uint8Array | undefined;
  /** Takes a chunk back that its owner has done with, to read into it again; also fine after close, and never needed. */
  giveBack?(chunk: Uint8Array): void;
  /** Idempotent; must be called. */
  close(): Promise<void>;
}

/** One streamed upload. It holds no thread and no descriptor while nothing is being written. */
export interface BlobUpload {
  /** Bytes accepted so far; where a resumed write must go on. */
  readonly writtenBytes: number;
  /**
   * Takes over `chunk` (its ArrayBuffer may be transferred to a thread). The promise is the credit: it settles when
   * the next chunk is welcome. Throws INVALID_ARGUMENT when the bytes exceed the digest's size.
   */
  write(chunk: Uint8Array): Promise<void>;
  /** Verifies and stores. On mismatch throws INVALID_ARGUMENT and the upload is gone. */
  finish(): Promise<void>;
  /** Drops what was received. Idempotent; also fine after finish. */
  abort(): Promise<void>;
}

export interface Pin {
  /** Idempotent. */
  release(): void;
}
