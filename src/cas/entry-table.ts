// Entries: the index in memory and its records in the key-value store, changed together.
//
// Invariant: an entry is in the index only when its record and its bytes are durable, and leaves the index before its
// record leaves the disk. Entries are whole or absent to everybody, at every moment.
// At start the records are read in slices; a look-up before that has ended reads the rest of them first, unless it finds
// a blob.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../telemetry/log.ts";
import type { KeyValueEntry, KeyValueStore } from "../kv/key-value-store.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { AccessClock } from "./access-clock.ts";
import { BlobIndex, IndexFlag } from "./blob-index.ts";
import { MAX_40_BIT } from "./index-segment.ts";
import { Invocations } from "./invocations.ts";
import { currentLease, NO_LEASE } from "./lease-context.ts";
import { decodeLeases, LEASES_KEY } from "./lease-record.ts";
import { ReadEntry, readGroup } from "./entry-groups.ts";
import { EntryRecords, type NewEntry, type Placed } from "./entry-records.ts";
import { ValueKind } from "./value-store.ts";
import {
  checksumsKey,
  copyData,
  COUNT_KEY,
  dataKey,
  decodeChecksums,
  decodeData,
  decodeNumber,
  diskBytes,
  encodeChecksums,
  GROUP_TABLE,
  NEXT_PLACE_KEY,
} from "./records.ts";

/** How long a slice of the scan at start may keep the event loop. */
const LOAD_SLICE_MS = 4;

export interface EntryTableOptions {
  readonly store: KeyValueStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  /** How long what an invocation touched stays after its last call; 0 = no leases. */
  readonly leaseMs: number;
  readonly leaseBudgetBytes: number;
}

/** The hash of an entry: 8 words at `offset`. */
export interface EntryName {
  readonly kind: number;
  readonly words: Uint32Array;
  readonly offset: number;
}

export interface InlineEntry {
  readonly name: EntryName;
  readonly data: Uint8Array;
}

export class EntryTable {
  readonly index: BlobIndex;
  readonly #store: KeyValueStore;
  readonly #logger: Logger;
  readonly accessClock: AccessClock;
  readonly invocations: Invocations;
  readonly #records: EntryRecords;
  #state: "loading" | "loaded" | "unreadable" = "loading";
  /** Why the records cannot be read to their end. */
  #failure: unknown;
  #unread: Iterator<KeyValueEntry> | undefined;
  readonly #read = new ReadEntry();
  readonly #damagedKeys: Uint8Array[] = [];
  /** Of two entries with one name, which a crash may leave, the earlier one. */
  readonly #replaced: Placed[] = [];
  #stopped = false;
  #diskBytes = 0;
  #inlineDiskBytes = 0;
  #damagedRecords = 0;

  constructor(options: EntryTableOptions) {
    this.#store = options.store;
    this.index = new BlobIndex({ expectedCount: expectedCount(options.store) });
    this.#logger = options.logger;
    this.accessClock = new AccessClock(options.clock);
    this.invocations = new Invocations({
      clock: options.clock,
      leaseMs: options.leaseMs,
      budgetBytes: options.leaseBudgetBytes,
      renumber: (numbers) => this.index.renumberLeases(numbers),
      saved: decodeLeases(options.store.get(LEASES_KEY)),
      metrics: options.metrics,
    });
    this.#records = new EntryRecords(options.store);
  }

  /** What all entries take on disk. */
  get diskBytes(): number {
    return this.#diskBytes;
  }

  /** The part of it inside the key-value store, whose file never shrinks. */
  get inlineDiskBytes(): number {
    return this.#inlineDiskBytes;
  }

  get isLoaded(): boolean {
    return this.#state === "loaded";
  }

  get damagedRecords(): number {
    return this.#damagedRecords;
  }

