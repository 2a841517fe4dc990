// Opaque values in memory: the twin of the local opaque store.

import { systemClock, type Clock } from "../base/clock.ts";
import type { BlobReader, ReadOptions } from "./blob-store.ts";
import { MemoryEntries } from "./memory-entries.ts";
import { MemoryReader } from "./memory-reader.ts";
import type { OpaqueInfo, OpaqueStore } from "./opaque-store.ts";
import { opaqueTooLarge } from "./opaque-error.ts";
import { readBounds } from "./read-bounds.ts";

interface OpaqueEntry extends OpaqueInfo {
  readonly data: Uint8Array;
}

export class MemoryOpaqueStore implements OpaqueStore {
  readonly #entries: MemoryEntries<OpaqueEntry>;
  readonly #clock: Clock;

  constructor(options: { readonly maxBytes?: number; readonly clock?: Clock } = {}) {
    this.#entries = new MemoryEntries({ maxBytes: options.maxBytes ?? Number.POSITIVE_INFINITY });
    this.#clock = options.clock ?? systemClock;
  }

  get bytes(): number {
    return this.#entries.bytes;
  }

  get count(): number {
    return this.#entries.count;
  }

  async find(key: string): Promise<OpaqueInfo | undefined> {
    const entry = this.#entries.find(key);
    return entry === undefined ? undefined : { sizeBytes: entry.sizeBytes, modifiedAtMs: entry.modifiedAtMs };
  }

  async openRead(key: string, options: ReadOptions = {}): Promise<BlobReader | undefined> {
    const entry = this.#entries.find(key);
    if (entry === undefined) return undefined;
    return new MemoryReader(entry.data, readBounds(key, entry.sizeBytes, options), options.signal);
  }

  async put(key: string, chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<void> {
    const parts: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const chunk of chunks) {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) throw opaqueTooLarge(key, sizeBytes, maxBytes);
      parts.push(new Uint8Array(chunk));
    }
    this.#entries.put(key, { data: Buffer.concat(parts), sizeBytes, modifiedAtMs: this.#clock.nowMs() });
  }

  async delete(key: string): Promise<boolean> {
    return this.#entries.delete(key);
  }
}
