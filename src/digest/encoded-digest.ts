// Digest messages straight from their bytes into a DigestBatch: the fast path of everything that reads many of them.
//
// Invariant: what is added is well formed. The layout that every encoder produces (hash, then size) is read in one pass;
// for any other, or one that is malformed, nothing is added and the caller takes the generated codec, which knows how to
// name what is wrong. Size 0 is left to the caller: it goes with one hash only, and the function may come later.

import { HASH_HEX_LENGTH } from "./digest.ts";
import { WORDS_PER_HASH, type DigestBatch } from "./digest-batch.ts";

const TAG_HASH = 0x0a;
const TAG_SIZE = 0x10;
/** A Digest message of hash alone: size 0, which encoders leave out. */
const HASH_ONLY_LENGTH = 2 + HASH_HEX_LENGTH;

const NOT_HEX = 0x80;
/** The value of each hexadecimal digit's byte; every other byte has a bit that no digit has. */
const HEX_VALUES = makeHexValues();

/** Adds the Digest message in `bytes` from `start` to `end`; false when it has another layout or is malformed. */
export function addEncodedDigest(batch: DigestBatch, bytes: Uint8Array, start: number, end: number): boolean {
  if (end > bytes.length || end - start < HASH_ONLY_LENGTH) return false;
  if (bytes[start] !== TAG_HASH || bytes[start + 1] !== HASH_HEX_LENGTH) return false;
  const position = batch.count;
  batch.reserve(position + 1);
  if (!readHash(bytes, start + 2, batch.words, position * WORDS_PER_HASH)) return false;
  const sizeAt = start + HASH_ONLY_LENGTH;
  const size = sizeAt === end ? 0 : readSize(bytes, sizeAt, end);
  if (size < 0) return false;
  batch.sizesBytes[position] = size;
  batch.count = position + 1;
  return true;
}

/** Reads 64 lower-case hexadecimal digits into 8 words; false when there is another character. */
function readHash(bytes: Uint8Array, start: number, words: Uint32Array, offset: number): boolean {
  let seen = 0;
  let pos = start;
  for (let word = 0; word < WORDS_PER_HASH; word++, pos += 8) {
    const a = HEX_VALUES[bytes[pos]!]!;
    const b = HEX_VALUES[bytes[pos + 1]!]!;
    const c = HEX_VALUES[bytes[pos + 2]!]!;
    const d = HEX_VALUES[bytes[pos + 3]!]!;
    const e = HEX_VALUES[bytes[pos + 4]!]!;
    const f = HEX_VALUES[bytes[pos + 5]!]!;
    const g = HEX_VALUES[bytes[pos + 6]!]!;
    const h = HEX_VALUES[bytes[pos + 7]!]!;
    seen |= a | b | c | d | e | f | g | h;
    words[offset + word] = (a << 28) | (b << 24) | (c << 20) | (d << 16) | (e << 12) | (f << 8) | (g << 4) | h;
  }
  return (seen & NOT_HEX) === 0;
}

/** Reads the size field that fills the message up to `end`; -1 when it is anything but one safe integer. */
function readSize(bytes: Uint8Array, start: number, end: number): number {
  // 8 bytes hold 56 bits. Negative numbers have 10; they take the other path, which knows how to name them.
  const length = end - start - 1;
  if (bytes[start] !== TAG_SIZE || length < 1 || length > 8) return -1;
  let value = 0;
  let factor = 1;
  for (let pos = start + 1; pos < end; pos++, factor *= 128) {
    const byte = bytes[pos]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80 !== (pos === end - 1)) return -1;
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1;
}

function makeHexValues(): Uint8Array {
  const values = new Uint8Array(256).fill(NOT_HEX);
  for (let digit = 0; digit < 16; digit++) values[digit.toString(16).charCodeAt(0)] = digit;
  return values;
}