  /** The slot of the entry, with its segment in `index.at`, or -1. */
  find(kind: number, words: Uint32Array, offset: number): number {
    const slot = this.index.find(kind, words, offset);
    if (this.#state !== "loading") return slot;
    // Of a value the later one may be unread, where a crash left two; two blobs of one name are the same.
    if (slot >= 0 && kind < ValueKind.ACTION_RESULT) return slot;
    this.#readAll();
    return this.index.find(kind, words, offset);
  }

  /** Notes that the entry in `slot` of `index.at` was asked for at `tick`, for the invocation with number `lease`. */
  touch(slot: number, tick: number, lease: number = currentLease()): void {
    const segment = this.index.at;
    if (lease !== NO_LEASE && segment.leaseAt(slot) !== lease) this.#lease(slot, lease);
    if (segment.accessAt(slot) === tick) return;
    segment.setAccess(slot, tick);
    segment.setFlags(slot, segment.flagsAt(slot) | IndexFlag.REUSED | IndexFlag.TOUCHED);
  }

  /** Stores the bytes of a small entry; replaces an older one of the same name. */
  putInline(name: EntryName, data: Uint8Array): Promise<void> {
    return this.putAllInline([{ name, data }]);
  }

  /** As putInline(), for several of different names in one step: all of them or none. */
  putAllInline(entries: readonly InlineEntry[]): Promise<void> {
    const access = this.accessClock.now();
    return this.#put(
      entries.map(({ name: { kind, words, offset }, data }) => {
        return { kind, words, offset, access, sizeBytes: data.length, value: data, isFile: false };
      }),
    );
  }

  /** Stores the record of a file that is already durable under its name. */
  putFile({ kind, words, offset }: EntryName, sizeBytes: number, checksums: Uint32Array): Promise<void> {
    const value = encodeChecksums(checksums);
    return this.#put([{ kind, words, offset, access: this.accessClock.now(), sizeBytes, value, isFile: true }]);
  }

  /** The bytes of the small entry in `slot` of `index.at`, owned by the caller; undefined when they are damaged. */
  readInline(slot: number): Uint8Array | undefined {
    const segment = this.index.at;
    const value = this.#store.borrow(dataKey(segment.placeAt(slot)));
    return value === undefined ? undefined : decodeData(value, segment.sizeAt(slot));
  }

  /** As readInline(), into `target` at `offset`; false when they are damaged. */
  copyInline(slot: number, target: Buffer, offset: number): boolean {
    const segment = this.index.at;
    const value = this.#store.borrow(dataKey(segment.placeAt(slot)));
    return value !== undefined && copyData(value, segment.sizeAt(slot), target, offset);
  }

  /** The checksums of a file's pieces; undefined when they are damaged or absent. */
  readChecksums(name: EntryName): Uint32Array | undefined {
    const value = this.#store.get(checksumsKey(name.kind, name.words, name.offset));
    return value === undefined ? undefined : decodeChecksums(value);
  }

  /** Takes entries out of the index now and off the disk durably, in one commit. Names must be distinct. */
  remove(names: readonly EntryName[]): Promise<void> {
    // What is unread may hold another of the same name.
    if (this.#state === "loading") this.#readAll();
    const removed = [];
    for (const name of names) {
      const slot = this.find(name.kind, name.words, name.offset);
      if (slot < 0) continue;
      removed.push({ place: this.index.at.placeAt(slot), flags: this.index.at.flagsAt(slot), name });
      this.#account(slot, -1);
      this.index.remove(slot);
    }
    return this.#records.remove(removed);
  }

  /** Reads all records into the index, in slices that let the event loop breathe. */
  async load(): Promise<void> {
    while (!this.#readFor(LOAD_SLICE_MS)) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#stopped) return this.#endReading();
    }
    if (this.#state === "unreadable") throw this.#failure;
    this.#damagedRecords = this.#damagedKeys.length;
    // A disk that is full or read-only serves what it has; the next start tries again.
    await this.#removeLeftovers().catch((error: unknown) =>
      this.#logger.warn("cannot remove index records that are not needed", { reason: String(error) }),
    );
  }

  /** Resolves when nothing is being written. */
  drain(): Promise<void> {
    return this.#records.drain();
  }

  /** Ends a scan under way. */
  stop(): void {
    this.#stopped = true;
  }

  async #removeLeftovers(): Promise<void> {
    // First, and not behind a commit: what is evicted from here on may be the later one of two.
    if (this.#replaced.length > 0) await this.#records.remove(this.#replaced.splice(0));
    if (this.#damagedKeys.length === 0) return;
    this.#logger.warn("removing damaged index records", { count: this.#damagedKeys.length });
    await this.#store.write(this.#damagedKeys.splice(0).map((key) => ({ type: "delete", key })));
  }

  /** What is unread makes the event loop wait: nobody is told of an absence that is none. */
  #readAll(): void {
    this.#readFor(Number.POSITIVE_INFINITY);
  }

  /** False while there is more to read. */
  #readFor(durationMs: number): boolean {
    if (this.#state !== "loading") return true;
    const endMs = performance.now() + durationMs;
    const insert = () => this.#insertRead();
    try {
      this.#unread ??= this.#store.range(GROUP_TABLE)[Symbol.iterator]();
      for (let next = this.#unread.next(); next.done !== true; next = this.#unread.next()) {
        const { key, value } = next.value;
        if (!readGroup(key, value, this.#read, insert)) this.#damagedKeys.push(new Uint8Array(key));
        if (performance.now() >= endMs) return false;
      }
      this.#state = "loaded";
    } catch (error) {
      this.#failure = error;
      this.#state = "unreadable";
    }
    return true;
  }

  #endReading(): void {
    this.#unread?.return?.();
    this.#failure = new Error("stopped before the index was read");
    this.#state = "unreadable";
  }

  #insertRead(): void {
    const entry = this.#read;
    this.#records.advanceBeyond(entry.place);
    const known = this.index.find(entry.kind, entry.words, 0);
    const slot = known < 0 ? this.index.insert(entry.kind, entry.words, 0) : known;
    if (known >= 0) this.#replace(slot, this.#replaced);
    this.#fill(slot, entry, entry);
  }

  async #put(entries: readonly NewEntry[]): Promise<void> {
    // Places go on behind the last one, and what is replaced has to be known.
    if (this.#state === "loading") this.#readAll();
    const placed = await this.#records.add(entries);
    const replaced: Placed[] = [];
    for (const [index, entry] of entries.entries()) this.#enter(entry, placed[index] as Placed, replaced);
    // Waited for: after a crash behind a later removal of the new one, the old one would be the only one of its name.
    if (replaced.length > 0) await this.#records.remove(replaced).catch(() => undefined);
  }

  #enter(entry: NewEntry, placed: Placed, replaced: Placed[]): void {
    const { kind, words, offset } = entry;
    const known = this.index.find(kind, words, offset);
    const slot = known < 0 ? this.index.insert(kind, words, offset) : known;
    if (known >= 0) this.#replace(slot, replaced);
    this.#fill(slot, entry, placed);
    const lease = currentLease();
    if (lease !== NO_LEASE) this.#lease(slot, lease);
  }

