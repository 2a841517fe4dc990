// Writes entries and their bytes to the key-value store, and removes them: whoever writes at the time shares a group.
//
// Invariant: a place is handed out once, in ascending order, so of two entries of one name the one with the higher place
// is the later one. Entries are removed from their group one write at a time, because that reads the group first.
//
//   add() ──► waiting ──► (at most 2 writes under way) ──► bytes, groups of up to 90 entries, in one commit

import type { KeyValueOperation, KeyValueStore } from "../kv/key-value-store.ts";
import { IndexFlag } from "./blob-index.ts";
import {
  encodeGroup,
  groupKey,
  groupLog2,
  groupOf,
  MAX_GROUP_ENTRIES,
  withGroupLog2,
  withoutPlaces,
  type GroupEntry,
} from "./entry-groups.ts";
import type { EntryName } from "./entry-table.ts";
import { checksumsKey, dataKey, decodeNumber, encodeData, encodeNumber, NEXT_PLACE_KEY } from "./records.ts";

/** As many as the key-value store commits at once: what arrives meanwhile makes the next group. */
const MAX_WRITES_IN_FLIGHT = 2;
/** Of one write: two operations an entry keep it below what the store puts into one commit. */
const MAX_ENTRIES_PER_WRITE = 8000;
const MAX_BYTES_PER_WRITE = 16 * 1024 * 1024;
/** A few milliseconds of work, should a disk refuse removals for long. */
const MAX_OWED_PER_REMOVAL = 10_000;
/** Places are set aside in blocks, so that the number of the next one is seldom written. */
const PLACE_BLOCK = 2 ** 20;

export interface NewEntry extends EntryName {
  readonly access: number;
  readonly sizeBytes: number;
  /** Bytes of a small entry, encoded checksums of a file. Borrowed until it is written. */
  readonly value: Uint8Array;
  readonly isFile: boolean;
}

/** Where an entry is, with its flags as the index keeps them. */
export interface Placed {
  readonly place: number;
  readonly flags: number;
}

export interface RemovedEntry extends Placed {
  /** Of a file whose checksums go as well. */
  readonly name?: EntryName;
}

interface Waiting {
  readonly entries: readonly NewEntry[];
  readonly resolve: (placed: readonly Placed[]) => void;
  readonly reject: (error: unknown) => void;
}

export class EntryRecords {
  readonly #store: KeyValueStore;
  #waiting: Waiting[] = [];
  #writesInFlight = 0;
  #flushScheduled = false;
  #nextPlace: number;
  /** Places below it are set aside on disk. */
  #placesEnd: number;
  /** By first place. */
  readonly #groupsBeingChanged = new Map<number, Promise<void>>();
  #removals = 0;
  /**
   * Not in the index, but on the disk still. A start would take one for the entry of its name once a later one of that
   * name is gone, so it goes before that. At most as many as there were entries: while removals fail, additions do.
   */
  readonly #owed: Placed[] = [];
  #idleWaiters: (() => void)[] = [];

  constructor(store: KeyValueStore) {
    this.#store = store;
    const stored = store.get(NEXT_PLACE_KEY);
    this.#nextPlace = stored === undefined ? 1 : decodeNumber(stored);
    this.#placesEnd = this.#nextPlace;
  }

