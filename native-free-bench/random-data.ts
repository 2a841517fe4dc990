// Pseudo-random bytes and numbers from a seed: the same seed makes the same load.
//
// Invariant: nothing here reads a clock or the system's randomness except `newSeed`. The generator is
// xoshiro128**: good for filling blobs, useless for secrets.

import { randomInt } from "node:crypto";

export function newSeed(): number {
  return randomInt(1, 2 ** 31);
}

export class RandomData {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number) {
    // splitmix32 spreads a small seed over the state, which must not be all zero.
    let state = seed >>> 0;
    const next = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1;
  }

  /** An integer in [0, 2^32). */
  word(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** A number in [0, 1). */
  fraction(): number {
    return this.word() / 2 ** 32;
  }

  /** An integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.fraction() * bound);
  }

  bytes(sizeBytes: number): Buffer {
    const words = new Uint32Array(Math.ceil(sizeBytes / 4));
    for (let index = 0; index < words.length; index++) words[index] = this.word();
    return Buffer.from(words.buffer, 0, sizeBytes);
  }

  /**
   * Bytes of which about `compressibleShare` vanishes under a compressor: random and repeated stretches of 64 bytes
   * alternate, so that any prefix is as compressible as the whole.
   */
  compressibleBytes(sizeBytes: number, compressibleShare: number): Buffer {
    const data = this.bytes(sizeBytes);
    for (let start = 0; start < sizeBytes; start += 64) {
      if (this.fraction() < compressibleShare) data.fill(0x20, start, Math.min(start + 64, sizeBytes));
    }
    // The head stays random, or short blobs of equal size would be equal.
    data.set(this.bytes(Math.min(16, sizeBytes)), 0);
    return data;
  }

  uuid(): string {
    const hex = this.bytes(16).toString("hex");
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
  }
}
