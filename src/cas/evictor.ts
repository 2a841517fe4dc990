// Chooses what to evict when the store is full: what was not asked for the longest time, a slice at a time.
//
// One walk over the index adds up bytes by time of last access, which gives the time before which enough was last used;
// a second walk evicts those. Both run in slices of at most 2 ms of the event loop. Entries that are pinned, being
// written or leased are passed over.

import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import type { BlobIndex } from "./blob-index.ts";
import { IndexFlag } from "./blob-index.ts";
import type { IndexSegment } from "./index-segment.ts";
import { diskBytes } from "./records.ts";

const SLICE_MS = 2;
/** Entries that leave in one commit: enough to share its sync, few enough that freeing shows soon. */
const VICTIMS_PER_COMMIT = 512;
/** Buckets of the histogram over access times. */
const BUCKETS = 1024;

export interface Victim {
  readonly kind: number;
  readonly words: Uint32Array;
  readonly sizeBytes: number;
  readonly isFile: boolean;
}

export interface EvictorOptions {
  readonly index: BlobIndex;
  readonly maxBytes: number;
  /** Bytes taken now, counting only what eviction can give back. */
  readonly usedBytes: () => number;
  /** False for entries that must stay whatever their age. */
  readonly mayEvict: (victim: Victim) => boolean;
  /**
   * Takes entries out of the index at once, except those that may not be evicted any more or were asked for after
   * `cutoff`; resolves with the victims whose room is free.
   */
  readonly evict: (victims: readonly Victim[], cutoff: number) => Promise<readonly Victim[]>;
  readonly metrics: MetricsRegistry;
}

/** Eviction begins here, before writers have to wait for it, and goes on to the low mark, so that it runs seldom. */
const HIGH_MARK = 0.98;
const LOW_MARK = 0.93;

export class Evictor {
  readonly #options: EvictorOptions;
  readonly #evictedEntries: Counter;
  readonly #evictedBytes: Counter;
  #running: Promise<void> | undefined;
  /** Bytes that somebody wants beyond the low mark. */
  #wantedBytes = 0;

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#evictedEntries = options.metrics.counter("ledge_evicted_entries_total", "Entries evicted to make room");
    this.#evictedBytes = options.metrics.counter("ledge_evicted_bytes_total", "Bytes on disk given back by eviction");
  }

  get isAboveHighMark(): boolean {
    return this.#options.usedBytes() > this.#options.maxBytes * HIGH_MARK;
  }

  /** Starts evicting when it is time to; never waits. */
  poke(): void {
    if (this.isAboveHighMark) void this.#run(); // never rejects
  }

  /** Resolves to true once `bytes` more fit below the limit, to false when nothing more can be evicted. */
  async makeRoom(bytes: number): Promise<boolean> {
    const { maxBytes, usedBytes } = this.#options;
    if (bytes > maxBytes) return false;
    if (usedBytes() + bytes <= maxBytes) return true;
    this.#wantedBytes = Math.max(this.#wantedBytes, bytes);
    await this.#run();
    if (usedBytes() + bytes <= maxBytes) return true;
    // The run may have begun before this was asked for.
    this.#wantedBytes = Math.max(this.#wantedBytes, bytes);
    await this.#run();
    return usedBytes() + bytes <= maxBytes;
  }

  /** Evicts until `bytes` are given back; for a file system that others fill. */
  async giveBack(bytes: number): Promise<void> {
    await this.#evictDownTo(this.#options.usedBytes() - bytes);
  }

  #run(): Promise<void> {
    this.#running ??= this.#evictDownTo(this.#target()).finally(() => {
      this.#running = undefined;
      this.#wantedBytes = 0;
    });
    return this.#running;
  }

  #target(): number {
    const { maxBytes } = this.#options;
    return Math.max(0, Math.min(maxBytes * LOW_MARK, maxBytes - this.#wantedBytes));
  }

  async #evictDownTo(targetBytes: number): Promise<void> {
    // A few rounds: coarse buckets, pinned entries and what is written meanwhile make one round miss its aim.
    for (let round = 0; round < 4; round++) {
      const excess = this.#options.usedBytes() - targetBytes;
      if (excess <= 0) return;
      const cutoff = await this.#findCutoff(excess);
      const freed = await this.#evictBefore(cutoff, excess).catch(() => 0); // the disk's failure is its writers' to report
      if (freed === 0) return;
    }
  }

  /** The access time before (and at) which `excess` bytes were last used. */
  async #findCutoff(excess: number): Promise<number> {
    let [from, to] = await this.#accessRange();
    // Each pass divides the bucket that holds the cutoff, until a bucket is a single tick.
    let below = 0;
    while (to > from) {
      const width = Math.ceil((to - from + 1) / BUCKETS);
      const bytes = await this.#histogram(from, width);
      let bucket = 0;
      while (bucket < BUCKETS - 1 && below + (bytes[bucket] as number) < excess) below += bytes[bucket++] as number;
      [from, to] = [from + bucket * width, Math.min(to, from + (bucket + 1) * width - 1)];
    }
    return from;
  }

  async #accessRange(): Promise<[number, number]> {
    let [oldest, newest] = [Number.POSITIVE_INFINITY, 0];
    await this.#walk((segment, slot) => {
      const access = segment.access[slot] as number;
      if (access < oldest) oldest = access;
      if (access > newest) newest = access;
    });
    return [oldest, newest];
  }

  async #histogram(from: number, width: number): Promise<Float64Array> {
    const bytes = new Float64Array(BUCKETS);
    await this.#walk((segment, slot) => {
      const bucket = Math.floor(((segment.access[slot] as number) - from) / width);
      if (bucket < 0 || bucket >= BUCKETS) return;
      bytes[bucket] = (bytes[bucket] as number) + diskBytes(segment.sizeAt(slot), isFile(segment, slot));
    });
    return bytes;
  }

  async #evictBefore(cutoff: number, excess: number): Promise<number> {
    let freed = 0;
    // What is older than the cutoff goes first; of the cutoff's own tick only as much as is needed.
    for (const isChosen of [(access: number) => access < cutoff, (access: number) => access === cutoff]) {
      let victims: Victim[] = [];
      let planned = freed;
      const { index } = this.#options;
      for (let step = 0; step < index.walkLength && planned < excess; step++) {
        index.visit(step, (segment, slot) => {
          if (planned >= excess || !isChosen(segment.access[slot] as number)) return;
          const victim = victimAt(segment, slot);
          if (!this.#options.mayEvict(victim)) return;
          victims.push(victim);
          planned += diskBytes(victim.sizeBytes, victim.isFile);
        });
        while (victims.length >= VICTIMS_PER_COMMIT) {
          freed += await this.#evict(victims.slice(0, VICTIMS_PER_COMMIT), cutoff);
          victims = victims.slice(VICTIMS_PER_COMMIT);
        }
        await breathe();
      }
      if (victims.length > 0) freed += await this.#evict(victims, cutoff);
      if (freed >= excess) break;
    }
    return freed;
  }

  async #evict(chosen: readonly Victim[], cutoff: number): Promise<number> {
    const gone = await this.#options.evict(chosen, cutoff);
    let bytes = 0;
    for (const victim of gone) bytes += diskBytes(victim.sizeBytes, victim.isFile);
    this.#evictedEntries.add(gone.length);
    this.#evictedBytes.add(bytes);
    return bytes;
  }

  async #walk(visitor: (segment: IndexSegment, slot: number) => void): Promise<void> {
    const { index } = this.#options;
    let sliceEndMs = performance.now() + SLICE_MS;
    for (let step = 0; step < index.walkLength; step++) {
      index.visit(step, visitor);
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

function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
