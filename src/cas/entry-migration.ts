// Brings entries of format 1, one record each under their hash, into groups under their place.
//
//   'm' kind hash(32)   u8 version 1, u8 flags, u32 access, u48 size, u48 place, u32 CRC-32 of those 18 bytes
//
// Invariant: a commit takes records away and writes the groups that say the same, so it may be interrupted anywhere and
// goes on at the next start. Places of small entries stay, since their bytes are kept by place; files get theirs now.
// Memory is bounded: the records are read several times, for a range of places each time.

import { crc32 } from "node:zlib";
import { WORDS_PER_HASH } from "../digest/digest-batch.ts";
import type { KeyValueOperation, KeyValueStore } from "../kv/key-value-store.ts";
import type { Logger } from "../telemetry/log.ts";
import { IndexFlag } from "./blob-index.ts";
import { encodeGroup, groupKey, MAX_GROUP_ENTRIES, MAX_GROUP_LOG2, type GroupEntry } from "./entry-groups.ts";
import { bigEndian, decodeNumber, encodeNumber, littleEndian, littleEndian48, NEXT_PLACE_KEY } from "./records.ts";

const OLD_TABLE = { from: Uint8Array.from([0x6d]), to: Uint8Array.from([0x6e]) };
const RECORD_VERSION = 1;
const RECORD_BYTES = 22;
const CHECKED_BYTES = 18;
/** Held at a time, at some 200 bytes each. */
const ENTRIES_PER_PASS = 300_000;
/** Of one commit; a kill costs no more than this again. */
const ENTRIES_PER_COMMIT = 4000;
const SPAN = 2 ** MAX_GROUP_LOG2;

/** Nothing to do, and two reads, in a store of the format of today. */
export async function migrateEntries(store: KeyValueStore, logger: Logger): Promise<void> {
  if (isEmpty(store)) return;
  logger.warn("bringing the index to the format of this version; a stop goes on with it at the next start");
  const migration = new Migration(store);
  const entries = await migration.run();
  logger.warn("brought the index to the format of this version", { entries });
}

class Migration {
  readonly #store: KeyValueStore;
  #operations: KeyValueOperation[] = [];
  #files: GroupEntry[] = [];
  #nextPlace: number;
  #migrated = 0;

  constructor(store: KeyValueStore) {
    this.#store = store;
    const stored = store.get(NEXT_PLACE_KEY);
    this.#nextPlace = stored === undefined ? 1 : decodeNumber(stored);
  }

  async run(): Promise<number> {
    const places = await this.#takeFiles();
    // Whole groups of places, as many as make a pass.
    for (let from = 0; from < places.length; from += ENTRIES_PER_PASS) {
      const first = from === 0 ? 0 : groupFirst(places[from] as number);
      const last = places[from + ENTRIES_PER_PASS];
      await this.#takePlaces(first, last === undefined ? Number.POSITIVE_INFINITY : groupFirst(last));
    }
    await this.#commit();
    return this.#migrated;
  }

  /** Migrates files and drops what is damaged; returns the places of all others, ascending. */
  async #takeFiles(): Promise<Float64Array> {
    const places: number[] = [];
    for (const { key, value } of this.#store.range(OLD_TABLE)) {
      const entry = decodeOldEntry(key, value);
      if (entry !== undefined && (entry.flags & IndexFlag.FILE) === 0) {
        places.push(entry.place);
        if (entry.place >= this.#nextPlace) this.#nextPlace = entry.place + 1;
        continue;
      }
      this.#operations.push({ type: "delete", key: new Uint8Array(key) });
      if (entry !== undefined) this.#files.push(entry);
    }
    for (let from = 0; from < this.#files.length; from += MAX_GROUP_ENTRIES) {
      const first = Math.ceil(this.#nextPlace / SPAN) * SPAN;
      this.#nextPlace = first + SPAN;
      const group = this.#files.slice(from, from + MAX_GROUP_ENTRIES);
      this.#putGroup(
        first,
        group.map((entry, index) => ({ ...entry, place: first + index })),
      );
    }
    this.#operations.push({ type: "put", key: NEXT_PLACE_KEY, value: encodeNumber(this.#nextPlace) });
    await this.#commit();
    return Float64Array.from(places).sort();
  }

  async #takePlaces(from: number, to: number): Promise<void> {
    const groups = new Map<number, GroupEntry[]>();
    for (const { key, value } of this.#store.range(OLD_TABLE)) {
      const entry = decodeOldEntry(key, value);
      if (entry === undefined || entry.place < from || entry.place >= to) continue;
      const first = groupFirst(entry.place);
      const group = groups.get(first);
      if (group === undefined) groups.set(first, [entry]);
      else group.push(entry);
    }
    for (const [first, entries] of [...groups].toSorted(([a], [b]) => a - b)) {
      for (const { kind, words } of entries) this.#operations.push({ type: "delete", key: oldKey(kind, words) });
      this.#putGroup(first, entries);
      if (this.#operations.length >= ENTRIES_PER_COMMIT) await this.#commit();
    }
    await this.#commit();
  }

  #putGroup(first: number, entries: readonly GroupEntry[]): void {
    this.#migrated += entries.length;
    this.#operations.push({ type: "put", key: groupKey(first), value: encodeGroup(first, MAX_GROUP_LOG2, entries) });
  }

  async #commit(): Promise<void> {
    await this.#store.write(this.#operations);
    this.#operations = [];
  }
}

/** Undefined when the record is damaged. */
export function decodeOldEntry(key: Uint8Array, value: Uint8Array): GroupEntry | undefined {
  if (key.length !== 34 || value.length !== RECORD_BYTES || value[0] !== RECORD_VERSION) return undefined;
  if (littleEndian(value, CHECKED_BYTES) !== crc32(value.subarray(0, CHECKED_BYTES))) return undefined;
  const words = new Uint32Array(WORDS_PER_HASH);
  for (let word = 0; word < WORDS_PER_HASH; word++) words[word] = bigEndian(key, 2 + word * 4);
  return {
    kind: key[1] as number,
    words,
    offset: 0,
    flags: value[1] as number,
    access: littleEndian(value, 2),
    sizeBytes: littleEndian48(value, 6),
    place: littleEndian48(value, 12),
  };
}

function oldKey(kind: number, words: Uint32Array): Uint8Array {
  const key = Buffer.allocUnsafe(34);
  key[0] = 0x6d;
  key[1] = kind;
  for (let word = 0; word < WORDS_PER_HASH; word++) key.writeUInt32BE(words[word] as number, 2 + word * 4);
  return key;
}

function groupFirst(place: number): number {
  return place - (place % SPAN);
}

function isEmpty(store: KeyValueStore): boolean {
  for (const _entry of store.range(OLD_TABLE)) return false;
  return true;
}
