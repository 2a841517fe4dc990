// What every key-value store keeps: see src/kv/key-value-store.ts. Arguments are scribbled over once their call has
// settled, results once the next call was made: a store that kept or shared them would be caught.

import { randomBytes, randomInt } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KeyValueOperation, KeyValueStore } from "../../src/kv/key-value-store.ts";

export interface KeyValueFixture {
  readonly store: KeyValueStore;
  close(): Promise<void>;
}

export function describeKeyValueStoreContract(name: string, makeFixture: () => Promise<KeyValueFixture>): void {
  describe(`${name} keeps the key-value store contract`, () => {
    let fixture: KeyValueFixture;
    let store: KeyValueStore;
    beforeEach(async () => {
      fixture = await makeFixture();
      store = fixture.store;
    });
    afterEach(async () => {
      await fixture.close();
    });

    test("get() of an absent key is undefined", () => {
      expect(store.get(text("nothing"))).toBeUndefined();
    });

    test("write() then get() returns the value, of every size", async () => {
      for (const size of [0, 1, 24, 64, 100, 2000, 4096, 5000, 40_000, 700_000]) {
        const value = randomBytes(size);
        const key = text(`size ${size}`);
        await put(store, key, value);
        expect(equal(store.get(key), value)).toBe(true);
      }
    });

    test("a value overwritten by its owner after write() is kept as it was", async () => {
      const values = Array.from({ length: 200 }, (_, index) => randomBytes(index * 37));
      const copies = values.map((value) => new Uint8Array(value));
      const keys = values.map((_, index) => text(`key ${index}`));
      await Promise.all(values.map((value, index) => put(store, at(keys, index), value)));
      for (const value of values) value.fill(0xee);
      for (const [index, copy] of copies.entries()) {
        const key = text(`key ${index}`);
        expect(equal(store.get(key), copy)).toBe(true);
      }
      for (const key of keys) key.fill(0xee);
      for (const [index, copy] of copies.entries()) expect(equal(store.get(text(`key ${index}`)), copy)).toBe(true);
    });

    test("a result of get() belongs to the caller", async () => {
      for (const size of [10, 3000, 100_000]) {
        const [first, second] = [randomBytes(size), randomBytes(size)];
        await put(store, text("first"), first);
        await put(store, text("second"), second);
        const result = store.get(text("first"));
        store.get(text("second"));
        expect(equal(result, first)).toBe(true);
        result?.fill(0);
        expect(equal(store.get(text("first")), first)).toBe(true);
      }
    });

    test("borrow() shows the value of every size until the next call", async () => {
      expect(store.borrow(text("nothing"))).toBeUndefined();
      const sizes = [0, 1, 24, 700_000, 100, 2000, 4096, 5000, 40_000];
      const values = sizes.map((size) => randomBytes(size));
      for (const [index, value] of values.entries()) await put(store, text(`size ${sizes[index]}`), value);
      for (const [index, value] of values.entries()) {
        const borrowed = store.borrow(text(`size ${sizes[index]}`));
        expect(borrowed?.length).toBe(value.length);
        expect(borrowed?.bytes.compare(value, 0, value.length, 0, value.length)).toBe(0);
        // Large and small take turns: the one does not leave its length to the other.
        expect(equal(store.get(text("size 24")), at(values, 2))).toBe(true);
      }
    });

    test("keys and values are any bytes, and keys reach 511 bytes", async () => {
      const keys = [
        Buffer.from([0]),
        Buffer.from([0, 0]),
        Buffer.from([255]),
        Buffer.alloc(511, 7),
        Buffer.alloc(511, 0),
      ];
      for (const key of keys) await put(store, key, key);
      for (const key of keys) expect(equal(store.get(key), key)).toBe(true);
      expect([...store.range({})]).toHaveLength(keys.length);
    });

    test("an empty key and one of 512 bytes are refused, and nothing of that write happens", async () => {
      for (const key of [new Uint8Array(0), new Uint8Array(512)]) {
        expect(() => store.get(key)).toThrow(RangeError);
        const write = async () =>
          store.write([
            { type: "put", key: text("innocent"), value: text("x") },
            { type: "put", key, value: text("x") },
          ]);
        await expect(write()).rejects.toThrow(RangeError);
        expect(store.get(text("innocent"))).toBeUndefined();
      }
    });

    test("range() gives what lies between, in the order of bytes", async () => {
      const keys = [[1], [1, 0], [1, 255], [2], [2, 5], [3], [200]].map((bytes) => Uint8Array.from(bytes));
      await store.write(keys.toReversed().map((key) => ({ type: "put", key, value: key })));
      const list = (options: { from?: Uint8Array; to?: Uint8Array }) =>
        [...store.range(options)].map((entry) => [...entry.key].join("."));
      expect(list({})).toEqual(["1", "1.0", "1.255", "2", "2.5", "3", "200"]);
      expect(list({ from: Uint8Array.from([2]) })).toEqual(["2", "2.5", "3", "200"]);
      expect(list({ from: Uint8Array.from([1, 1]), to: Uint8Array.from([3]) })).toEqual(["1.255", "2", "2.5"]);
      expect(list({ to: Uint8Array.from([1, 0]) })).toEqual(["1"]);
      expect(list({ from: Uint8Array.from([9]), to: Uint8Array.from([9]) })).toEqual([]);
    });

    test("range() gives each entry its own value", async () => {
      const value = (index: number) => Buffer.alloc(index * 300, index);
      for (let index = 1; index < 60; index++) await put(store, Uint8Array.from([index]), value(index));
      for (const entry of store.range({})) expect(equal(entry.value, value(entry.key[0] ?? 0))).toBe(true);
    });

    test("range() shows the moment it began, whatever is written meanwhile", async () => {
      for (let index = 10; index < 20; index++) await put(store, Uint8Array.from([index]), text("old"));
      const seen: number[] = [];
      for (const entry of store.range({})) {
        seen.push(entry.key[0] ?? 0);
        if (seen.length === 1) {
          await put(store, Uint8Array.from([15, 1]), text("new"));
          await store.write([{ type: "delete", key: Uint8Array.from([19]) }]);
        }
      }
      expect(seen).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    });

    test("operations of one write apply in order", async () => {
      const key = text("key");
      await store.write([
        { type: "put", key, value: text("first") },
        { type: "delete", key },
        { type: "put", key, value: text("last") },
        { type: "delete", key: text("never there") },
      ]);
      expect(equal(store.get(key), text("last"))).toBe(true);
      await store.write([
        { type: "put", key, value: text("again") },
        { type: "delete", key },
      ]);
      expect(store.get(key)).toBeUndefined();
    });

    test("writes apply in the order they were called", async () => {
      const key = text("key");
      await Promise.all(Array.from({ length: 100 }, (_, index) => put(store, key, text(`value ${index}`))));
      expect(Buffer.from(store.get(key) ?? []).toString()).toBe("value 99");
    });

    test("random operations agree with a Map", async () => {
      const seed = randomInt(2 ** 31);
      console.log(`seed ${seed}`);
      const random = generator(seed);
      const model = new Map<string, string>();
      for (let round = 0; round < 60; round++) {
        const operations: KeyValueOperation[] = [];
        for (let i = 0; i < random(40); i++) {
          const key = `k${random(300)}`;
          if (random(4) === 0) {
            operations.push({ type: "delete", key: text(key) });
            model.delete(key);
          } else {
            const value = `${round}-${i}-`.repeat(1 + random(400));
            operations.push({ type: "put", key: text(key), value: text(value) });
            model.set(key, value);
          }
        }
        await store.write(operations);
      }
      const stored = [...store.range({})].map((entry) => [decode(entry.key), decode(entry.value)]);
      expect(stored).toEqual([...model].toSorted(([a], [b]) => (a < b ? -1 : 1)));
    });

    test("close() waits for the writes before it, and can be called twice", async () => {
      let settled = false;
      const write = put(store, text("key"), randomBytes(1000)).then(() => (settled = true));
      await store.close();
      expect(settled).toBe(true);
      await write;
      await store.close();
    });
  });
}

function put(store: KeyValueStore, key: Uint8Array, value: Uint8Array): Promise<void> {
  return store.write([{ type: "put", key, value }]);
}

function text(value: string): Buffer {
  return Buffer.from(value, "utf8");
}

function decode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("utf8");
}

function equal(actual: Uint8Array | undefined, expected: Uint8Array): boolean {
  return actual !== undefined && Buffer.compare(actual, expected) === 0;
}

/** A small generator (mulberry32), so that a seed printed by a failing run repeats it. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
