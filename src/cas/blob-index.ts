// The index in memory: every stored entry by its 32-byte hash, in segments that are replaced one at a time.
//
// Segments divide the range of a spread hash word evenly. Growing by a sixth makes a new generation of segments and
// moves a frontier through the range: hashes below it live in the new generation, above it in the old one. One step
// fills one new segment (about 0.1 ms), so growing never stops the loop, and at most 72 bytes a blob are taken at any
// count: 50 bytes a slot, and between 75 and 88 % of the slots are used.
//
// Entries are kinds of things under one mechanism: a blob's kind is its digest function's number, values have their own
// (value-store.ts). Slots move: a slot number is good until the next insert or remove.

import { randomInt } from "node:crypto";
import { BYTES_PER_SLOT, IndexSegment, LOW, spread } from "./index-segment.ts";

/** Flags of an entry. */
export const IndexFlag = {
  /** The bytes are a file named by the hash; otherwise `place` is the id of a value in the key-value store. */
  FILE: 1,
  /** Asked for again after it was stored. */
  REUSED: 2,
  /** Last access is newer than what the key-value store knows. */
  TOUCHED: 4,
  // 0x70 is entry-groups.ts's.
} as const;

const FILL_LIMIT = 0.88;
const GROWTH = 1.16;
const MIN_SLOTS = 1024;
/** Up to here there is one segment, replaced at once (0.4 ms). */
const MAX_SINGLE_SEGMENT_SLOTS = 4096;
/** From there on at least 16, because growth holds two generations of one or two segments. */
const MIN_SEGMENT_SLOTS = 256;
const MIN_SEGMENTS = 32;
/** A segment of 800 KiB: one step of growth reads at most three of them. */
const MAX_SEGMENT_SLOTS = 16_384;
/** Growth must end before the old generation is full: at 32 inserts a step it is over after 0.3 % more entries. */
const INSERTS_PER_STEP = 32;
/** A segment that fills up out of line (hashes aimed at it) is enlarged by itself. */
const SEGMENT_FILL_LIMIT = 0.95;

interface Generation {
  /** Into how many parts the range is divided; `segments` has as many once the generation is whole. */
  readonly segmentCount: number;
  readonly segmentSlots: number;
  readonly segments: IndexSegment[];
}

export class BlobIndex {
  readonly #seed = randomInt(2 ** 32);
  /** Stands where the frontier has passed, so that memory is freed as growth goes on. */
  readonly #nothing = new IndexSegment(1, this.#seed);
  #current: Generation;
  #next: Generation | undefined;
  #insertsSinceStep = 0;
  #count = 0;

  /** The segment of the last successful find() or insert(); its accessors take the slot number that was returned. */
  at: IndexSegment = this.#nothing;

