// Hashing in place, for both digest functions: the whole of a small blob, or a large one piece by piece.
//
// Small means: cheaper than a hop to a worker thread and back. Larger blobs go to blob-ingest.ts.

import { createHash } from "node:crypto";
import { hash as nodeHash } from "node:crypto";
import { DigestFunction, type Digest } from "../digest/digest.ts";
import { blake3 } from "./blake3.ts";

/** A running hash; `digest` is called once and ends it. */
export interface IncrementalHash {
  update(data: Uint8Array): void;
  digest(): Uint8Array;
}

/** The 32 bytes of the hash of `data`. */
export function hashBytes(fn: DigestFunction, data: Uint8Array): Uint8Array {
  return fn === DigestFunction.SHA256 ? nodeHash("sha256", data, "buffer") : blake3().hash(data);
}

/** The hash of `data` as lower-case hex. */
export function hashHex(fn: DigestFunction, data: Uint8Array): string {
  return fn === DigestFunction.SHA256 ? nodeHash("sha256", data, "hex") : toHex(blake3().hash(data));
}

export function createIncrementalHash(fn: DigestFunction): IncrementalHash {
  if (fn === DigestFunction.BLAKE3) return blake3().create();
  const hash = createHash("sha256");
  return {
    update: (data) => void hash.update(data),
    digest: () => hash.digest(),
  };
}

/** The digest of bytes held in memory. */
export function digestOf(fn: DigestFunction, data: Uint8Array): Digest {
  return { fn, hash: hashHex(fn, data), sizeBytes: data.length };
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
