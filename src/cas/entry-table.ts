// Entries: the index in memory and its records in the key-value store, changed together.
//
// Invariant: an entry is in the index only when its record and its bytes are durable, and leaves the index before its
// record leaves the disk. Entries are whole or absent to everybody, at every moment.
// At start the records are scanned in slices; until that ends, a look-up that misses asks the key-value store.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../telemetry/log.ts";
import type { KeyValueOperation, KeyValueStore } from "../kv/key-value-store.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { wordsToHex, WORDS_PER_HASH } from "../digest/digest-batch.ts";
import { AccessClock } from "./access-clock.ts";
import { BlobIndex, IndexFlag } from "./blob-index.ts";
import { MAX_40_BIT } from "./index-segment.ts";
import { Invocations } from "./invocations.ts";
import { currentLease, NO_LEASE } from "./lease-context.ts";
import {
  checksumsKey,
  copyData,
  dataKey,
  decodeChecksums,
  decodeData,
  decodeEntry,
  decodeEntryKey,
  decodeNumber,
  diskBytes,
  encodeChecksums,
  encodeData,
  encodeEntry,
  encodeNumber,
  ENTRY_TABLE,
  entryKey,
  NEXT_PLACE_KEY,
  type EntryRecord,
} from "./records.ts";

/** Places are handed out from a block that was set aside durably, so that no crash hands one out twice. */
const PLACE_BLOCK = 2 ** 20;
/** How long a slice of the scan at start may keep the event loop. */
const SCAN_SLICE_MS = 4;
const SCAN_CHECK_EVERY = 512;

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
  readonly index = new BlobIndex();
  readonly #store: KeyValueStore;
  readonly #logger: Logger;
  readonly accessClock: AccessClock;
  readonly invocations: Invocations;
  #nextPlace = 0;
  #placesEnd = 0;
  #reservation: Promise<void> | undefined;
  #loaded = false;
  #stopped = false;
  /** Removed while the scan runs: its snapshot still shows them. */
  readonly #removedWhileLoading = new Set<string>();
  #diskBytes = 0;
  #inlineDiskBytes = 0;
  #damagedRecords = 0;

  constructor(options: EntryTableOptions) {
    this.#store = options.store;
    this.#logger = options.logger;
    this.accessClock = new AccessClock(options.clock);
    this.invocations = new Invocations({
      clock: options.clock,
      leaseMs: options.leaseMs,
      budgetBytes: options.leaseBudgetBytes,
      renumber: (numbers) => this.index.renumberLeases(numbers),
      metrics: options.metrics,
    });
    const stored = options.store.get(NEXT_PLACE_KEY);
    this.#nextPlace = stored === undefined ? 1 : decodeNumber(stored);
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
    return this.#loaded;
  }

  get damagedRecords(): number {
    return this.#damagedRecords;
  }

  /** The slot of the entry, with its segment in `index.at`, or -1. */
  find(kind: number, words: Uint32Array, offset: number): number {
    const slot = this.index.find(kind, words, offset);
    if (slot >= 0 || this.#loaded) return slot;
    return this.#findOnDisk(kind, words, offset);
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
  async putInline(name: EntryName, data: Uint8Array): Promise<void> {
    const place = this.#nextPlace < this.#placesEnd ? this.#nextPlace++ : await this.#reserveAndTakePlace();
    const record = { flags: 0, access: this.accessClock.now(), sizeBytes: data.length, place };
    const operations: KeyValueOperation[] = [
      { type: "put", key: dataKey(place), value: encodeData(data) },
      { type: "put", key: entryKey(name.kind, name.words, name.offset), value: encodeEntry(record) },
    ];
    const removal = this.#removalOfBytes(name);
    if (removal.length > 0) operations.unshift(...removal);
    await this.#store.write(operations);
    this.#enter(name, record);
  }

  /** As putInline(), for several of different names in one step: all of them or none. */
  async putAllInline(entries: readonly InlineEntry[]): Promise<void> {
    const operations: KeyValueOperation[] = [];
    const records: EntryRecord[] = [];
    const access = this.accessClock.now();
    for (const { name, data } of entries) {
      const place = this.#nextPlace < this.#placesEnd ? this.#nextPlace++ : await this.#reserveAndTakePlace();
      const record = { flags: 0, access, sizeBytes: data.length, place };
      records.push(record);
      operations.push({ type: "put", key: dataKey(place), value: encodeData(data) });
      operations.push({
        type: "put",
        key: entryKey(name.kind, name.words, name.offset),
        value: encodeEntry(record),
      });
    }
    for (const { name } of entries) {
      const removal = this.#removalOfBytes(name);
      if (removal.length > 0) operations.push(...removal);
    }
    await this.#store.write(operations);
    for (const [index, { name }] of entries.entries()) this.#enter(name, records[index] as EntryRecord);
  }

  /** Stores the record of a file that is already durable under its name. */
  async putFile(name: EntryName, sizeBytes: number, checksums: Uint32Array): Promise<void> {
    const record = { flags: IndexFlag.FILE, access: this.accessClock.now(), sizeBytes, place: 0 };
    await this.#store.write([
      { type: "put", key: checksumsKey(name.kind, name.words, name.offset), value: encodeChecksums(checksums) },
      { type: "put", key: entryKey(name.kind, name.words, name.offset), value: encodeEntry(record) },
    ]);
    this.#enter(name, record);
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
    const operations: KeyValueOperation[] = [];
    for (const name of names) {
      operations.push(...this.#removalOfBytes(name));
      operations.push({ type: "delete", key: entryKey(name.kind, name.words, name.offset) });
      this.#leave(name);
    }
    return this.#store.write(operations);
  }

  /** Reads all records into the index, in slices that let the event loop breathe. */
  async load(): Promise<void> {
    const words = new Uint32Array(WORDS_PER_HASH);
    const damaged: Uint8Array[] = [];
    let sliceEndMs = performance.now() + SCAN_SLICE_MS;
    let scanned = 0;
    for (const { key, value } of this.#store.range(ENTRY_TABLE)) {
      const kind = decodeEntryKey(key, words);
      const record = decodeEntry(value);
      if (kind === undefined || record === undefined) damaged.push(new Uint8Array(key));
      else if (this.index.find(kind, words, 0) < 0 && !this.#wasRemoved(kind, words))
        this.#insert(kind, words, 0, record);
      if (++scanned % SCAN_CHECK_EVERY === 0 && performance.now() >= sliceEndMs) {
        await new Promise((resolve) => setImmediate(resolve));
        if (this.#stopped) return;
        sliceEndMs = performance.now() + SCAN_SLICE_MS;
      }
    }
    this.#loaded = true;
    this.#removedWhileLoading.clear();
    this.#damagedRecords = damaged.length;
    if (damaged.length > 0) {
      this.#logger.warn("removing damaged index records", { count: damaged.length });
      await this.#store.write(damaged.map((key) => ({ type: "delete", key })));
    }
  }

  /** Ends a scan under way. */
  stop(): void {
    this.#stopped = true;
  }

  #findOnDisk(kind: number, words: Uint32Array, offset: number): number {
    const value = this.#store.get(entryKey(kind, words, offset));
    const record = value === undefined ? undefined : decodeEntry(value);
    if (record === undefined || this.#wasRemoved(kind, words, offset)) return -1;
    return this.#insert(kind, words, offset, record);
  }

  #enter(name: EntryName, record: EntryRecord): void {
    if (!this.#loaded) this.#removedWhileLoading.delete(removedKey(name.kind, name.words, name.offset));
    const known = this.index.find(name.kind, name.words, name.offset);
    const slot = known < 0 ? this.#insert(name.kind, name.words, name.offset, record) : known;
    if (known >= 0) {
      this.#account(slot, -1);
      this.#fill(slot, record);
    }
    const lease = currentLease();
    if (lease !== NO_LEASE) this.#lease(slot, lease);
  }

  #leave(name: EntryName): void {
    if (!this.#loaded) this.#removedWhileLoading.add(removedKey(name.kind, name.words, name.offset));
    const slot = this.index.find(name.kind, name.words, name.offset);
    if (slot < 0) return;
    this.#account(slot, -1);
    this.index.remove(slot);
  }

  #insert(kind: number, words: Uint32Array, offset: number, record: EntryRecord): number {
    const slot = this.index.insert(kind, words, offset);
    this.#fill(slot, record);
    return slot;
  }

  #fill(slot: number, record: EntryRecord): void {
    const segment = this.index.at;
    if (record.sizeBytes > MAX_40_BIT || record.place > MAX_40_BIT) throw new RangeError("an entry's size or place");
    segment.setSizeAndPlace(slot, record.sizeBytes, record.place);
    segment.setFlags(slot, record.flags);
    segment.setAccess(slot, record.access);
    this.accessClock.advanceTo(record.access);
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
  }

  #account(slot: number, sign: 1 | -1): void {
    const segment = this.index.at;
    const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
    const bytes = sign * diskBytes(segment.sizeAt(slot), isFile);
    this.#diskBytes += bytes;
    this.invocations.move(NO_LEASE, segment.leaseAt(slot), bytes);
    if (!isFile) this.#inlineDiskBytes += bytes;
  }

  /** Deletes the bytes that belong to the entry of this name now, if there is one. */
  #removalOfBytes(name: EntryName): KeyValueOperation[] {
    const slot = this.find(name.kind, name.words, name.offset);
    if (slot < 0) return [];
    if ((this.index.at.flagsAt(slot) & IndexFlag.FILE) !== 0) {
      return [{ type: "delete", key: checksumsKey(name.kind, name.words, name.offset) }];
    }
    return [{ type: "delete", key: dataKey(this.index.at.placeAt(slot)) }];
  }

  /** Sets the next block aside, durably, before any place of it is used. */
  async #reserveAndTakePlace(): Promise<number> {
    while (this.#nextPlace >= this.#placesEnd) {
      const end = this.#nextPlace + PLACE_BLOCK;
      this.#reservation ??= this.#store
        .write([{ type: "put", key: NEXT_PLACE_KEY, value: encodeNumber(end) }])
        .then(() => void (this.#placesEnd = end))
        .finally(() => (this.#reservation = undefined));
      await this.#reservation;
    }
    return this.#nextPlace++;
  }

  #wasRemoved(kind: number, words: Uint32Array, offset = 0): boolean {
    return this.#removedWhileLoading.size > 0 && this.#removedWhileLoading.has(removedKey(kind, words, offset));
  }
}

function removedKey(kind: number, words: Uint32Array, offset: number): string {
  return `${kind}:${wordsToHex(words, offset)}`;
}
