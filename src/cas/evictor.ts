// Chooses what to evict when the store is full: what was not asked for the longest time, a slice at a time.
//
// One walk over the index adds up bytes by time of last access, which gives the time before which enough was last used;
// a second walk evicts those. Both run in slices of at most 2 ms of the event loop. Entries that are pinned, being
// written are passed over; leased ones (invocations.ts) do not count at all.

import type { Clock } from "../base/clock.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import type { BlobIndex } from "./blob-index.ts";
import { IndexFlag } from "./blob-index.ts";
import type { IndexSegment } from "./index-segment.ts";
import { diskBytes } from "./records.ts";

const SLICE_MS = 2;
/** Entries that leave in one commit: enough to share its sync, few enough that freeing shows soon. */
const VICTIMS_PER_COMMIT = 512;
/** After a walk that found no victim; entries become old enough meanwhile, one by one. */
const BARREN_MS = 250;
/** A bound for a store in which nearly everything is in use. */
const MAX_ROUNDS = 8;
/** Buckets of the histogram over access times. */
const BUCKETS = 1024;

export interface Victim {
  readonly kind: number;
  readonly words: Uint32Array;
  readonly sizeBytes: number;
  readonly isFile: boolean;
}

/** Where room is wanted: LMDB's pages cannot become files, so files are made room for by files only. */
export type Pool = "inline" | "file" | "any";

export interface EvictorOptions {
  readonly index: BlobIndex;
  /** How many bytes too many there would be in `pool` with `bytes` more; 0 or less when they fit. */
  readonly excessBytes: (pool: Pool, bytes: number) => number;
  /** Bytes above the low mark when those of all entries are above the high mark, else 0. */
  readonly surplusBytes: () => number;
  /** Entries asked for after this access time stay, though uploads have to be refused. */
  readonly newestVictim: () => number;
  /** Numbers of leases that hold, by number: their entries stay whatever their age. */
  readonly leasedNumbers: () => Uint8Array;
  /** False for entries that must stay whatever their age. */
  readonly mayEvict: (victim: Victim) => boolean;
  /** Changes when something stops being pinned. */
  readonly releases: () => number;
  readonly clock: Clock;
  /**
   * Takes entries out of the index at once, except those that may not be evicted any more or were asked for after
   * `cutoff`; resolves with the victims whose room is free.
   */
  readonly evict: (victims: readonly Victim[], cutoff: number) => Promise<readonly Victim[]>;
  readonly metrics: MetricsRegistry;
}

