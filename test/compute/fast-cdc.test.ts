// Content-defined chunking against the published algorithm and its parameters.

import { createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { FastCdc } from "../../src/compute/fast-cdc.ts";

const MASKS = new Map<number, bigint>([
  [10, 0x590003530000n],
  [12, 0xd90103530000n],
  [14, 0xd90313530000n],
  [16, 0xd90303537000n],
  [18, 0xd90707537000n],
  [20, 0xd91747537000n],
  [22, 0xd93767537000n],
  [8, 0x1800035300n],
]);

const MODULUS = (1n << 64n) - 1n;

/** The algorithm as the protocol words it, with whole 64-bit numbers. */
function plainCut(data: Uint8Array, average: number, max: number, seed: number): number {
  const gear = Array.from({ length: 256 }, (_, byte) => {
    return createHash("md5").update(Buffer.alloc(64, byte)).digest().readBigUInt64BE(0) ^ BigInt(seed);
  });
  const bits = Math.log2(average);
  const [small, large] = [MASKS.get(bits + 2) as bigint, MASKS.get(bits - 2) as bigint];
  const min = average / 4;
  if (data.length <= min) return data.length;
  const limit = Math.min(data.length, max);
  const normal = Math.min(average, limit);
  let hash = 0n;
  for (let pair = Math.floor(min / 2); pair < Math.floor(limit / 2); pair++) {
    const mask = pair < Math.floor(normal / 2) ? small : large;
    hash = ((hash << 2n) + ((gear[data[pair * 2] as number] as bigint) << 1n)) & MODULUS;
    if ((hash & (mask << 1n)) === 0n) return pair * 2;
    hash = (hash + (gear[data[pair * 2 + 1] as number] as bigint)) & MODULUS;
    if ((hash & mask) === 0n) return pair * 2 + 1;
  }
  return limit;
}

describe("FastCdc", () => {
  test("the gear words are those of the protocol", () => {
    const words = [0, 1, 2].map((byte) => createHash("md5").update(Buffer.alloc(64, byte)).digest("hex").slice(0, 16));
    expect(words).toEqual(["3b5d3c7d207e37dc", "784d68ba91123086", "cd52880f882e7298"]);
  });

  test("cuts where the plain version cuts, for several averages and seeds", () => {
    for (const [average, seed] of [
      [1024, 0],
      [4096, 666],
      [16_384, 0],
      [16_384, 0xffffffff],
      [65_536, 1],
    ] as const) {
      const cdc = new FastCdc({ averageBytes: average, seed });
      const data = randomBytes(average * 12);
      let offset = 0;
      while (offset < data.length) {
        const rest = data.subarray(offset);
        const length = cdc.cut(rest);
        expect(length).toBe(plainCut(rest, average, average * 4, seed));
        offset += length;
      }
    }
  });

  test("chunks are between a quarter and four times the average, and average about that", () => {
    const cdc = new FastCdc({ averageBytes: 16_384, seed: 0 });
    const data = randomBytes(6_000_000);
    const lengths: number[] = [];
    for (let offset = 0; offset < data.length; offset += lengths.at(-1) ?? 0)
      lengths.push(cdc.cut(data.subarray(offset)));
    for (const length of lengths.slice(0, -1)) {
      expect(length).toBeGreaterThanOrEqual(4096);
      expect(length).toBeLessThanOrEqual(65_536);
    }
    expect(data.length / lengths.length).toBeGreaterThan(10_000);
    expect(data.length / lengths.length).toBeLessThan(26_000);
  });

  test("bytes of one value are cut at the limit", () => {
    const cdc = new FastCdc({ averageBytes: 1024, seed: 0 });
    const data = new Uint8Array(10_000);
    expect(cdc.cut(data)).toBe(plainCut(data, 1024, 4096, 0));
  });

  test("averages outside the protocol's range are refused", () => {
    for (const averageBytes of [512, 1000, 2 ** 21])
      expect(() => new FastCdc({ averageBytes, seed: 0 })).toThrow(RangeError);
  });
});
