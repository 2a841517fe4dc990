// How much of the size limit is taken, and by what.
//
// Files take their blocks. LMDB's file takes what it once grew to: its pages are used again for small entries but never
// given back, so small entries have a share of their own, and room inside LMDB counts for them alone.

import { statSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import type { Pool } from "./evictor.ts";

/** The most of the limit that LMDB may grow to; the rest stays for files whatever came first. */
export const INLINE_SHARE = 0.6;
/** Of LMDB's pages, what entries fill after many random inserts and deletes. */
const INDEX_FILE_FILL = 0.75;
/** Of LMDB's map; a commit copies pages before it frees their old versions. */
const MAP_FILL = 0.9;
/** Eviction begins at the high mark, before writers have to wait for it, and ends at the low one, so that it runs seldom. */
const HIGH_MARK = 0.98;
const LOW_MARK = 0.93;
const LOOK_EVERY_MS = 1000;

export interface BudgetOptions {
  readonly maxBytes: number;
  /** What small entries take, as far as entries are counted. */
  readonly inlineBytes: () => number;
  /** What files take, uploads under way included. */
  readonly fileBytes: () => number;
  readonly indexFilePath: string;
  /** What LMDB's file can grow to; less than its share of the limit where address space is short. */
  readonly indexMapBytes: number;
  readonly clock: Clock;
}

export class Budget {
  readonly #options: BudgetOptions;
  #indexFileBytes = 0;
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: BudgetOptions) {
    this.#options = options;
  }

  usedBytes(): number {
    return this.#options.fileBytes() + Math.max(this.#options.inlineBytes(), this.#indexFile());
  }

  /**
   * What counts against the limit. A limit that was lowered may leave an index file beyond its share; it cannot shrink,
   * so it must not take the share of files as well, which would be refused for good.
   */
  #chargedBytes(): number {
    const index = Math.max(this.#options.inlineBytes(), this.#indexFile());
    return this.#options.fileBytes() + Math.min(index, this.#indexShare());
  }

  /** How many bytes too many there would be with `bytes` more in `pool`. */
  excessBytes(pool: Pool, bytes: number): number {
    const { maxBytes, inlineBytes } = this.#options;
    if (pool !== "inline") return this.#chargedBytes() + bytes - maxBytes;
    const wanted = inlineBytes() + bytes;
    const growth = Math.max(0, wanted - this.#indexFile() * INDEX_FILE_FILL);
    const overLimit = growth === 0 ? 0 : this.#chargedBytes() + growth - maxBytes;
    return Math.max(overLimit, wanted - this.#indexShare() * INDEX_FILE_FILL);
  }

  #indexShare(): number {
    return Math.min(this.#options.maxBytes * INLINE_SHARE, this.#options.indexMapBytes * MAP_FILL);
  }

  surplusBytes(): number {
    const { maxBytes, inlineBytes, fileBytes } = this.#options;
    const live = inlineBytes() + fileBytes();
    return live > maxBytes * HIGH_MARK ? live - maxBytes * LOW_MARK : 0;
  }

  #indexFile(): number {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#lookedAtMs >= LOOK_EVERY_MS) {
      this.#lookedAtMs = nowMs;
      this.#indexFileBytes = (statSync(this.#options.indexFilePath, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
    }
    return this.#indexFileBytes;
  }
}
