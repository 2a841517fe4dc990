// The records of the index in the key-value store: their keys, their bytes, and the room they take on disk.
//
//   'e' first(6, BE)    entries   of many blobs and values, see entry-groups.ts
//   'd' place(6, BE)    bytes     u32 CRC-32 of what follows, then the bytes of a small blob or value
//   'c' kind hash(32)   checksums u32 CRC-32 per MiB of a file, then u32 CRC-32 of those
//   'a' number(6, BE)   accesses  of many entries, see access-log.ts
//   'i'                 u48: how many entries there were when it was written
//   's'                 u48: entries last asked for before this access time were on the disk when it was written
//   'n'                 u48: places below it may be in use
//
// Numbers are little-endian unless they are part of a key. Entries are apart from bytes, so that a start reads only them;
// both are keyed by an ascending number, so that a commit appends pages instead of touching random ones.
// See docs/formats/data-directory.md.

import { crc32 } from "node:zlib";
import { WORDS_PER_HASH } from "../digest/digest-batch.ts";
import type { BorrowedValue } from "../kv/key-value-store.ts";

export const GROUP_TABLE = table("e");
export const ACCESS_TABLE = table("a");
export const NEXT_PLACE_KEY = Uint8Array.from([0x6e]);
export const COUNT_KEY = Uint8Array.from([0x69]);
export const SYNC_MARK_KEY = Uint8Array.from([0x73]);

export function checksumsKey(kind: number, words: Uint32Array, offset: number): Uint8Array {
  return hashKey(0x63, kind, words, offset);
}

export function dataKey(place: number): Uint8Array {
  return placeKey(0x64, place);
}

export function accessKey(number: number): Uint8Array {
  return placeKey(0x61, number);
}

export function placeKey(first: number, place: number): Uint8Array {
  const key = Buffer.allocUnsafe(7);
  key[0] = first;
  key.writeUIntBE(place, 1, 6);
  return key;
}

/** A copy of `data` behind its checksum. */
export function encodeData(data: Uint8Array): Uint8Array {
  const value = Buffer.allocUnsafe(4 + data.length);
  value.writeUInt32LE(crc32(data), 0);
  value.set(data, 4);
  return value;
}

/** The bytes, in a buffer of their own; undefined when they are damaged. */
export function decodeData(value: BorrowedValue, sizeBytes: number): Uint8Array | undefined {
  if (value.length !== sizeBytes + 4) return undefined;
  const data = Buffer.allocUnsafe(sizeBytes);
  value.bytes.copy(data, 0, 4, value.length);
  return littleEndian(value.bytes, 0) === crc32(data) ? data : undefined;
}

/** Copies the bytes to `target` at `offset`; false when they are damaged, and the room for them is to be written again. */
export function copyData(value: BorrowedValue, sizeBytes: number, target: Buffer, offset: number): boolean {
  if (value.length !== sizeBytes + 4) return false;
  value.bytes.copy(target, offset, 4, value.length);
  const copied = new Uint8Array(target.buffer, target.byteOffset + offset, sizeBytes);
  return littleEndian(value.bytes, 0) === crc32(copied);
}

export function encodeChecksums(checksums: Uint32Array): Uint8Array {
  const value = Buffer.allocUnsafe(checksums.length * 4 + 4);
  for (const [index, checksum] of checksums.entries()) value.writeUInt32LE(checksum, index * 4);
  value.writeUInt32LE(crc32(value.subarray(0, checksums.length * 4)), checksums.length * 4);
  return value;
}

export function decodeChecksums(bytes: Uint8Array): Uint32Array | undefined {
  const value = asBuffer(bytes);
  const end = value.length - 4;
  if (end < 0 || end % 4 !== 0 || value.readUInt32LE(end) !== crc32(value.subarray(0, end))) return undefined;
  return Uint32Array.from({ length: end / 4 }, (_, index) => value.readUInt32LE(index * 4));
}

export function encodeNumber(number: number): Uint8Array {
  const value = Buffer.alloc(6);
  value.writeUIntLE(number, 0, 6);
  return value;
}

export function decodeNumber(value: Uint8Array): number {
  return asBuffer(value).readUIntLE(0, 6);
}

const PAGE_BYTES = 4096;
/** In its group: 45 to 66 bytes with LMDB's node and page, more where others of the group have gone. */
const ENTRY_DISK_BYTES = 70;
/** Key, checksum of one MiB and LMDB's node, at pages two thirds full. */
const CHECKSUMS_DISK_BYTES = 90;
/** LMDB puts larger values on pages of their own. */
const LARGEST_SHARED_VALUE_BYTES = 2020;

/** What an entry takes on disk, in whole pages where it has pages of its own. */
export function diskBytes(sizeBytes: number, isFile: boolean): number {
  if (isFile) return ENTRY_DISK_BYTES + CHECKSUMS_DISK_BYTES + roundUp(sizeBytes) + Math.ceil(sizeBytes / 2 ** 18);
  if (sizeBytes > LARGEST_SHARED_VALUE_BYTES) return ENTRY_DISK_BYTES + roundUp(sizeBytes + 20);
  return ENTRY_DISK_BYTES + sizeBytes + 24;
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

export function bigEndian(bytes: Uint8Array, at: number): number {
  const high = (bytes[at] as number) * 2 ** 24;
  return high + (((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
}

export function littleEndian(bytes: Uint8Array, at: number): number {
  const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16);
  return low + (bytes[at + 3] as number) * 2 ** 24;
}

export function littleEndian48(bytes: Uint8Array, at: number): number {
  return littleEndian(bytes, at) + ((bytes[at + 4] as number) | ((bytes[at + 5] as number) << 8)) * 2 ** 32;
}

function hashKey(first: number, kind: number, words: Uint32Array, offset: number): Uint8Array {
  const key = Buffer.allocUnsafe(34);
  key[0] = first;
  key[1] = kind;
  for (let word = 0; word < WORDS_PER_HASH; word++) key.writeUInt32BE(words[offset + word] as number, 2 + word * 4);
  return key;
}

function table(letter: string): { readonly from: Uint8Array; readonly to: Uint8Array } {
  const code = letter.charCodeAt(0);
  return { from: Uint8Array.from([code]), to: Uint8Array.from([code + 1]) };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
