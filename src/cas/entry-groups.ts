// Entries on disk, many to a value: a commit then appends a page or two, instead of changing a random page for each entry.
//
//   'e' first(6, BE)   u8 version 1, u8 log2 of the places the group spans, entries, u32 CRC-32 of all that
//   entry              u8 its place - first, u8 kind, u8 flags, u32 access, u48 size, hash(32)
//
// Invariant: groups span 2^log2 places from a multiple of that on, so an entry's place and its flags in the index, which
// keep the log2, name its group. See docs/formats/data-directory.md.

import { crc32 } from "node:zlib";
import { WORDS_PER_HASH } from "../digest/digest-batch.ts";
import { IndexFlag } from "./blob-index.ts";
import { bigEndian, littleEndian, littleEndian48, placeKey } from "./records.ts";

const VERSION = 1;
const HEADER_BYTES = 2;
const CHECKSUM_BYTES = 4;
const ENTRY_BYTES = 45;
const HASH_AT = 13;

/** A full group fills one page of LMDB's (4,056 of 4,080 bytes); half a page more would take two. */
export const MAX_GROUP_ENTRIES = 90;
/** 128 places. */
export const MAX_GROUP_LOG2 = 7;
/** Where the index keeps the log2, beside the flags of IndexFlag. */
const LOG2_SHIFT = 4;
const LOG2_MASK = 0x70;

/** What a group says of an entry. */
export interface GroupEntry {
  readonly kind: number;
  /** The 8 words of the hash at `offset`. */
  readonly words: Uint32Array;
  readonly offset: number;
  readonly flags: number;
  readonly access: number;
  readonly sizeBytes: number;
  readonly place: number;
}

/** Filled again for each entry of a group. */
export class ReadEntry implements GroupEntry {
  kind = 0;
  readonly words = new Uint32Array(WORDS_PER_HASH);
  readonly offset = 0;
  flags = 0;
  access = 0;
  sizeBytes = 0;
  place = 0;
}

export function groupKey(first: number): Uint8Array {
  return placeKey(0x65, first);
}

/** How many places, as a power of two, a group of so many entries spans. */
export function groupLog2(count: number): number {
  return count <= 1 ? 0 : 32 - Math.clz32(count - 1);
}

/** Flags as the index keeps them. */
export function withGroupLog2(flags: number, log2: number): number {
  return flags | (log2 << LOG2_SHIFT);
}

/** The first place of the group that holds the entry, by its flags in the index. */
export function groupOf(place: number, flags: number): number {
  return place - (place % (1 << ((flags & LOG2_MASK) >> LOG2_SHIFT)));
}

export function encodeGroup(first: number, log2: number, entries: readonly GroupEntry[]): Uint8Array {
  const value = Buffer.allocUnsafe(HEADER_BYTES + entries.length * ENTRY_BYTES + CHECKSUM_BYTES);
  value[0] = VERSION;
  value[1] = log2;
  let at = HEADER_BYTES;
  for (const { kind, words, offset, flags, access, sizeBytes, place } of entries) {
    value[at] = place - first;
    value[at + 1] = kind;
    value[at + 2] = flags & IndexFlag.FILE;
    value.writeUInt32LE(access, at + 3);
    value.writeUIntLE(sizeBytes, at + 7, 6);
    for (let word = 0; word < WORDS_PER_HASH; word++) {
      value.writeUInt32BE(words[offset + word] as number, at + HASH_AT + word * 4);
    }
    at += ENTRY_BYTES;
  }
  return sealed(value);
}

/** Calls `visit` after each entry was read into `entry`, its flags as the index keeps them; false for a damaged group. */
export function readGroup(key: Uint8Array, value: Uint8Array, entry: ReadEntry, visit: () => void): boolean {
  if (key.length !== 7 || !isWholeGroup(value)) return false;
  const first = bigEndian(key, 3) + ((key[1] as number) * 256 + (key[2] as number)) * 2 ** 32;
  const log2 = value[1] as number;
  for (let at = HEADER_BYTES; at < value.length - CHECKSUM_BYTES; at += ENTRY_BYTES) {
    entry.place = first + (value[at] as number);
    entry.kind = value[at + 1] as number;
    entry.flags = withGroupLog2(value[at + 2] as number, log2);
    entry.access = littleEndian(value, at + 3);
    entry.sizeBytes = littleEndian48(value, at + 7);
    // Byte by byte: a DataView for each of a million entries costs a second of the start.
    for (let word = 0, from = at + HASH_AT; word < WORDS_PER_HASH; word++, from += 4) {
      entry.words[word] = bigEndian(value, from);
    }
    visit();
  }
  return true;
}

/** The group without the entries at `places`, empty when none is left; undefined for a damaged one. */
export function withoutPlaces(value: Uint8Array, first: number, places: ReadonlySet<number>): Uint8Array | undefined {
  if (!isWholeGroup(value)) return undefined;
  const kept = Buffer.allocUnsafe(value.length);
  kept.set(value.subarray(0, HEADER_BYTES));
  let end = HEADER_BYTES;
  for (let at = HEADER_BYTES; at < value.length - CHECKSUM_BYTES; at += ENTRY_BYTES) {
    if (places.has(first + (value[at] as number))) continue;
    kept.set(value.subarray(at, at + ENTRY_BYTES), end);
    end += ENTRY_BYTES;
  }
  return end === HEADER_BYTES ? kept.subarray(0, 0) : sealed(kept.subarray(0, end + CHECKSUM_BYTES));
}

function isWholeGroup(value: Uint8Array): boolean {
  const end = value.length - CHECKSUM_BYTES;
  if (end < HEADER_BYTES || (end - HEADER_BYTES) % ENTRY_BYTES !== 0) return false;
  if (value[0] !== VERSION || (value[1] as number) > MAX_GROUP_LOG2) return false;
  return littleEndian(value, end) === crc32(value.subarray(0, end));
}

function sealed(value: Buffer): Uint8Array {
  const end = value.length - CHECKSUM_BYTES;
  value.writeUInt32LE(crc32(value.subarray(0, end)), end);
  return value;
}
