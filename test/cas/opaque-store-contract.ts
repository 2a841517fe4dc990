// What every opaque store keeps: see src/cas/opaque-store.ts.

import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import type { OpaqueStore } from "../../src/cas/opaque-store.ts";
import { expectCode, readAll, same } from "./blob-store-contract.ts";

export interface OpaqueStoreFixture {
  readonly store: OpaqueStore;
  close(): Promise<void>;
}

const NO_LIMIT = 2 ** 40;

export function describeOpaqueStoreContract(name: string, makeFixture: () => Promise<OpaqueStoreFixture>): void {
  describe(`${name} keeps the opaque store contract`, () => {
    let fixture: OpaqueStoreFixture;
    let store: OpaqueStore;
    beforeEach(async () => {
      fixture = await makeFixture();
      store = fixture.store;
    });
    afterEach(async () => {
      await fixture.close();
    });

    test("an absent key is undefined and cannot be deleted", async () => {
      expect(await store.find("a/b")).toBeUndefined();
      expect(await store.openRead("a/b")).toBeUndefined();
      expect(await store.delete("a/b")).toBe(false);
    });

    test("put() then openRead() returns the bytes, of every size and in any chunks", async () => {
      for (const size of [0, 1, 1000, 40_000, 3_000_000]) {
        const data = randomBytes(size);
        const key = `key of ${size} bytes/ü/%2e`;
        await store.put(key, chunksOf(data, 7777), NO_LIMIT);
        const info = await store.find(key);
        expect(info?.sizeBytes).toBe(size);
        expect(info?.modifiedAtMs).toBeGreaterThan(0);
        expect(same(await read(store, key), data)).toBe(true);
      }
    });

    test("put() overwrites, and a reader of the old value finishes undisturbed", async () => {
      const [old, young] = [randomBytes(2_000_000), randomBytes(2_000_000)];
      await store.put("key", chunksOf(old, 500_000), NO_LIMIT);
      const reader = await store.openRead("key");
      if (reader === undefined) throw new Error("no reader");
      const first = await reader.next();
      await store.put("key", chunksOf(young, 500_000), NO_LIMIT);
      expect(same(Buffer.concat([first ?? new Uint8Array(0), await readAll(reader)]), old)).toBe(true);
      expect(same(await read(store, "key"), young)).toBe(true);
    });

    test("openRead() honours offset and limit", async () => {
      const data = randomBytes(1000);
      await store.put("key", chunksOf(data, 1000), NO_LIMIT);
      const reader = await store.openRead("key", { offsetBytes: 100, limitBytes: 50 });
      expect(same(reader && (await readAll(reader)), data.subarray(100, 150))).toBe(true);
    });

    test("put() beyond the maximum is RESOURCE_EXHAUSTED and keeps the old value", async () => {
      await store.put("key", chunksOf(Buffer.from("old"), 10), NO_LIMIT);
      await expectCode(store.put("key", chunksOf(randomBytes(1001), 100), 1000), Code.RESOURCE_EXHAUSTED);
      expect(same(await read(store, "key"), Buffer.from("old"))).toBe(true);
    });

    test("put() whose chunks fail stores nothing", async () => {
      await expect(store.put("key", failing(), NO_LIMIT)).rejects.toThrow("cut");
      expect(await store.find("key")).toBeUndefined();
    });

    test("delete() removes, once", async () => {
      await store.put("key", chunksOf(Buffer.from("x"), 10), NO_LIMIT);
      expect(await store.delete("key")).toBe(true);
      expect(await store.find("key")).toBeUndefined();
      expect(await store.delete("key")).toBe(false);
    });

    test("keys are told apart by every character", async () => {
      for (const key of ["a", "a/", "A", "a b", "ä"]) await store.put(key, chunksOf(Buffer.from(key), 10), NO_LIMIT);
      for (const key of ["a", "a/", "A", "a b", "ä"]) expect(same(await read(store, key), Buffer.from(key))).toBe(true);
    });
  });
}

async function read(store: OpaqueStore, key: string): Promise<Uint8Array | undefined> {
  const reader = await store.openRead(key);
  return reader === undefined ? undefined : readAll(reader);
}

async function* chunksOf(data: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let offset = 0; offset < data.length; offset += size) yield new Uint8Array(data.subarray(offset, offset + size));
}

async function* failing(): AsyncIterable<Uint8Array> {
  yield new Uint8Array(100_000);
  throw new Error("the body was cut");
}
