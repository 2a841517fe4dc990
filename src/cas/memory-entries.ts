// Values in memory with least-recently-used eviction by bytes: the heart of every in-memory twin.
//
// A Map keeps insertion order, and touching re-inserts, so its first key is always the least recently used one.
// Values are stored as given: callers copy what they borrow.

import { Code, StatusError } from "../base/status.ts";

export interface MemoryEntriesOptions<Value> {
  readonly maxBytes: number;
  /** An entry for which this is true is never evicted. */
  readonly isPinned?: (key: string) => boolean;
  /** Told what is dropped, or replaced. */
  readonly onRemoved?: (value: Value) => void;
}

export class MemoryEntries<Value extends { readonly sizeBytes: number }> {
  readonly #maxBytes: number;
  readonly #isPinned: (key: string) => boolean;
  readonly #onRemoved: ((value: Value) => void) | undefined;
  #entries = new Map<string, Value>();
  #bytes = 0;

  constructor(options: MemoryEntriesOptions<Value>) {
    this.#maxBytes = options.maxBytes;
    this.#isPinned = options.isPinned ?? (() => false);
    this.#onRemoved = options.onRemoved;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Looks up and touches. */
  find(key: string): Value | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** Stores, evicting what was not used for longest; throws RESOURCE_EXHAUSTED when pinned entries leave no room. */
  put(key: string, value: Value): void {
    this.delete(key);
    this.#makeRoom(value.sizeBytes);
    this.#entries.set(key, value);
    this.#bytes += value.sizeBytes;
  }

  delete(key: string): boolean {
    const value = this.#entries.get(key);
    if (value === undefined) return false;
    this.#entries.delete(key);
    this.#bytes -= value.sizeBytes;
    this.#onRemoved?.(value);
    return true;
  }

  #makeRoom(sizeBytes: number): void {
    const excess = this.#bytes + sizeBytes - this.#maxBytes;
    if (excess <= 0) return;
    const victims: string[] = [];
    let freed = 0;
    for (const [key, value] of this.#entries) {
      if (freed >= excess) break;
      if (this.#isPinned(key)) continue;
      victims.push(key);
      freed += value.sizeBytes;
    }
    if (freed < excess) {
      throw new StatusError(
        Code.RESOURCE_EXHAUSTED,
        `Cannot store ${sizeBytes} bytes: ${this.#bytes} of ${this.#maxBytes} bytes are taken and in use`,
      );
    }
    for (const key of victims) this.delete(key);
  }
}
