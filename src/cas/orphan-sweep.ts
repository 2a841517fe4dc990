// Removes files that no entry names: what a crash left between a rename and its commit, or before an unlink.
//
// Only names of the store's own form are touched, and none whose writer is at work. Runs once after each start.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { hexToWords } from "../digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, functionName } from "../digest/digest.ts";
import type { StoreCore } from "./store-core.ts";

const HASH = /^[0-9a-f]{64}$/;

/** Returns how many files were removed. */
export async function sweepOrphans(core: StoreCore, isStopped: () => boolean): Promise<number> {
  const words = new Uint32Array(8);
  let removed = 0;
  for (const fn of DIGEST_FUNCTIONS) {
    const parent = join(core.files.filesDirectory, functionName(fn).toLowerCase());
    for (const folder of await list(core, parent)) {
      for (const name of await list(core, join(parent, folder))) {
        if (isStopped()) return removed;
        if (!HASH.test(name) || !name.startsWith(folder)) continue;
        hexToWords(name, words, 0);
        if (core.table.index.find(fn, words, 0) >= 0 || core.locks.isHeld(`${fn}:${name}`)) continue;
        removed++;
        await core.files.unlinkAfter(Promise.resolve(), fn, name);
      }
    }
  }
  return removed;
}

async function list(core: StoreCore, path: string): Promise<string[]> {
  return core.files.run(() => readdir(path)).catch(() => []); // not a folder of ours, or gone: nothing to sweep
}
