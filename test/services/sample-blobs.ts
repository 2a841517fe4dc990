// Blobs for tests, with digests computed by node:crypto rather than by the product where the function is SHA-256.

import { createHash } from "node:crypto";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import type { BlobStore } from "../../src/cas/blob-store.ts";

export interface Sample {
  readonly data: Uint8Array;
  readonly digest: Digest;
}

export function sample(content: string | Uint8Array, fn: DigestFunction = DigestFunction.SHA256): Sample {
  const data = typeof content === "string" ? new Uint8Array(Buffer.from(content)) : content;
  if (fn === DigestFunction.BLAKE3) return { data, digest: digestOf(fn, data) };
  return { data, digest: { fn, hash: createHash("sha256").update(data).digest("hex"), sizeBytes: data.length } };
}

/** Bytes that do not compress away and are the same in every run. */
export function noise(sizeBytes: number, seed = 1): Uint8Array {
  const data = new Uint8Array(sizeBytes);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < sizeBytes; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[i] = state;
  }
  return data;
}

export async function store(blobs: BlobStore, content: string | Uint8Array): Promise<Digest> {
  const { data, digest } = sample(content);
  await blobs.put(digest, data);
  return digest;
}
