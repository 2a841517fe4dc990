// Hashes what is stored again and drops what is not what its name says: in idle time at a bounded rate, or all at once.
//
// A damaged file goes to quarantine, a damaged small entry is removed. Action results that name it stay: the completeness
// check finds them incomplete from then on, and nobody is told of them.

import type { Clock } from "../base/clock.ts";
import { hashHex } from "../compute/hash.ts";
import { wordsToHex } from "../digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, type DigestFunction } from "../digest/digest.ts";
import { IndexFlag } from "./blob-index.ts";
import type { EntryName } from "./entry-table.ts";
import type { StoreCore } from "./store-core.ts";

export interface ScrubOptions {
  /** How much is read each second; absent: as fast as it goes. */
  readonly bytesPerSecond?: number;
  /** Looks only at what was asked for, or stored, at this access time or later. */
  readonly sinceAccess?: number;
  readonly signal?: AbortSignal;
}

export interface ScrubReport {
  readonly checkedEntries: number;
  readonly checkedBytes: number;
  /** Dropped, each as `kind:hash`. */
  readonly damaged: readonly string[];
}

interface Candidate extends EntryName {
  readonly isFile: boolean;
  readonly sizeBytes: number;
}

export async function scrub(core: StoreCore, clock: Clock, options: ScrubOptions = {}): Promise<ScrubReport> {
  const damaged: string[] = [];
  const pace = new Pace(clock, options.bytesPerSecond);
  let checkedEntries = 0;
  let checkedBytes = 0;
  for (let step = 0; step < core.table.index.walkLength; step++) {
    for (const candidate of candidatesOf(core, step, options.sinceAccess ?? 0)) {
      if (options.signal?.aborted === true) return { checkedEntries, checkedBytes, damaged };
      await pace.wait(candidate.sizeBytes, options.signal);
      const reason = await findDamage(core, candidate);
      checkedEntries++;
      checkedBytes += candidate.sizeBytes;
      if (reason === undefined) continue;
      damaged.push(`${candidate.kind}:${wordsToHex(candidate.words, 0)}`);
      await core.dropDamaged(candidate, reason);
    }
  }
  return { checkedEntries, checkedBytes, damaged };
}

function candidatesOf(core: StoreCore, step: number, sinceAccess: number): Candidate[] {
  const candidates: Candidate[] = [];
  core.table.index.visit(step, (segment, slot) => {
    if (segment.accessAt(slot) < sinceAccess) return;
    const words = new Uint32Array(8);
    segment.readHash(slot, words);
    const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
    candidates.push({ kind: segment.kindAt(slot), words, offset: 0, isFile, sizeBytes: segment.sizeAt(slot) });
  });
  return candidates;
}

/** What is wrong with the entry, or undefined; one that was evicted or is being written meanwhile is fine. */
async function findDamage(core: StoreCore, candidate: Candidate): Promise<string | undefined> {
  const { table } = core;
  const hash = wordsToHex(candidate.words, 0);
  const slot = table.index.find(candidate.kind, candidate.words, 0);
  if (slot < 0) return undefined;
  if (!candidate.isFile) {
    const data = table.readInline(slot);
    if (data === undefined) return "its bytes do not match their checksum";
    const fn = DIGEST_FUNCTIONS.find((known) => known === candidate.kind);
    return fn === undefined || hashHex(fn, data) === hash ? undefined : "its bytes have another hash";
  }
  const fn = candidate.kind as DigestFunction;
  try {
    const found = await core.ingest.hashFile(fn, core.files.pathOf(fn, hash));
    if (found.hash === hash && found.sizeBytes === candidate.sizeBytes) return undefined;
    return `its file has the hash ${found.hash}`;
  } catch (error) {
    // Evicted while it was read?
    return table.index.find(fn, candidate.words, 0) < 0 ? undefined : `its file cannot be read: ${String(error)}`;
  }
}

/** Lets bytes pass at a rate, in steps of a second. */
class Pace {
  readonly #clock: Clock;
  readonly #bytesPerSecond: number;
  #allowance = 0;

  constructor(clock: Clock, bytesPerSecond: number | undefined) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond ?? Number.POSITIVE_INFINITY;
  }

  async wait(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#bytesPerSecond === Number.POSITIVE_INFINITY) return;
    while (this.#allowance < 0 && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const cancel = this.#clock.schedule(1000, finish);
        signal?.addEventListener("abort", finish, { once: true });
        function finish() {
          cancel();
          signal?.removeEventListener("abort", finish);
          resolve();
        }
      });
      this.#allowance += this.#bytesPerSecond;
    }
    this.#allowance -= bytes;
  }
}