export class Evictor {
  readonly #options: EvictorOptions;
  readonly #evictedEntries: Counter;
  readonly #evictedBytes: Counter;
  #running: Promise<void> | undefined;
  /** As of the beginning of this eviction. */
  #leased: Uint8Array = new Uint8Array(1);
  /** Where nothing was to be had a moment ago: a store full of things in use must not walk its index for every write. */
  readonly #barren = new Map<Pool, { readonly untilMs: number; readonly releases: number }>();

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#evictedEntries = options.metrics.counter("ledge_evicted_entries_total", "Entries evicted to make room");
    this.#evictedBytes = options.metrics.counter("ledge_evicted_bytes_total", "Bytes on disk given back by eviction");
  }

  /** Starts evicting down to the low mark when it is time to, before writers have to wait for it. */
  poke(): void {
    if (this.#running === undefined && this.#options.surplusBytes() > 0 && !this.#isBarren("any")) {
      void this.#runAlone(() => this.#evict("any", this.#options.surplusBytes())); // never rejects
    }
  }

  /** Resolves to true once `bytes` more fit into `pool`, to false when too little may be evicted for them. */
  async makeRoom(pool: Pool, bytes: number): Promise<boolean> {
    const excess = () => this.#options.excessBytes(pool, bytes);
    // A few rounds: pinned entries and what others write meanwhile make one round miss its aim.
    for (let round = 0; round < 4 && excess() > 0 && !this.#isBarren(pool); round++) {
      await this.#runAlone(async () => {
        // The one is a part of the other: their sum would evict twice as much after the limit was lowered.
        const wanted = Math.max(excess(), this.#options.surplusBytes());
        if (excess() > 0 && !this.#isBarren(pool)) await this.#evict(pool, wanted);
      });
    }
    return excess() <= 0;
  }

  /** Evicts entries of so many bytes, whatever the limits say. */
  async evictBytes(bytes: number): Promise<void> {
    await this.#runAlone(() => this.#evict("any", bytes));
  }

  /** Evicts files of so many bytes; for a file system that others fill. */
  async giveBackFiles(bytes: number): Promise<void> {
    if (this.#running === undefined) await this.#runAlone(() => this.#evict("file", bytes));
  }

  /** One walk at a time: two would choose the same victims. */
  async #runAlone(task: () => Promise<void>): Promise<void> {
    while (this.#running !== undefined) await this.#running;
    // A failure is the disk's, and what waits for room reports it.
    const run = task().catch(() => undefined);
    this.#running = run;
    await run;
    this.#running = undefined;
  }

  async #evict(pool: Pool, wantedBytes: number): Promise<void> {
    const newest = this.#options.newestVictim();
    this.#leased = this.#options.leasedNumbers();
    const releases = this.#options.releases();
    let excess = wantedBytes;
    let skipped = 0;
    // What had to be passed over counts as old in the histogram, so the next round looks that much further.
    for (let round = 0; round < MAX_ROUNDS && excess > 0; round++) {
      const cutoff = await this.#findCutoff(pool, excess + skipped);
      const outcome = await this.#evictBefore(pool, Math.min(newest, cutoff), excess);
      excess -= outcome.freed;
      if (cutoff >= newest || (outcome.freed === 0 && outcome.skipped <= skipped)) break;
      skipped = outcome.skipped;
    }
    if (excess < wantedBytes) this.#barren.delete(pool);
    else this.#barren.set(pool, { untilMs: this.#options.clock.monotonicMs() + BARREN_MS, releases });
  }

  #isBarren(pool: Pool): boolean {
    const barren = this.#barren.get(pool);
    if (barren === undefined) return false;
    return this.#options.clock.monotonicMs() < barren.untilMs && this.#options.releases() === barren.releases;
  }

  /** The access time before (and at) which `excess` bytes were last used. */
  async #findCutoff(pool: Pool, excess: number): Promise<number> {
    let [from, to] = await this.#accessRange(pool);
    // Each pass divides the bucket that holds the cutoff, until a bucket is a single tick.
    let below = 0;
    while (to > from) {
      const width = Math.ceil((to - from + 1) / BUCKETS);
      const bytes = await this.#histogram(pool, from, width);
      let bucket = 0;
      while (bucket < BUCKETS - 1 && below + (bytes[bucket] as number) < excess) below += bytes[bucket++] as number;
      [from, to] = [from + bucket * width, Math.min(to, from + (bucket + 1) * width - 1)];
    }
    return from;
  }

  async #accessRange(pool: Pool): Promise<[number, number]> {
    let [oldest, newest] = [Number.POSITIVE_INFINITY, 0];
    await this.#walk(pool, (segment, slot) => {
      const access = segment.accessAt(slot);
      if (access < oldest) oldest = access;
      if (access > newest) newest = access;
    });
    return [oldest, newest];
  }

  async #histogram(pool: Pool, from: number, width: number): Promise<Float64Array> {
    const bytes = new Float64Array(BUCKETS);
    await this.#walk(pool, (segment, slot) => {
      const bucket = Math.floor((segment.accessAt(slot) - from) / width);
      if (bucket < 0 || bucket >= BUCKETS) return;
      bytes[bucket] = (bytes[bucket] as number) + diskBytes(segment.sizeAt(slot), isFile(segment, slot));
    });
    return bytes;
  }

  /** Evicts `excess` bytes of what was last asked for at `cutoff` or before; tells what it had to pass over. */
  async #evictBefore(pool: Pool, cutoff: number, excess: number): Promise<{ freed: number; skipped: number }> {
    const { index, mayEvict } = this.#options;
    let freed = 0;
    let skipped = 0;
    // What is older than the cutoff goes first; of the cutoff's own tick only as much as is needed.
    for (const isChosen of [(access: number) => access < cutoff, (access: number) => access === cutoff]) {
      for (let step = 0; step < index.walkLength && freed < excess; step++) {
        const victims: Victim[] = [];
        let planned = freed;
        index.visit(step, (segment, slot) => {
          if (planned >= excess || victims.length === VICTIMS_PER_COMMIT) return;
          if (!isChosen(segment.accessAt(slot)) || !this.#isCandidate(pool, segment, slot)) return;
          const victim = victimAt(segment, slot);
          const bytes = diskBytes(victim.sizeBytes, victim.isFile);
          if (!mayEvict(victim)) {
            skipped += bytes;
            return;
          }
          victims.push(victim);
          planned += bytes;
        });
        const gone = victims.length === 0 ? 0 : await this.#take(victims, cutoff);
        freed += gone;
        // A full commit may have left more of this segment.
        if (victims.length === VICTIMS_PER_COMMIT && gone > 0) step--;
        await breathe();
      }
    }
    return { freed, skipped };
  }

  async #take(chosen: readonly Victim[], cutoff: number): Promise<number> {
    const gone = await this.#options.evict(chosen, cutoff);
    let bytes = 0;
    for (const victim of gone) bytes += diskBytes(victim.sizeBytes, victim.isFile);
    this.#evictedEntries.add(gone.length);
    this.#evictedBytes.add(bytes);
    return bytes;
  }

  #isCandidate(pool: Pool, segment: IndexSegment, slot: number): boolean {
    return isIn(pool, segment, slot) && this.#leased[segment.leaseAt(slot)] !== 1;
  }

  async #walk(pool: Pool, visitor: (segment: IndexSegment, slot: number) => void): Promise<void> {
    const { index } = this.#options;
    let sliceEndMs = performance.now() + SLICE_MS;
    for (let step = 0; step < index.walkLength; step++) {
      index.visit(step, (segment, slot) => {
        if (this.#isCandidate(pool, segment, slot)) visitor(segment, slot);
      });
      if (performance.now() < sliceEndMs) continue;
      await breathe();
      sliceEndMs = performance.now() + SLICE_MS;
    }
  }
}

function victimAt(segment: IndexSegment, slot: number): Victim {
  const words = new Uint32Array(8);
  segment.readHash(slot, words);
  return { kind: segment.kindAt(slot), words, sizeBytes: segment.sizeAt(slot), isFile: isFile(segment, slot) };
}

function isFile(segment: IndexSegment, slot: number): boolean {
  return (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
}

function isIn(pool: Pool, segment: IndexSegment, slot: number): boolean {
  return pool === "any" || (pool === "file") === isFile(segment, slot);
}

function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