  constructor(options: { readonly expectedCount?: number } = {}) {
    this.#current = planGeneration((options.expectedCount ?? 0) / (FILL_LIMIT - 0.05));
    while (this.#current.segments.length < this.#current.segmentCount) this.#addSegment(this.#current);
  }

  get count(): number {
    return this.#count;
  }

  /** Memory taken by slots, free ones included. */
  get bytes(): number {
    let slots = 0;
    for (const segment of this.#current.segments) slots += segment.slots;
    for (const segment of this.#next?.segments ?? []) slots += segment.slots;
    return slots * BYTES_PER_SLOT;
  }

  /** The slot of the entry, with its segment in `at`, or -1. */
  find(kind: number, words: Uint32Array, offset: number): number {
    const segment = this.#segmentOf(words[offset] as number);
    const slot = segment.find(kind, words, offset);
    if (slot >= 0) this.at = segment;
    return slot;
  }

  /** Makes an entry and returns its slot, with its segment in `at`. The caller has made sure that it is absent. */
  insert(kind: number, words: Uint32Array, offset: number): number {
    this.#growIfNeeded();
    const word = words[offset] as number;
    let segment = this.#segmentOf(word);
    if (segment.used + 1 > segment.slots * SEGMENT_FILL_LIMIT) segment = this.#enlarge(segment);
    this.at = segment;
    this.#count++;
    return segment.insert(kind, words, offset);
  }

  /** Removes the entry in `slot` of `at`. */
  remove(slot: number): void {
    this.at.remove(slot);
    this.#count--;
  }

  /** How many calls of visit() make a walk over everything. */
  get walkLength(): number {
    return this.#current.segments.length + (this.#next?.segments.length ?? 0);
  }

  /**
   * Calls `visitor` for every entry of one segment. The visitor must not insert or remove. Growth between two calls may
   * make a walk miss or repeat entries; within a call nothing moves.
   */
  visit(step: number, visitor: (segment: IndexSegment, slot: number) => void): void {
    const oldCount = this.#current.segments.length;
    const segment = this.#current.segments[step] ?? this.#next?.segments[step - oldCount];
    if (segment === undefined) return;
    const frontier = this.#next?.segments.length ?? 0;
    const parts = this.#next?.segmentCount ?? 1;
    for (let slot = 0; slot < segment.slots; slot++) {
      if (segment.isFree(slot)) continue;
      // What the frontier has passed is a stale copy here.
      if (step < oldCount && frontier > 0 && this.#part(segment.firstWordAt(slot), parts) < frontier) continue;
      visitor(segment, slot);
    }
  }

  /** Replaces the number of each lease; 2 ns an entry, for which the event loop waits. */
  renumberLeases(numbers: Uint16Array): void {
    for (const segment of [...this.#current.segments, ...(this.#next?.segments ?? [])]) segment.renumberLeases(numbers);
  }

  #part(word: number, parts: number): number {
    return Math.floor((spread(word, this.#seed) / LOW) * parts);
  }

  #segmentOf(word: number): IndexSegment {
    const next = this.#next;
    if (next !== undefined) {
      const moved = next.segments[this.#part(word, next.segmentCount)];
      if (moved !== undefined) return moved;
    }
    const { segments } = this.#current;
    return segments[this.#part(word, segments.length)] as IndexSegment;
  }

  #growIfNeeded(): void {
    if (this.#next === undefined) {
      const slots = this.#current.segmentCount * this.#current.segmentSlots;
      if (this.#count < slots * FILL_LIMIT) return;
      this.#next = planGeneration(slots * GROWTH);
      this.#insertsSinceStep = 0;
      // A single segment cannot be let go of piece by piece, and is small enough to be replaced at once.
      if (this.#current.segmentCount === 1) for (const next = this.#next; this.#next !== undefined;) this.#step(next);
      return;
    }
    if (this.#insertsSinceStep++ % INSERTS_PER_STEP === 0) this.#step(this.#next);
  }

  /** Fills the next segment of the new generation and lets go of the old ones that it has emptied. */
  #step(next: Generation): void {
    const old = this.#current.segments;
    const part = next.segments.length;
    const begin = Math.floor((part * old.length) / next.segmentCount);
    const end = Math.min(old.length - 1, Math.floor(((part + 1) * old.length) / next.segmentCount));
    let target = new IndexSegment(next.segmentSlots, this.#seed);
    for (let index = begin; index <= end; index++) {
      const source = old[index] as IndexSegment;
      for (let slot = 0; slot < source.slots; slot++) {
        if (source.isFree(slot)) continue;
        if (this.#part(source.firstWordAt(slot), next.segmentCount) !== part) continue;
        if (target.used + 1 > target.slots * SEGMENT_FILL_LIMIT) target = enlarged(target);
        target.insertCopy(source, slot);
      }
      if ((index + 1) / old.length <= (part + 1) / next.segmentCount) old[index] = this.#nothing;
    }
    next.segments.push(target);
    if (next.segments.length < next.segmentCount) return;
    this.#current = next;
    this.#next = undefined;
  }

  #enlarge(segment: IndexSegment): IndexSegment {
    const larger = enlarged(segment);
    for (const generation of [this.#current, this.#next]) {
      const index = generation?.segments.indexOf(segment) ?? -1;
      if (generation !== undefined && index >= 0) generation.segments[index] = larger;
    }
    return larger;
  }

  #addSegment(generation: Generation): void {
    generation.segments.push(new IndexSegment(generation.segmentSlots, this.#seed));
  }
}

function planGeneration(wantedSlots: number): Generation {
  const slots = Math.ceil(Math.max(MIN_SLOTS, wantedSlots));
  if (slots <= MAX_SINGLE_SEGMENT_SLOTS) return { segmentCount: 1, segmentSlots: slots, segments: [] };
  const wanted = Math.min(MAX_SEGMENT_SLOTS, Math.max(MIN_SEGMENT_SLOTS, slots / MIN_SEGMENTS));
  const segmentCount = Math.ceil(slots / wanted);
  return { segmentCount, segmentSlots: Math.ceil(slots / segmentCount), segments: [] };
}

function enlarged(segment: IndexSegment): IndexSegment {
  const larger = new IndexSegment(Math.ceil(segment.slots * GROWTH), segment.seed);
  for (let slot = 0; slot < segment.slots; slot++) if (!segment.isFree(slot)) larger.insertCopy(segment, slot);
  return larger;
}
