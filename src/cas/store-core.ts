// What the local stores share: entries, files, ingest threads, room, locks. Blobs and values differ only in their names.
//
// Invariant: bytes are durable and whole before their entry exists; an entry is gone before its bytes are.

import type { Clock } from "../base/clock.ts";
import { formatBytes } from "../base/units.ts";
import type { IngestPool } from "../compute/ingest-pool.ts";
import { wordsToHex } from "../digest/digest-batch.ts";
import type { DigestFunction } from "../digest/digest.ts";
import type { KeyValueStore } from "../kv/key-value-store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import { TICK_MS } from "./access-clock.ts";
import { Budget } from "./budget.ts";
import { EntryTable, type EntryName } from "./entry-table.ts";
import { Evictor, type Pool, type Victim } from "./evictor.ts";
import type { FileStore } from "./file-store.ts";
import { NameLocks } from "./name-locks.ts";
import { Pins } from "./pins.ts";
import { noRoom, type SpaceGuard } from "./space-guard.ts";

/** Of the size limit, for blobs that invocations hold: the other half keeps everybody else working. */
const LEASED_SHARE = 0.5;

export interface StoreCoreOptions {
  readonly store: KeyValueStore;
  readonly files: FileStore;
  readonly ingest: IngestPool;
  readonly guard: SpaceGuard;
  readonly maxSizeBytes: number;
  /** LMDB's file, whose size counts as it is. */
  readonly indexFilePath: string;
  /** What LMDB's file can grow to. */
  readonly indexMapBytes: number;
  /** Entries asked for within this time are not evicted; uploads are refused instead. */
  readonly protectRecentMs: number;
  /** How long what an invocation touched stays after its last call; 0 = no leases. */
  readonly leaseMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
}

export class StoreCore {
  readonly table: EntryTable;
  readonly files: FileStore;
  readonly ingest: IngestPool;
  readonly pins = new Pins();
  readonly locks = new NameLocks();
  readonly clock: Clock;
  readonly maxSizeBytes: number;
  readonly #guard: SpaceGuard;
  readonly #budget: Budget;
  readonly #evictor: Evictor;
  readonly #logger: Logger;
  readonly #damaged: Counter;
  /** Bytes received by uploads and not yet entries. */
  #uploadingBytes = 0;

