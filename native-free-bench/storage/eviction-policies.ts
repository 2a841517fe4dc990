// Eviction policies by bytes, for comparing them on traces: who would have had what, at the same size.
//
// Each keeps at most `capacityBytes`. They are models: what the store does is src/cas/evictor.ts.

export interface EvictionPolicy {
  /** True when the blob was there; it is there afterwards. */
  request(id: number, sizeBytes: number): boolean;
}

export const POLICIES: Readonly<Record<string, (capacityBytes: number) => EvictionPolicy>> = {
  LRU: (capacity) => new Lru(capacity),
  "segmented LRU": (capacity) => new SegmentedLru(capacity),
  SIEVE: (capacity) => new Sieve(capacity),
  "S3-FIFO": (capacity) => new S3Fifo(capacity),
  "W-TinyLFU": (capacity) => new TinyLfu(capacity),
};

/** Insertion order of a Map is the order of the queue: the first is the oldest. */
class Queue {
  readonly #sizes = new Map<number, number>();
  bytes = 0;

  has(id: number): boolean {
    return this.#sizes.has(id);
  }

  push(id: number, sizeBytes: number): void {
    this.delete(id);
    this.#sizes.set(id, sizeBytes);
    this.bytes += sizeBytes;
  }

  delete(id: number): number {
    const sizeBytes = this.#sizes.get(id) ?? 0;
    this.#sizes.delete(id);
    this.bytes -= sizeBytes;
    return sizeBytes;
  }

  /** Takes the oldest out. */
  shift(): { readonly id: number; readonly sizeBytes: number } | undefined {
    for (const [id, sizeBytes] of this.#sizes) {
      this.delete(id);
      return { id, sizeBytes };
    }
    return undefined;
  }

  oldest(): number | undefined {
    for (const id of this.#sizes.keys()) return id;
    return undefined;
  }
}

class Lru implements EvictionPolicy {
  readonly #capacity: number;
  readonly #queue = new Queue();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  request(id: number, sizeBytes: number): boolean {
    const isHit = this.#queue.has(id);
    this.#queue.push(id, sizeBytes);
    while (this.#queue.bytes > this.#capacity) this.#queue.shift();
    return isHit;
  }
}

/** What was asked for once and what was asked for again, the latter up to 80 %. */
class SegmentedLru implements EvictionPolicy {
  readonly #capacity: number;
  readonly #once = new Queue();
  readonly #again = new Queue();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  request(id: number, sizeBytes: number): boolean {
    const isHit = this.#once.has(id) || this.#again.has(id);
    if (isHit) {
      this.#once.delete(id);
      this.#again.push(id, sizeBytes);
    } else this.#once.push(id, sizeBytes);
    while (this.#again.bytes > this.#capacity * 0.8) {
      const oldest = this.#again.shift();
      if (oldest !== undefined) this.#once.push(oldest.id, oldest.sizeBytes);
    }
    while (this.#once.bytes + this.#again.bytes > this.#capacity) this.#once.shift();
    return isHit;
  }
}

/** A queue with a hand that passes over what was asked for since it came by. Source: Zhang et al., NSDI 2024. */
class Sieve implements EvictionPolicy {
  readonly #capacity: number;
  readonly #visited = new Set<number>();
  /** From the hand to the newest, and from the oldest to the hand: what the hand has passed in this round. */
  #ahead = new Queue();
  #passed = new Queue();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  request(id: number, sizeBytes: number): boolean {
    if (this.#ahead.has(id) || this.#passed.has(id)) {
      this.#visited.add(id);
      return true;
    }
    this.#ahead.push(id, sizeBytes);
    while (this.#ahead.bytes + this.#passed.bytes > this.#capacity) this.#evict(id);
    return false;
  }

