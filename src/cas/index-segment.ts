// One segment of the index: a closed hash table in typed arrays, linear probing in Robin Hood order, no tombstones.
//
//   first   4 words of hash a slot   probed
//   second  4 words of hash a slot   read only after the first half matched
//   misc    kind | flags | place high | size high, a byte each; 0 = the slot is free
//
// Invariant: between an entry's home slot and its slot no slot is free and no entry is nearer to its home than this one
// would be. So a probe for an absent hash ends after about 5 slots at 88 % full (35 in plain linear probing); inserting
// moves entries on, removing moves them back.
// Together 50 bytes a slot. Which segment a hash belongs to is blob-index.ts's business.

export const BYTES_PER_SLOT = 50;

/** Sizes and places are kept as 32 low bits here and 8 high bits in `misc`. */
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
  readonly first: Uint32Array;
  readonly second: Uint32Array;
  readonly sizeLow: Uint32Array;
  readonly placeLow: Uint32Array;
  readonly access: Uint32Array;
  readonly misc: Uint32Array;
  readonly lease: Uint16Array;
  used = 0;

  constructor(slots: number, seed: number) {
    this.slots = slots;
    this.seed = seed;
    // One allocation a segment, cut into the arrays.
    const buffer = allocate(slots * BYTES_PER_SLOT);
    this.first = new Uint32Array(buffer, 0, slots * 4);
    this.second = new Uint32Array(buffer, slots * 16, slots * 4);
    this.sizeLow = new Uint32Array(buffer, slots * 32, slots);
    this.placeLow = new Uint32Array(buffer, slots * 36, slots);
    this.access = new Uint32Array(buffer, slots * 40, slots);
    this.misc = new Uint32Array(buffer, slots * 44, slots);
    this.lease = new Uint16Array(buffer, slots * 48, slots);
  }

  /** The slot of the entry of `kind` with the 8 words at `offset`, or -1. */
  find(kind: number, words: Uint32Array, offset: number): number {
    const w0 = words[offset] as number;
    const w1 = words[offset + 1] as number;
    const w2 = words[offset + 2] as number;
    const w3 = words[offset + 3] as number;
    const { first, misc, slots } = this;
    let slot = this.#home(w1);
    for (let distance = 0; ; distance++) {
      const entry = misc[slot] as number;
      if (entry === 0) return -1;
      const at = slot * 4;
      const stored = first[at + 1] as number;
      if (
        stored === w1 &&
        first[at] === w0 &&
        first[at + 2] === w2 &&
        first[at + 3] === w3 &&
        entry >>> 24 === kind &&
        this.#secondHalfIs(at, words, offset + 4)
      ) {
        return slot;
      }
      if (this.#distance(stored, slot) < distance) return -1;
      if (++slot === slots) slot = 0;
    }
  }

  /** Makes an entry for the hash and returns its slot. The caller has made sure that it is absent and that one is free. */
  insert(kind: number, words: Uint32Array, offset: number): number {
    const slot = this.#makeRoomFor(words[offset + 1] as number);
    for (let word = 0; word < 4; word++) {
      this.first[slot * 4 + word] = words[offset + word] as number;
      this.second[slot * 4 + word] = words[offset + 4 + word] as number;
    }
    this.misc[slot] = kind << 24;
    this.access[slot] = 0;
    this.lease[slot] = 0;
    return slot;
  }

  /** Puts a copy of slot `from` of `source` into this segment. */
  insertCopy(source: IndexSegment, from: number): void {
    this.#copySlot(source, from, this.#makeRoomFor(source.first[from * 4 + 1] as number));
  }

  /** Frees `slot` and moves the entries behind it back, up to one that is at home. */
  remove(slot: number): void {
    this.used--;
    let free = slot;
    for (;;) {
      const next = free + 1 === this.slots ? 0 : free + 1;
      if (this.misc[next] === 0 || this.#distance(this.first[next * 4 + 1] as number, next) === 0) break;
      this.#copySlot(this, next, free);
      free = next;
    }
    this.misc[free] = 0;
  }

  sizeAt(slot: number): number {
    return ((this.misc[slot] as number) & 0xff) * LOW + (this.sizeLow[slot] as number);
  }

  placeAt(slot: number): number {
    return (((this.misc[slot] as number) >>> 8) & 0xff) * LOW + (this.placeLow[slot] as number);
  }

  kindAt(slot: number): number {
    return (this.misc[slot] as number) >>> 24;
  }

  flagsAt(slot: number): number {
    return ((this.misc[slot] as number) >>> 16) & 0xff;
  }

  setFlags(slot: number, flags: number): void {
    this.misc[slot] = (((this.misc[slot] as number) & 0xff00ffff) | (flags << 16)) >>> 0;
  }

  setSizeAndPlace(slot: number, sizeBytes: number, place: number): void {
    const high = (Math.floor(place / LOW) << 8) | Math.floor(sizeBytes / LOW);
    this.misc[slot] = (((this.misc[slot] as number) & 0xffff0000) | high) >>> 0;
    this.sizeLow[slot] = sizeBytes % LOW;
    this.placeLow[slot] = place % LOW;
  }

  /** Writes the 8 words of the hash in `slot` to `words`. */
  readHash(slot: number, words: Uint32Array, offset = 0): void {
    for (let word = 0; word < 4; word++) {
      words[offset + word] = this.first[slot * 4 + word] as number;
      words[offset + 4 + word] = this.second[slot * 4 + word] as number;
    }
  }

  #home(word: number): number {
    return Math.floor((spread(word, this.seed) / LOW) * this.slots);
  }

  /** How far `slot` is from the home of the entry in it, whose second word is `word`. */
  #distance(word: number, slot: number): number {
    const distance = slot - this.#home(word);
    return distance < 0 ? distance + this.slots : distance;
  }

  /** The slot where an entry with this second word belongs, freed by moving what is behind it one slot on. */
  #makeRoomFor(word: number): number {
    this.used++;
    let slot = this.#home(word);
    for (let distance = 0; this.misc[slot] !== 0; distance++) {
      if (this.#distance(this.first[slot * 4 + 1] as number, slot) < distance) break;
      if (++slot === this.slots) slot = 0;
    }
    let free = slot;
    while (this.misc[free] !== 0) if (++free === this.slots) free = 0;
    while (free !== slot) {
      const before = free === 0 ? this.slots - 1 : free - 1;
      this.#copySlot(this, before, free);
      free = before;
    }
    return slot;
  }

  #secondHalfIs(at: number, words: Uint32Array, offset: number): boolean {
    const { second } = this;
    return (
      second[at] === words[offset] &&
      second[at + 1] === words[offset + 1] &&
      second[at + 2] === words[offset + 2] &&
      second[at + 3] === words[offset + 3]
    );
  }

  #copySlot(source: IndexSegment, from: number, to: number): void {
    for (let word = 0; word < 4; word++) {
      this.first[to * 4 + word] = source.first[from * 4 + word] as number;
      this.second[to * 4 + word] = source.second[from * 4 + word] as number;
    }
    this.sizeLow[to] = source.sizeLow[from] as number;
    this.placeLow[to] = source.placeLow[from] as number;
    this.access[to] = source.access[from] as number;
    this.misc[to] = source.misc[from] as number;
    this.lease[to] = source.lease[from] as number;
  }
}

/**
 * Where segments get their memory. A second event loop would need a SharedArrayBuffer here; never a growable one, whose
 * probes are four times slower.
 */
function allocate(bytes: number): ArrayBuffer {
  return new ArrayBuffer(Math.ceil(bytes / 4) * 4);
}