  constructor(options: StoreCoreOptions) {
    this.table = new EntryTable({ ...options, leaseBudgetBytes: options.maxSizeBytes * LEASED_SHARE });
    this.files = options.files;
    this.ingest = options.ingest;
    this.clock = options.clock;
    this.maxSizeBytes = options.maxSizeBytes;
    this.#guard = options.guard;
    this.#logger = options.logger;
    this.#damaged = options.metrics.counter(
      "ledge_damaged_entries_total",
      "Entries dropped because their bytes were damaged",
    );
    this.#budget = new Budget({
      maxBytes: options.maxSizeBytes,
      inlineBytes: () => this.table.inlineDiskBytes,
      fileBytes: () => this.table.diskBytes - this.table.inlineDiskBytes + this.#uploadingBytes,
      indexFilePath: options.indexFilePath,
      indexMapBytes: options.indexMapBytes,
      clock: options.clock,
    });
    this.#evictor = new Evictor({
      index: this.table.index,
      excessBytes: (pool, bytes) => this.#budget.excessBytes(pool, bytes),
      surplusBytes: () => this.#budget.surplusBytes(),
      newestVictim: () => this.table.accessClock.now() - Math.ceil(options.protectRecentMs / TICK_MS),
      leasedNumbers: () => this.table.invocations.leasedNumbers(),
      mayEvict: (victim) => this.#mayEvict(victim),
      releases: () => this.pins.releases,
      clock: options.clock,
      evict: (victims, cutoff) => this.#evict(victims, cutoff),
      metrics: options.metrics,
    });
  }

  /** What the store takes on disk. */
  get usedBytes(): number {
    return this.#budget.usedBytes();
  }

  /** Returns when `bytes` more fit; throws RESOURCE_EXHAUSTED when they do not even after eviction. */
  async reserve(pool: Pool, bytes: number): Promise<void> {
    this.#assertDiskHasRoom();
    if (this.#budget.excessBytes(pool, bytes) > 0 && !(await this.#evictor.makeRoom(pool, bytes))) {
      throw noRoom(
        `${formatBytes(bytes)} more do not fit: ${formatBytes(this.usedBytes)} of ${formatBytes(this.maxSizeBytes)} ` +
          "(--max-size) are taken and in use or were asked for just now",
      );
    }
    this.#evictor.poke();
  }

  /** True when reserve() would have nothing to do: spares small writes a turn. */
  hasRoomFor(pool: Pool, bytes: number): boolean {
    return (
      this.#guard.missingBytes() === 0 &&
      this.#budget.excessBytes(pool, bytes) <= 0 &&
      this.#budget.surplusBytes() === 0
    );
  }

  /** As reserve(), and counts the bytes as taken until they are given back. */
  async reserveForUpload(bytes: number): Promise<void> {
    await this.reserve("file", bytes);
    this.#uploadingBytes += bytes;
  }

  giveBackUpload(bytes: number): void {
    this.#uploadingBytes -= bytes;
  }

  /** Evicts what was not asked for the longest time until `bytes` are given back, or nothing more may be evicted. */
  async evict(bytes: number): Promise<void> {
    await this.#evictor.evictBytes(bytes);
  }

  /** Evicts until small entries and files are each within their share of the limit, as far as they may go. */
  async evictToLimits(): Promise<void> {
    // What is too much of both goes by age first: the pool that is asked first would give all of it otherwise.
    const surplusBytes = this.#budget.surplusBytes();
    if (surplusBytes > 0) await this.#evictor.evictBytes(surplusBytes);
    for (const pool of ["inline", "file"] as const) await this.#evictor.makeRoom(pool, 0);
  }

  /** Drops an entry whose bytes turned out damaged or gone; it is absent from now on. Never rejects. */
  dropDamaged(name: EntryName, reason: string): Promise<void> {
    this.#damaged.add();
    const hash = wordsToHex(name.words, name.offset);
    this.#logger.error("dropping a damaged entry", { kind: name.kind, hash, reason });
    // The lock keeps a writer of the same name from storing it while it is taken away.
    return this.locks
      .run(lockName(name), async () => {
        const victim = victimOf(this.table, name);
        const removed = this.table.remove([{ kind: victim.kind, words: victim.words, offset: 0 }]);
        if (victim.isFile) void this.files.quarantineAfter(removed, victim.kind as DigestFunction, hash); // never rejects
        await removed;
      })
      .catch((error: unknown) => this.#logger.error("cannot drop a damaged entry", { hash, reason: String(error) }));
  }

  /** Removes entries and frees their room; resolves when their records are gone from the disk. */
  async removeEntries(victims: readonly Victim[]): Promise<void> {
    const removed = this.table.remove(victims.map((victim) => ({ kind: victim.kind, words: victim.words, offset: 0 })));
    for (const victim of victims) {
      if (!victim.isFile) continue;
      void this.files.unlinkAfter(removed, victim.kind as DigestFunction, wordsToHex(victim.words, 0)); // never rejects
    }
    await removed;
  }

  #assertDiskHasRoom(): void {
    const missingBytes = this.#guard.missingBytes();
    if (missingBytes === 0) return;
    void this.#evictor.giveBackFiles(missingBytes); // never rejects; writers come back later
    this.#guard.assertRoom();
  }

  #isFree(lease: number, victim: Victim): boolean {
    return !this.table.invocations.isLeased(lease) && this.#mayEvict(victim);
  }

  #mayEvict(victim: Victim): boolean {
    if (!this.table.isLoaded) return false;
    const hash = wordsToHex(victim.words, 0);
    if (this.locks.isHeld(`${victim.kind}:${hash}`)) return false;
    return !this.pins.isPinned(`${victim.kind}:${hash}:${victim.sizeBytes}`);
  }

  async #evict(victims: readonly Victim[], cutoff: number): Promise<readonly Victim[]> {
    const { index } = this.table;
    const chosen = victims.filter((victim) => {
      const slot = index.find(victim.kind, victim.words, 0);
      return slot >= 0 && index.at.accessAt(slot) <= cutoff && this.#isFree(index.at.leaseAt(slot), victim);
    });
    if (chosen.length > 0) await this.removeEntries(chosen);
    return chosen;
  }
}

export function lockName(name: EntryName): string {
  return `${name.kind}:${wordsToHex(name.words, name.offset)}`;
}

function victimOf(table: EntryTable, name: EntryName): Victim {
  const words = name.words.slice(name.offset, name.offset + 8);
  const slot = table.find(name.kind, words, 0);
  if (slot < 0) return { kind: name.kind, words, sizeBytes: 0, isFile: false };
  const { at } = table.index;
  return { kind: name.kind, words, sizeBytes: at.sizeAt(slot), isFile: (at.flagsAt(slot) & 1) !== 0 };
}