  #evict(newest: number): void {
    const oldest = this.#ahead.oldest();
    if (oldest === undefined || (oldest === newest && this.#passed.bytes > 0)) {
      // The hand is at the head: it begins again at the tail.
      const rest = this.#ahead;
      this.#ahead = this.#passed;
      this.#passed = new Queue();
      for (let next = rest.shift(); next !== undefined; next = rest.shift()) this.#ahead.push(next.id, next.sizeBytes);
    }
    const next = this.#ahead.shift();
    if (next !== undefined && this.#visited.delete(next.id)) this.#passed.push(next.id, next.sizeBytes);
  }
}

/** Newcomers in a tenth; what is asked for again moves on; ghosts of newcomers that left too early. Source: SOSP 2023. */
class S3Fifo implements EvictionPolicy {
  readonly #capacity: number;
  readonly #small = new Queue();
  readonly #main = new Queue();
  readonly #ghosts = new Queue();
  readonly #uses = new Map<number, number>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  request(id: number, sizeBytes: number): boolean {
    if (this.#small.has(id) || this.#main.has(id)) {
      this.#uses.set(id, Math.min(3, (this.#uses.get(id) ?? 0) + 1));
      return true;
    }
    if (this.#ghosts.has(id)) {
      this.#ghosts.delete(id);
      this.#main.push(id, sizeBytes);
    } else this.#small.push(id, sizeBytes);
    while (this.#small.bytes + this.#main.bytes > this.#capacity) this.#evict();
    return false;
  }

  #evict(): void {
    if (this.#small.bytes > this.#capacity * 0.1 || this.#main.bytes === 0) return this.#evictSmall();
    const next = this.#main.shift();
    if (next === undefined) return;
    const uses = this.#uses.get(next.id) ?? 0;
    if (uses > 0) {
      this.#uses.set(next.id, uses - 1);
      this.#main.push(next.id, next.sizeBytes);
    } else this.#uses.delete(next.id);
  }

  #evictSmall(): void {
    const next = this.#small.shift();
    if (next === undefined) return;
    if ((this.#uses.get(next.id) ?? 0) > 0) {
      this.#uses.delete(next.id);
      this.#main.push(next.id, next.sizeBytes);
      return;
    }
    this.#ghosts.push(next.id, next.sizeBytes);
    while (this.#ghosts.bytes > this.#capacity * 0.9) this.#ghosts.shift();
  }
}

/** A window of 1 % in front of a segmented LRU that only lets in what is asked for more often than its victim. */
class TinyLfu implements EvictionPolicy {
  readonly #capacity: number;
  readonly #window = new Queue();
  readonly #once = new Queue();
  readonly #again = new Queue();
  /** Exact counts, halved now and then: the best case of the sketch that the paper uses. */
  #counts = new Map<number, number>();
  #requests = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  request(id: number, sizeBytes: number): boolean {
    this.#count(id);
    if (this.#window.has(id)) {
      this.#window.push(id, sizeBytes);
      return true;
    }
    if (this.#once.has(id) || this.#again.has(id)) {
      this.#once.delete(id);
      this.#again.push(id, sizeBytes);
      this.#demote();
      return true;
    }
    this.#window.push(id, sizeBytes);
    while (this.#window.bytes > this.#capacity * 0.01) this.#admit();
    return false;
  }

  #count(id: number): void {
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    if (++this.#requests % 1_000_000 !== 0) return;
    this.#counts = new Map([...this.#counts].flatMap(([key, count]) => (count > 1 ? [[key, count >> 1]] : [])));
  }

  #admit(): void {
    const candidate = this.#window.shift();
    if (candidate === undefined) return;
    const room = this.#capacity * 0.99;
    while (this.#once.bytes + this.#again.bytes + candidate.sizeBytes > room) {
      const victim = this.#once.oldest() ?? this.#again.oldest();
      if (victim === undefined) return;
      if ((this.#counts.get(victim) ?? 0) >= (this.#counts.get(candidate.id) ?? 0)) return;
      if (this.#once.delete(victim) === 0) this.#again.delete(victim);
    }
    this.#once.push(candidate.id, candidate.sizeBytes);
  }

  #demote(): void {
    while (this.#again.bytes > this.#capacity * 0.8) {
      const oldest = this.#again.shift();
      if (oldest !== undefined) this.#once.push(oldest.id, oldest.sizeBytes);
    }
  }
}
