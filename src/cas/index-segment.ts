// One segment of the index: a closed hash table, linear probing in Robin Hood order, no tombstones.
//
// A slot is 12 words of 32 bits side by side, so that a probe touches one or two cache lines and one page of memory
// (an array for each fact took five of each: 394 ns for a present digest among a million, against 200; absent ones 146
// against 200; best of several on a busy machine):
//
//   0      kind | flags | place high | size high, a byte each; 0 = the slot is free
//   1-4    first half of the hash, its second word first: that one decides the slot
//   5      last access           6      size low           7      place low
//   8-11   second half of the hash, read only after the first matched
//
// Invariant: between an entry's home slot and its slot no slot is free and no entry is nearer to its home than this one
// would be. So a probe for an absent hash ends after about 5 slots at 88 % full (35 in plain linear probing); inserting
// moves entries on, removing moves them back. Which segment a hash belongs to is blob-index.ts's business.

const WORDS_PER_SLOT = 12;
const FACTS = 0;
const ACCESS = 5;
const SIZE_LOW = 6;
const PLACE_LOW = 7;

/** 48 in the table and 2 for the lease. */
export const BYTES_PER_SLOT = 50;

/** Sizes and places are kept as 32 low bits in words of their own and 8 high bits beside kind and flags. */
export const LOW = 2 ** 32;
export const MAX_40_BIT = 2 ** 40 - 1;

/** A multiplier with good avalanche into the high bits (2^32 divided by the golden ratio). */
const MULTIPLIER = 0x9e3779b1;

/** Spreads a word of hash; `seed` is secret, so that nobody can aim at one slot. */
export function spread(word: number, seed: number): number {
  return Math.imul(word ^ seed, MULTIPLIER) >>> 0;
}

export class IndexSegment {
  readonly slots: number;
  readonly seed: number;
  readonly #words: Uint32Array;
  readonly #leases: Uint16Array;
  used = 0;

  constructor(slots: number, seed: number) {
    this.slots = slots;
    this.seed = seed;
    // One allocation a segment, cut into the two.
    const buffer = allocate(slots * BYTES_PER_SLOT);
    this.#words = new Uint32Array(buffer, 0, slots * WORDS_PER_SLOT);
    this.#leases = new Uint16Array(buffer, slots * WORDS_PER_SLOT * 4, slots);
  }

  /** The slot of the entry of `kind` with the 8 words at `offset`, or -1. */
  find(kind: number, words: Uint32Array, offset: number): number {
    const table = this.#words;
    const { slots, seed } = this;
    const w1 = words[offset + 1] as number;
    let slot = Math.floor((spread(w1, seed) / LOW) * slots);
    for (let distance = 0; ; distance++) {
      const at = slot * WORDS_PER_SLOT;
      const facts = table[at] as number;
      if (facts === 0) return -1;
      const stored = table[at + 1] as number;
      if (stored === w1 && facts >>> 24 === kind && isHash(table, at, words, offset)) return slot;
      const home = Math.floor((spread(stored, seed) / LOW) * slots);
      if ((slot >= home ? slot - home : slot - home + slots) < distance) return -1;
      if (++slot === slots) slot = 0;
    }
  }

  /** Makes an entry for the hash and returns its slot. The caller has made sure that it is absent and that one is free. */
  insert(kind: number, words: Uint32Array, offset: number): number {
    const slot = this.#makeRoomFor(words[offset + 1] as number);
    const at = slot * WORDS_PER_SLOT;
    const table = this.#words;
    table[at] = kind << 24;
    table[at + 1] = words[offset + 1] as number;
    table[at + 2] = words[offset] as number;
    table[at + 3] = words[offset + 2] as number;
    table[at + 4] = words[offset + 3] as number;
    table.fill(0, at + ACCESS, at + 8);
    for (let word = 4; word < 8; word++) table[at + 4 + word] = words[offset + word] as number;
    this.#leases[slot] = 0;
    return slot;
  }

  /** Puts a copy of slot `from` of `source` into this segment. */
  insertCopy(source: IndexSegment, from: number): void {
    this.#copySlot(source, from, this.#makeRoomFor(source.#words[from * WORDS_PER_SLOT + 1] as number));
  }

