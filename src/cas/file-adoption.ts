// Gives entries back to files that lost theirs, after the index had to be made anew: each is hashed, and kept when it is
// what its name says.
//
// Until it is done a record in the index says so, because the sweep of orphaned files would remove them otherwise.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { hexToWords } from "../digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, functionName, type DigestFunction } from "../digest/digest.ts";
import type { KeyValueStore } from "../kv/key-value-store.ts";
import type { StoreCore } from "./store-core.ts";

const PENDING_KEY = Uint8Array.from([0x72]);
const HASH = /^[0-9a-f]{64}$/;

export function isAdoptionPending(store: KeyValueStore): boolean {
  return store.get(PENDING_KEY) !== undefined;
}

export function requestAdoption(store: KeyValueStore): Promise<void> {
  return store.write([{ type: "put", key: PENDING_KEY, value: Uint8Array.from([1]) }]);
}

export interface AdoptionResult {
  readonly adopted: number;
  readonly quarantined: number;
}

export async function adoptFiles(
  core: StoreCore,
  store: KeyValueStore,
  isStopped: () => boolean,
): Promise<AdoptionResult> {
  const result = { adopted: 0, quarantined: 0 };
  for (const fn of DIGEST_FUNCTIONS) {
    const parent = join(core.files.filesDirectory, functionName(fn).toLowerCase());
    for (const folder of await readdir(parent)) {
      const names = await readdir(join(parent, folder)).catch((): string[] => []); // not a folder of ours
      for (const hash of names) {
        if (isStopped()) return result;
        if (HASH.test(hash) && hash.startsWith(folder)) await adopt(core, fn, hash, result);
      }
    }
  }
  await store.write([{ type: "delete", key: PENDING_KEY }]);
  return result;
}

async function adopt(
  core: StoreCore,
  fn: DigestFunction,
  hash: string,
  result: { adopted: number; quarantined: number },
) {
  const words = new Uint32Array(8);
  hexToWords(hash, words, 0);
  await core.locks.run(`${fn}:${hash}`, async () => {
    if (core.table.index.find(fn, words, 0) >= 0) return;
    const found = await core.ingest.hashFile(fn, core.files.pathOf(fn, hash));
    if (found.hash === hash) {
      await core.table.putFile({ kind: fn, words, offset: 0 }, found.sizeBytes, found.checksums);
      result.adopted++;
    } else {
      await core.files.quarantineAfter(Promise.resolve(), fn, hash);
      result.quarantined++;
    }
  });
}
