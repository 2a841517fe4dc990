// Groups of entries: what was written is read, and what is damaged is said to be.

import { randomBytes, randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import { IndexFlag } from "../../src/cas/blob-index.ts";
import {
  encodeGroup,
  groupKey,
  groupLog2,
  groupOf,
  MAX_GROUP_ENTRIES,
  ReadEntry,
  readGroup,
  withGroupLog2,
  withoutPlaces,
  type GroupEntry,
} from "../../src/cas/entry-groups.ts";

const FIRST = 2 ** 39 + 128;

function entries(count: number, log2: number): GroupEntry[] {
  return Array.from({ length: count }, (_, index) => ({
    kind: 1 + randomInt(20),
    words: Uint32Array.from({ length: 10 }, () => randomInt(2 ** 32)),
    offset: 2,
    flags: withGroupLog2(randomInt(2) === 0 ? 0 : IndexFlag.FILE, log2),
    access: randomInt(2 ** 32),
    sizeBytes: randomInt(2 ** 40),
    place: FIRST + index,
  }));
}

function read(value: Uint8Array, first = FIRST): GroupEntry[] | undefined {
  const found: GroupEntry[] = [];
  const entry = new ReadEntry();
  const isWhole = readGroup(groupKey(first), value, entry, () => {
    const { kind, flags, access, sizeBytes, place } = entry;
    found.push({ kind, words: Uint32Array.of(0, 0, ...entry.words), offset: 2, flags, access, sizeBytes, place });
  });
  return isWhole ? found : undefined;
}

function normal(group: readonly GroupEntry[]): GroupEntry[] {
  return group.map((entry) => ({ ...entry, words: Uint32Array.of(0, 0, ...entry.words.subarray(2)) }));
}

describe("a group of entries", () => {
  for (const count of [1, 2, 3, 64, 65, MAX_GROUP_ENTRIES]) {
    test(`of ${count} reads back, and names itself from any of its entries`, () => {
      const log2 = groupLog2(count);
      expect(2 ** log2).toBeGreaterThanOrEqual(count);
      const group = entries(count, log2);
      expect(read(encodeGroup(FIRST, log2, group))).toEqual(normal(group));
      for (const { place, flags } of group) {
        expect(groupOf(place, flags | IndexFlag.REUSED | IndexFlag.TOUCHED)).toBe(FIRST);
      }
    });
  }

  // LMDB puts a larger value on two pages of its own.
  test("that is full fits one page of LMDB", () => {
    expect(encodeGroup(FIRST, 7, entries(MAX_GROUP_ENTRIES, 7)).length).toBeLessThanOrEqual(4096 - 16);
  });

  test("without some of its entries has the others, and is empty without all", () => {
    const group = entries(50, 6);
    const value = encodeGroup(FIRST, 6, group);
    const gone = new Set(group.filter((_, index) => index % 3 === 0).map(({ place }) => place));
    const left = withoutPlaces(value, FIRST, gone);
    expect(read(left ?? new Uint8Array(0))).toEqual(normal(group.filter(({ place }) => !gone.has(place))));
    expect(withoutPlaces(value, FIRST, new Set(group.map(({ place }) => place)))).toHaveLength(0);
  });

  test("with any flipped bit, or cut off anywhere, is damaged", () => {
    const value = encodeGroup(FIRST, 2, entries(3, 2));
    for (let bit = 0; bit < value.length * 8; bit++) {
      const flipped = new Uint8Array(value);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(read(flipped)).toBeUndefined();
      expect(withoutPlaces(flipped, FIRST, new Set())).toBeUndefined();
    }
    for (let length = 0; length < value.length; length++) expect(read(value.subarray(0, length))).toBeUndefined();
    expect(read(randomBytes(200))).toBeUndefined();
  });
});
