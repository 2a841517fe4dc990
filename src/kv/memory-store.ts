// The key-value store in memory: a sorted array of keys beside a map, without native code.
//
// Keys are kept as latin1 strings, whose order is the order of their bytes. New keys wait in a set and are merged into
// the sorted array when somebody ranges, so that writing many does not sort many times.

import { assertKey } from "./key-check.ts";
import type { BorrowedValue, KeyValueEntry, KeyValueOperation, KeyValueStore } from "./key-value-store.ts";

export class MemoryStore implements KeyValueStore {
  #values = new Map<string, Uint8Array>();
  #sortedKeys: string[] | undefined = [];

  get(key: Uint8Array): Uint8Array | undefined {
    assertKey(key);
    const value = this.#values.get(toText(key));
    return value === undefined ? undefined : new Uint8Array(value);
  }

  borrow(key: Uint8Array): BorrowedValue | undefined {
    assertKey(key);
    const value = this.#values.get(toText(key));
    if (value === undefined) return undefined;
    return { bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength), length: value.length };
  }

  async write(operations: readonly KeyValueOperation[]): Promise<void> {
    // All keys are checked before the first is written: a write happens whole or not at all.
    for (const operation of operations) assertKey(operation.key);
    for (const operation of operations) {
      const key = toText(operation.key);
      if (operation.type === "put") this.#values.set(key, new Uint8Array(operation.value));
      else this.#values.delete(key);
    }
    this.#sortedKeys = undefined;
  }

  *range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array } = {}): Iterable<KeyValueEntry> {
    // The snapshot is the list of keys and the values they have now: both are replaced, never changed.
    const values = new Map(this.#values);
    const keys = (this.#sortedKeys ??= [...this.#values.keys()].toSorted());
    const from = options.from === undefined ? "" : toText(options.from);
    const to = options.to === undefined ? undefined : toText(options.to);
    for (const key of keys) {
      if (key < from) continue;
      if (to !== undefined && key >= to) return;
      const value = values.get(key);
      if (value !== undefined) yield { key: Buffer.from(key, "latin1"), value: new Uint8Array(value) };
    }
  }

  async close(): Promise<void> {
    this.#values.clear();
    this.#sortedKeys = [];
  }
}

function toText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}
