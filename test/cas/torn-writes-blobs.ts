// What the blobs and results of the torn-writes test hold, derived from a seed and a number by parent and child alike.

import { createHash } from "node:crypto";
import type { ActionKey } from "../../src/action-cache/action-cache.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { ActionResult } from "../../src/proto/remote_execution.ts";

/** Each action has a result that names so many blobs, and a second version of it. */
export const BLOBS_PER_ACTION = 3;
export const ACTIONS_BEFORE_EVICTION = 5;
export const ACTIONS = 10;

/** One action in three speaks BLAKE3. */
export function functionOf(action: number): DigestFunction {
  return action % 3 === 2 ? DigestFunction.BLAKE3 : DigestFunction.SHA256;
}

const known = new Map<string, { digest: Digest; data: Uint8Array }>();

/** Two small ones and a file for each action. */
export function blobOf(seed: string, number: number): { digest: Digest; data: Uint8Array } {
  const name = `${seed} blob ${number}`;
  const found = known.get(name);
  if (found !== undefined) return found;
  const random = hash(name);
  const limit = [300, 30_000, 120_000][number % BLOBS_PER_ACTION] ?? 300;
  const least = number % BLOBS_PER_ACTION === 2 ? 65_536 : 1;
  const data = Buffer.alloc(least + (random.readUInt32LE(0) % limit), random);
  const fn = functionOf(Math.floor(number / BLOBS_PER_ACTION));
  let digest = digestOf(fn, data);
  // Files share few folders, so that one upload finds the folder that another is making.
  for (let salt = 0; least > 1 && !/^[01]7/.test(digest.hash); digest = digestOf(fn, data))
    data.writeUInt32LE(salt++, 0);
  const blob = { digest, data };
  known.set(name, blob);
  return blob;
}

export function resultKey(seed: string, action: number): ActionKey {
  return { instanceName: "", fn: functionOf(action), hash: hash(`${seed} action ${action}`).toString("hex") };
}

export function resultOf(seed: string, action: number, version: number): Uint8Array {
  const outputFiles = Array.from({ length: BLOBS_PER_ACTION }, (_, index) => ({
    path: `out/${index}`,
    digest: blobOf(seed, action * BLOBS_PER_ACTION + index).digest,
  }));
  return ActionResult.encode({ outputFiles, exitCode: version });
}

function hash(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