  /** Says that `place` is taken: a rebuilt store may have lost the number of the next one. */
  advanceBeyond(place: number): void {
    if (place >= this.#nextPlace) this.#nextPlace = place + 1;
  }

  /** Stores entries with their bytes, all of them or none; resolves when that is durable. */
  add(entries: readonly NewEntry[]): Promise<readonly Placed[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entries, resolve, reject });
      this.#scheduleFlush();
    });
  }

  /** Removes entries with their bytes; one that fails is made up for by a later one, in the same commit. */
  async remove(newlyRemoved: readonly RemovedEntry[]): Promise<void> {
    const removed = [...newlyRemoved, ...this.#owed.splice(0, MAX_OWED_PER_REMOVAL)];
    const places = new Map<number, Set<number>>();
    for (const { place, flags } of removed) {
      const first = groupOf(place, flags);
      const known = places.get(first);
      if (known === undefined) places.set(first, new Set([place]));
      else known.add(place);
    }
    this.#removals++;
    try {
      // Nothing may come between the last look and the mark below.
      for (let change = this.#changeOf(places); change !== undefined; change = this.#changeOf(places)) {
        await change.catch(() => undefined); // its own caller's business
      }
      await this.#removeNow(removed, places);
    } catch (error) {
      // Without names: a file that is stored again has its checksums under the same one.
      for (const { place, flags } of removed) this.#owed.push({ place, flags });
      throw error;
    } finally {
      this.#removals--;
      this.#wakeIdleWaiters();
    }
  }

  /** Resolves when nothing waits and nothing is under way. */
  async drain(): Promise<void> {
    while (this.#waiting.length > 0 || this.#writesInFlight > 0 || this.#removals > 0) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    }
  }

  #changeOf(groups: ReadonlyMap<number, unknown>): Promise<void> | undefined {
    if (this.#groupsBeingChanged.size === 0) return undefined;
    for (const first of groups.keys()) {
      const change = this.#groupsBeingChanged.get(first);
      if (change !== undefined) return change;
    }
    return undefined;
  }

  async #removeNow(removed: readonly RemovedEntry[], places: ReadonlyMap<number, Set<number>>): Promise<void> {
    const operations: KeyValueOperation[] = [];
    for (const { place, flags, name } of removed) {
      if ((flags & IndexFlag.FILE) === 0) operations.push({ type: "delete", key: dataKey(place) });
      else if (name !== undefined) {
        operations.push({ type: "delete", key: checksumsKey(name.kind, name.words, name.offset) });
      }
    }
    for (const [first, gone] of places) this.#removeFromGroup(first, gone, operations);
    const write = this.#store.write(operations);
    for (const first of places.keys()) this.#groupsBeingChanged.set(first, write);
    try {
      await write;
    } finally {
      for (const first of places.keys()) this.#groupsBeingChanged.delete(first);
    }
  }

  #removeFromGroup(first: number, places: ReadonlySet<number>, operations: KeyValueOperation[]): void {
    const key = groupKey(first);
    const value = this.#store.get(key);
    // The next start removes a damaged one.
    const left = value === undefined ? undefined : withoutPlaces(value, first, places);
    if (left === undefined) return;
    if (left.length === 0) operations.push({ type: "delete", key });
    else operations.push({ type: "put", key, value: left, isSmaller: true });
  }

  /** Waits for the end of the turn, so that everything the turn stores goes together. */
  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#writesInFlight >= MAX_WRITES_IN_FLIGHT || this.#waiting.length === 0) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      void this.#flush(); // never rejects: failures go to who waits
    });
  }

  async #flush(): Promise<void> {
    const waiting = this.#take();
    this.#writesInFlight++;
    try {
      const operations: KeyValueOperation[] = [];
      const placed = this.#place(
        waiting.flatMap(({ entries }) => entries),
        operations,
      );
      const placesEnd = this.#nextPlace > this.#placesEnd ? this.#nextPlace + PLACE_BLOCK : this.#placesEnd;
      if (placesEnd > this.#placesEnd) {
        operations.push({ type: "put", key: NEXT_PLACE_KEY, value: encodeNumber(placesEnd) });
      }
      await this.#store.write(operations);
      this.#placesEnd = Math.max(this.#placesEnd, placesEnd);
      let from = 0;
      for (const { entries, resolve } of waiting) {
        resolve(placed.slice(from, from + entries.length));
        from += entries.length;
      }
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
    this.#writesInFlight--;
    this.#scheduleFlush();
    this.#wakeIdleWaiters();
  }

  #take(): Waiting[] {
    let entryCount = 0;
    let bytes = 0;
    let taken = 0;
    for (const { entries } of this.#waiting) {
      // The first one always goes, however large it is.
      if (taken > 0 && (entryCount + entries.length > MAX_ENTRIES_PER_WRITE || bytes > MAX_BYTES_PER_WRITE)) break;
      entryCount += entries.length;
      for (const { value } of entries) bytes += value.length;
      taken++;
    }
    return this.#waiting.splice(0, taken);
  }

  /** Gives each entry a place; bytes first and groups behind them, so that both append to what they follow. */
  #place(entries: readonly NewEntry[], operations: KeyValueOperation[]): Placed[] {
    const placed: Placed[] = [];
    const groups: KeyValueOperation[] = [];
    for (let from = 0; from < entries.length; from += MAX_GROUP_ENTRIES) {
      const members = entries.slice(from, from + MAX_GROUP_ENTRIES);
      const log2 = groupLog2(members.length);
      const span = 1 << log2;
      const first = Math.ceil(this.#nextPlace / span) * span;
      this.#nextPlace = first + span;
      const grouped: GroupEntry[] = [];
      for (const [index, entry] of members.entries()) {
        const { kind, words, offset, access, sizeBytes, value, isFile } = entry;
        const place = first + index;
        const flags = withGroupLog2(isFile ? IndexFlag.FILE : 0, log2);
        grouped.push({ kind, words, offset, flags, access, sizeBytes, place });
        placed.push({ place, flags });
        if (isFile) operations.push({ type: "put", key: checksumsKey(kind, words, offset), value });
        else operations.push({ type: "put", key: dataKey(place), value: encodeData(value) });
      }
      groups.push({ type: "put", key: groupKey(first), value: encodeGroup(first, log2, grouped) });
    }
    operations.push(...groups);
    return placed;
  }

  #wakeIdleWaiters(): void {
    for (const wake of this.#idleWaiters.splice(0)) wake();
  }
}
