// Collects the positions of absent digests of one batch, each distinct digest once.
//
// A small hash table of positions, reused between calls; only absent digests ever enter it, so a call in which
// everything is present costs nothing here.

import { WORDS_PER_HASH } from "../digest/digest-batch.ts";

const NONE = 0;

export class MissingSet {
  #positions = new Uint32Array(1024);
  #count = 0;
  /** Position + 1 by hash, 0 where free. */
  #table = new Uint32Array(4096);
  #mask = 4095;
  #used = false;

  /** Begins a batch of `count` digests. */
  begin(count: number): void {
    this.#count = 0;
    if (this.#positions.length < count) this.#positions = new Uint32Array(count * 2);
    const wanted = this.#positions.length * 4;
    if (this.#table.length < wanted) {
      let size = this.#table.length;
      while (size < wanted) size *= 2;
      this.#table = new Uint32Array(size);
      this.#mask = size - 1;
    } else if (this.#used) {
      this.#table.fill(NONE);
    }
    this.#used = false;
  }

  add(words: Uint32Array, sizesBytes: Float64Array, position: number): void {
    const offset = position * WORDS_PER_HASH;
    this.#used = true;
    let bucket = (words[offset + 1] as number) & this.#mask;
    for (;;) {
      const other = (this.#table[bucket] as number) - 1;
      if (other < 0) break;
      if (sizesBytes[other] === sizesBytes[position] && sameHash(words, other * WORDS_PER_HASH, offset)) return;
      bucket = (bucket + 1) & this.#mask;
    }
    this.#table[bucket] = position + 1;
    this.#positions[this.#count++] = position;
  }

  /** The positions, ascending as they were added, in an array of their own. */
  end(): Uint32Array {
    return this.#positions.slice(0, this.#count);
  }
}

function sameHash(words: Uint32Array, a: number, b: number): boolean {
  for (let word = 0; word < WORDS_PER_HASH; word++) if (words[a + word] !== words[b + word]) return false;
  return true;
}
