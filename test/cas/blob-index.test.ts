// The in-memory index of blobs: growth by splitting segments, exact sizes, and random operations against a Map.

import { randomBytes, randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import { BlobIndex } from "../../src/cas/blob-index.ts";
import { spread } from "../../src/cas/index-segment.ts";

const KIND = 1;

function randomWords(count: number): Uint32Array {
  const bytes = randomBytes(count * 32);
  return new Uint32Array(bytes.buffer, bytes.byteOffset, count * 8).slice();
}

function insertAll(index: BlobIndex, words: Uint32Array): void {
  for (let i = 0; i < words.length / 8; i++) {
    const slot = index.insert(KIND, words, i * 8);
    index.at.setSizeAndPlace(slot, i * 1000, 2 ** 39 + i);
    index.at.setAccess(slot, i);
  }
}

describe("BlobIndex", () => {
  test("insert() then find() gives every entry back with its facts, at every point of growth", () => {
    const index = new BlobIndex();
    const words = randomWords(60_000);
    for (let i = 0; i < 60_000; i++) {
      const slot = index.insert(KIND, words, i * 8);
      index.at.setSizeAndPlace(slot, i * 100_000, 2 ** 40 - 1 - i);
      index.at.setAccess(slot, i);
      const earlier = randomInt(i + 1);
      const found = index.find(KIND, words, earlier * 8);
      if (found < 0 || index.at.sizeAt(found) !== earlier * 100_000) throw new Error(`entry ${earlier} lost at ${i}`);
    }
    for (let i = 0; i < 60_000; i++) {
      const slot = index.find(KIND, words, i * 8);
      const facts = [index.at.sizeAt(slot), index.at.placeAt(slot), index.at.accessAt(slot), index.at.kindAt(slot)];
      if (facts.join() !== [i * 100_000, 2 ** 40 - 1 - i, i, KIND].join())
        throw new Error(`entry ${i}: ${facts.join()}`);
    }
    expect(index.count).toBe(60_000);
  });

  test("find() is exact in every word of the hash and in the kind", () => {
    const index = new BlobIndex();
    const words = randomWords(1);
    index.insert(KIND, words, 0);
    expect(index.find(KIND + 1, words, 0)).toBe(-1);
    for (let word = 0; word < 8; word++) {
      const other = words.slice();
      other[word] = ((other[word] ?? 0) ^ 1) >>> 0;
      expect(index.find(KIND, other, 0)).toBe(-1);
    }
    expect(index.find(KIND, words, 0)).toBeGreaterThanOrEqual(0);
  });

  test("random inserts and removes agree with a Map, and a walk sees each entry once", () => {
    const seed = randomInt(2 ** 31);
    console.log(`seed ${seed}`);
    let state = seed;
    const random = (below: number) => (state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff) % below;
    const words = randomWords(30_000);
    const index = new BlobIndex();
    const model = new Set<number>();
    for (let round = 0; round < 120_000; round++) {
      const i = random(30_000);
      const slot = index.find(KIND, words, i * 8);
      if (slot >= 0 !== model.has(i)) throw new Error(`entry ${i} in round ${round}`);
      if (slot < 0) {
        const added = index.insert(KIND, words, i * 8);
        index.at.setSizeAndPlace(added, 0, i);
        model.add(i);
      } else if (random(3) === 0) {
        index.remove(slot);
        model.delete(i);
      }
      if (round % 10_000 === 0) {
        const seen: number[] = [];
        for (let step = 0; step < index.walkLength; step++) {
          index.visit(step, (segment, at) => seen.push(segment.placeAt(at)));
        }
        expect(seen.toSorted((a, b) => a - b)).toEqual([...model].toSorted((a, b) => a - b));
      }
    }
    expect(index.count).toBe(model.size);
  });

  // The bound of the design: free slots, growth and rounding included.
  test("takes at most 72 bytes an entry at every count from 1,000 to 400,000", () => {
    const index = new BlobIndex();
    let worst = 0;
    for (let count = 1; count <= 400_000; count++) {
      const words = Uint32Array.from({ length: 8 }, (_, word) => Math.imul(count, 0x9e3779b1 + word * 77) >>> 0);
      index.insert(KIND, words, 0);
      if (count >= 1000 && count % 97 === 0) worst = Math.max(worst, index.bytes / count);
    }
    expect(worst).toBeLessThanOrEqual(72);
  });

  test("keys in ascending order, as the start reads them, fill all segments alike", () => {
    const index = new BlobIndex();
    for (let i = 0; i < 100_000; i++) index.insert(KIND, Uint32Array.from([i * 40_000, i, 1, 2, 3, 4, 5, 6]), 0);
    expect(index.count).toBe(100_000);
    expect(index.bytes / index.count).toBeLessThanOrEqual(72);
  });

  // Somebody who picks digests can make many that share their first words; they cost a slower probe, not the index.
  test("entries that share a segment overfill no segment", () => {
    const index = new BlobIndex();
    insertAll(index, randomWords(30_000));
    const aimed = new Uint32Array(8);
    for (let i = 0; i < 20_000; i++) {
      aimed.set([7, Math.imul(i, 0x85ebca6b) >>> 0, i, 0, 0, 0, 0, 0]);
      index.insert(KIND, aimed, 0);
    }
    for (let i = 0; i < 20_000; i++) {
      aimed.set([7, Math.imul(i, 0x85ebca6b) >>> 0, i, 0, 0, 0, 0, 0]);
      if (index.find(KIND, aimed, 0) < 0) throw new Error(`entry ${i} is lost`);
    }
  });

  test("spread() is a number of 32 bits without sign", () => {
    for (const word of [0, 1, 0xffffffff, 0x80000000]) expect(spread(word, 12_345)).toBe(spread(word, 12_345) >>> 0);
  });
});
