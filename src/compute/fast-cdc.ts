// FastCDC 2020 with normalization level 2: where content, not position, says that a chunk ends.
//
// Source: FastCdc2020Params in the protocol. 64-bit hashes are kept as two numbers of 32 bits; test/compute/fast-cdc.test.ts
// holds the plain version with BigInt. Gear words are MD5 over the byte value repeated 64 times, first 8 bytes.

import { createHash } from "node:crypto";

/** One-bits of the mask by its index, which is log2 of the mean distance between cuts. */
const MASKS: Readonly<Record<number, readonly [high: number, low: number]>> = {
  8: [0x18, 0x00035300],
  9: [0x190, 0x00353000],
  10: [0x5900, 0x03530000],
  11: [0xd900, 0x03530000],
  12: [0xd901, 0x03530000],
  13: [0xd903, 0x03530000],
  14: [0xd903, 0x13530000],
  15: [0xd90f, 0x03530000],
  16: [0xd903, 0x03537000],
  17: [0xd907, 0x03537000],
  18: [0xd907, 0x07537000],
  19: [0xd917, 0x07537000],
  20: [0xd917, 0x47537000],
  21: [0xd917, 0x67537000],
  22: [0xd937, 0x67537000],
};

export interface FastCdcParams {
  /** A power of two, 1 KiB to 1 MiB. */
  readonly averageBytes: number;
  readonly seed: number;
}

export class FastCdc {
  readonly minBytes: number;
  readonly averageBytes: number;
  readonly maxBytes: number;
  readonly #high = new Uint32Array(256);
  readonly #low = new Uint32Array(256);
  readonly #smallMask: Mask;
  readonly #largeMask: Mask;

  constructor(params: FastCdcParams) {
    const bits = Math.log2(params.averageBytes);
    const [small, large] = [MASKS[bits + 2], MASKS[bits - 2]];
    if (small === undefined || large === undefined || bits < 10) {
      throw new RangeError(`average chunk size ${params.averageBytes} is not a power of two between 1 KiB and 1 MiB`);
    }
    this.averageBytes = params.averageBytes;
    this.minBytes = params.averageBytes / 4;
    this.maxBytes = params.averageBytes * 4;
    this.#smallMask = new Mask(small);
    this.#largeMask = new Mask(large);
    for (let byte = 0; byte < 256; byte++) {
      const word = createHash("md5").update(Buffer.alloc(64, byte)).digest();
      this.#high[byte] = word.readUInt32BE(0);
      this.#low[byte] = (word.readUInt32BE(4) ^ params.seed) >>> 0;
    }
  }

  /** The length of the first chunk of `data`, which holds at least maxBytes, or all that is left. */
  cut(data: Uint8Array, maxBytes: number = this.maxBytes): number {
    if (data.length <= this.minBytes) return data.length;
    const limit = Math.min(data.length, maxBytes);
    const normal = Math.min(this.averageBytes, limit);
    const middle = Math.floor(normal / 2) * 2;
    const state = { high: 0, low: 0, at: Math.floor(this.minBytes / 2) * 2 };
    return (
      this.#scan(data, state, middle, this.#smallMask) ??
      this.#scan(data, state, Math.floor(limit / 2) * 2, this.#largeMask) ??
      limit
    );
  }

  /** Goes on from `state` up to `end`, a pair of bytes at a time; the position of the cut, or undefined. */
  #scan(
    data: Uint8Array,
    state: { high: number; low: number; at: number },
    end: number,
    mask: Mask,
  ): number | undefined {
    const [gearHigh, gearLow] = [this.#high, this.#low];
    const { high: maskHigh, low: maskLow, highTwice, lowTwice } = mask;
    let { high, low, at } = state;
    for (; at < end; at += 2) {
      const first = data[at] as number;
      const gearHighTwice = ((gearHigh[first] as number) << 1) | ((gearLow[first] as number) >>> 31);
      const gearLowTwice = (gearLow[first] as number) << 1;
      // hash = (hash << 2) + (gear << 1), modulo 2^64
      high = (high << 2) | (low >>> 30);
      low = (low << 2) >>> 0;
      let sum = low + (gearLowTwice >>> 0);
      high = (high + gearHighTwice + (sum > 0xffffffff ? 1 : 0)) | 0;
      low = sum >>> 0;
      if ((high & highTwice) === 0 && (low & lowTwice) === 0) return at;
      const second = data[at + 1] as number;
      sum = low + (gearLow[second] as number);
      high = (high + (gearHigh[second] as number) + (sum > 0xffffffff ? 1 : 0)) | 0;
      low = sum >>> 0;
      if ((high & maskHigh) === 0 && (low & maskLow) === 0) return at + 1;
    }
    state.high = high;
    state.low = low;
    state.at = at;
    return undefined;
  }
}

class Mask {
  readonly high: number;
  readonly low: number;
  readonly highTwice: number;
  readonly lowTwice: number;

  constructor([high, low]: readonly [number, number]) {
    this.high = high;
    this.low = low;
    this.highTwice = (high << 1) | (low >>> 31);
    this.lowTwice = low << 1;
  }
}