  #replace(slot: number, replaced: Placed[]): void {
    replaced.push({ place: this.index.at.placeAt(slot), flags: this.index.at.flagsAt(slot) });
    this.#account(slot, -1);
  }

  #fill(slot: number, { sizeBytes, access }: Pick<NewEntry, "sizeBytes" | "access">, { place, flags }: Placed): void {
    const segment = this.index.at;
    if (sizeBytes > MAX_40_BIT || place > MAX_40_BIT) throw new RangeError("an entry's size or place");
    segment.setSizeAndPlace(slot, sizeBytes, place);
    segment.setFlags(slot, flags);
    segment.setAccess(slot, access);
    this.accessClock.advanceTo(access);
    this.#account(slot, 1);
  }

  #lease(slot: number, lease: number): void {
    const segment = this.index.at;
    const held = segment.leaseAt(slot);
    const joined = held === NO_LEASE ? lease : this.invocations.join(held, lease);
    if (joined === held) return;
    const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
    this.invocations.move(held, joined, diskBytes(segment.sizeAt(slot), isFile));
    segment.setLease(slot, joined);
    // The access log keeps it.
    segment.setFlags(slot, segment.flagsAt(slot) | IndexFlag.TOUCHED);
  }

  /** Gives the entry in `slot` of `index.at` back the lease that the last process saved, unless it was touched since. */
  restoreLease(slot: number, { epoch, lease }: { readonly epoch: number; readonly lease: number }): void {
    const segment = this.index.at;
    const held = segment.leaseAt(slot);
    if (held !== NO_LEASE && !this.invocations.wasRestored(epoch, held)) return;
    if (!this.invocations.wasRestored(epoch, lease)) return;
    const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
    this.invocations.move(held, lease, diskBytes(segment.sizeAt(slot), isFile));
    segment.setLease(slot, lease);
  }

  #account(slot: number, sign: 1 | -1): void {
    const segment = this.index.at;
    const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
    const bytes = sign * diskBytes(segment.sizeAt(slot), isFile);
    this.#diskBytes += bytes;
    this.invocations.move(NO_LEASE, segment.leaseAt(slot), bytes);
    if (!isFile) this.#inlineDiskBytes += bytes;
  }
}

/** So that a start does not grow the index step by step, which copies each entry seven times. No more than there are places. */
function expectedCount(store: KeyValueStore): number {
  const [count, places] = [store.get(COUNT_KEY), store.get(NEXT_PLACE_KEY)];
  if (count?.length !== 6 || places?.length !== 6) return 0;
  return Math.min(decodeNumber(count), decodeNumber(places));
}