  /** Frees `slot` and moves the entries behind it back, up to one that is at home. */
  remove(slot: number): void {
    this.used--;
    let free = slot;
    for (;;) {
      const next = free + 1 === this.slots ? 0 : free + 1;
      if (this.isFree(next) || this.#distance(next) === 0) break;
      this.#copySlot(this, next, free);
      free = next;
    }
    this.#words[free * WORDS_PER_SLOT] = 0;
  }

  isFree(slot: number): boolean {
    return this.#words[slot * WORDS_PER_SLOT] === 0;
  }

  sizeAt(slot: number): number {
    const at = slot * WORDS_PER_SLOT;
    return ((this.#words[at] as number) & 0xff) * LOW + (this.#words[at + SIZE_LOW] as number);
  }

  placeAt(slot: number): number {
    const at = slot * WORDS_PER_SLOT;
    return (((this.#words[at] as number) >>> 8) & 0xff) * LOW + (this.#words[at + PLACE_LOW] as number);
  }

  kindAt(slot: number): number {
    return (this.#words[slot * WORDS_PER_SLOT] as number) >>> 24;
  }

  flagsAt(slot: number): number {
    return ((this.#words[slot * WORDS_PER_SLOT] as number) >>> 16) & 0xff;
  }

  setFlags(slot: number, flags: number): void {
    const at = slot * WORDS_PER_SLOT + FACTS;
    this.#words[at] = (((this.#words[at] as number) & 0xff00ffff) | (flags << 16)) >>> 0;
  }

  accessAt(slot: number): number {
    return this.#words[slot * WORDS_PER_SLOT + ACCESS] as number;
  }

  setAccess(slot: number, access: number): void {
    this.#words[slot * WORDS_PER_SLOT + ACCESS] = access;
  }

  /** The number of the invocations that hold the entry; 0 = none. */
  leaseAt(slot: number): number {
    return this.#leases[slot] as number;
  }

  setLease(slot: number, lease: number): void {
    this.#leases[slot] = lease;
  }

  /** Replaces each number by the one at its place in `numbers`. */
  renumberLeases(numbers: Uint16Array): void {
    for (let slot = 0; slot < this.slots; slot++) this.#leases[slot] = numbers[this.#leases[slot] as number] ?? 0;
  }

  setSizeAndPlace(slot: number, sizeBytes: number, place: number): void {
    const at = slot * WORDS_PER_SLOT;
    const high = (Math.floor(place / LOW) << 8) | Math.floor(sizeBytes / LOW);
    this.#words[at] = (((this.#words[at] as number) & 0xffff0000) | high) >>> 0;
    this.#words[at + SIZE_LOW] = sizeBytes % LOW;
    this.#words[at + PLACE_LOW] = place % LOW;
  }

  /** Writes the 8 words of the hash in `slot` to `words`. */
  readHash(slot: number, words: Uint32Array): void {
    const at = slot * WORDS_PER_SLOT;
    words[0] = this.#words[at + 2] as number;
    words[1] = this.#words[at + 1] as number;
    words[2] = this.#words[at + 3] as number;
    words[3] = this.#words[at + 4] as number;
    for (let word = 4; word < 8; word++) words[word] = this.#words[at + 4 + word] as number;
  }

  /** The first word of the hash in `slot`, which decides the segment. */
  firstWordAt(slot: number): number {
    return this.#words[slot * WORDS_PER_SLOT + 2] as number;
  }

  /** How far `slot` is from the home of the entry in it. */
  #distance(slot: number): number {
    const distance = slot - this.#home(this.#words[slot * WORDS_PER_SLOT + 1] as number);
    return distance < 0 ? distance + this.slots : distance;
  }

  #home(word: number): number {
    return Math.floor((spread(word, this.seed) / LOW) * this.slots);
  }

  /** The slot where an entry with this second word belongs, freed by moving what is behind it one slot on. */
  #makeRoomFor(word: number): number {
    this.used++;
    let slot = this.#home(word);
    for (let distance = 0; !this.isFree(slot); distance++) {
      if (this.#distance(slot) < distance) break;
      if (++slot === this.slots) slot = 0;
    }
    let free = slot;
    while (!this.isFree(free)) if (++free === this.slots) free = 0;
    if (free > slot) {
      this.#words.copyWithin((slot + 1) * WORDS_PER_SLOT, slot * WORDS_PER_SLOT, free * WORDS_PER_SLOT);
      this.#leases.copyWithin(slot + 1, slot, free);
      return slot;
    }
    // The run goes on at the beginning of the table.
    while (free !== slot) {
      const before = free === 0 ? this.slots - 1 : free - 1;
      this.#copySlot(this, before, free);
      free = before;
    }
    return slot;
  }

  #copySlot(source: IndexSegment, from: number, to: number): void {
    const [begin, target] = [from * WORDS_PER_SLOT, to * WORDS_PER_SLOT];
    for (let word = 0; word < WORDS_PER_SLOT; word++)
      this.#words[target + word] = source.#words[begin + word] as number;
    this.#leases[to] = source.#leases[from] as number;
  }
}

function isHash(table: Uint32Array, at: number, words: Uint32Array, offset: number): boolean {
  return (
    table[at + 2] === words[offset] &&
    table[at + 3] === words[offset + 2] &&
    table[at + 4] === words[offset + 3] &&
    table[at + 8] === words[offset + 4] &&
    table[at + 9] === words[offset + 5] &&
    table[at + 10] === words[offset + 6] &&
    table[at + 11] === words[offset + 7]
  );
}

/**
 * Where segments get their memory. A second event loop would need a SharedArrayBuffer here; never a growable one, whose
 * probes are four times slower.
 */
function allocate(bytes: number): ArrayBuffer {
  return new ArrayBuffer(Math.ceil(bytes / 4) * 4);
}
