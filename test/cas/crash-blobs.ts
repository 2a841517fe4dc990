// What the blobs and results of the crash test hold, derived from a seed and a number by parent and child alike.

import { createHash } from "node:crypto";
import type { ActionKey } from "../../src/action-cache/action-cache.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, formatDigest, type Digest } from "../../src/digest/digest.ts";

export function blobOf(seed: string, number: number): { digest: Digest; data: Uint8Array } {
  const bits = hash(`${seed} size ${number}`).readUInt32LE(0);
  // Half of them tiny, some around the inline limit, some of several slabs.
  const limits = [200, 2000, 60_000, 80_000, 300_000, 1_700_000];
  const limit = limits[bits % 16 < 8 ? 0 : bits % limits.length] ?? 200;
  const sizeBytes = 1 + ((bits >>> 4) % limit);
  const data = Buffer.alloc(sizeBytes, hash(`${seed} blob ${number}`));
  const fn = number % 5 === 0 ? DigestFunction.BLAKE3 : DigestFunction.SHA256;
  return { digest: digestOf(fn, data), data };
}

export function resultKey(seed: string, number: number): ActionKey {
  return { instanceName: "crash", fn: DigestFunction.SHA256, hash: hash(`${seed} action ${number}`).toString("hex") };
}

export function resultOf(seed: string, number: number): Uint8Array {
  return Buffer.from([0, 1, 2].map((index) => formatDigest(blobOf(seed, number + index).digest)).join("\n"));
}

function hash(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
