// Values in memory: the twin of the local value store.

import { toHex } from "../compute/hash.ts";
import { MemoryEntries } from "./memory-entries.ts";
import type { ValueKind, ValueStore } from "./value-store.ts";

export class MemoryValueStore implements ValueStore {
  readonly #values: MemoryEntries<{ readonly sizeBytes: number; readonly data: Uint8Array }>;

  constructor(options: { readonly maxBytes?: number } = {}) {
    this.#values = new MemoryEntries({ maxBytes: options.maxBytes ?? Number.POSITIVE_INFINITY });
  }

  get bytes(): number {
    return this.#values.bytes;
  }

  get count(): number {
    return this.#values.count;
  }

  get(kind: ValueKind, key: Uint8Array): Uint8Array | undefined {
    const value = this.#values.find(`${kind}:${toHex(key)}`);
    return value === undefined ? undefined : new Uint8Array(value.data);
  }

  async put(kind: ValueKind, key: Uint8Array, value: Uint8Array): Promise<void> {
    this.#values.put(`${kind}:${toHex(key)}`, { sizeBytes: value.length, data: new Uint8Array(value) });
  }

  async delete(kind: ValueKind, key: Uint8Array): Promise<boolean> {
    return this.#values.delete(`${kind}:${toHex(key)}`);
  }
}
