// What every action cache keeps: see src/action-cache/action-cache.ts.

import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ActionCache, ActionKey } from "../../src/action-cache/action-cache.ts";
import { DigestFunction } from "../../src/digest/digest.ts";

export interface ActionCacheFixture {
  readonly cache: ActionCache;
  close(): Promise<void>;
}

/** `asResult` makes results of any bytes, for caches that look into them. */
export function describeActionCacheContract(
  name: string,
  makeFixture: () => Promise<ActionCacheFixture>,
  asResult: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes,
): void {
  const resultOf = (text: string): Uint8Array => asResult(Buffer.from(text));
  describe(`${name} keeps the action cache contract`, () => {
    let fixture: ActionCacheFixture;
    let cache: ActionCache;
    beforeEach(async () => {
      fixture = await makeFixture();
      cache = fixture.cache;
    });
    afterEach(async () => {
      await fixture.close();
    });

    test("get() of an absent key is undefined, delete() of it false", async () => {
      expect(await cache.get(randomKey())).toBeUndefined();
      expect(await cache.delete(randomKey())).toBe(false);
    });

    test("put() then get() returns the result, byte for byte", async () => {
      for (const size of [0, 1, 500, 5000, 300_000]) {
        const [key, result] = [randomKey(), asResult(randomBytes(size))];
        await cache.put(key, result, { writer: "test", writtenAtMs: 5 });
        expect(Buffer.compare((await cache.get(key)) ?? randomBytes(1), result)).toBe(0);
      }
    });

    test("put() keeps its own copy", async () => {
      const [key, result] = [randomKey(), resultOf("the result")];
      await cache.put(key, result, {});
      result.fill(0);
      (await cache.get(key))?.fill(0);
      expect(Buffer.from((await cache.get(key)) ?? []).equals(resultOf("the result"))).toBe(true);
    });

    test("instance name, digest function and hash each make another key", async () => {
      const key = { instanceName: "main", fn: DigestFunction.SHA256, hash: randomKey().hash };
      await cache.put(key, resultOf("x"), {});
      const others: ActionKey[] = [
        { ...key, instanceName: "" },
        { ...key, instanceName: "main/" },
        { ...key, instanceName: "MAIN" },
        { ...key, fn: DigestFunction.BLAKE3 },
        { ...key, hash: randomKey().hash },
      ];
      for (const other of others) expect(await cache.get(other)).toBeUndefined();
      expect(await cache.get(key)).toBeDefined();
    });

    test("put() replaces, and the last of many writers at once wins", async () => {
      const key = randomKey();
      await Promise.all(Array.from({ length: 20 }, (_, index) => cache.put(key, resultOf(`result ${index}`), {})));
      expect(Buffer.from((await cache.get(key)) ?? []).equals(resultOf("result 19"))).toBe(true);
    });

    test("delete() removes, once", async () => {
      const key = randomKey();
      await cache.put(key, resultOf("x"), {});
      expect(await cache.delete(key)).toBe(true);
      expect(await cache.get(key)).toBeUndefined();
      expect(await cache.delete(key)).toBe(false);
      await cache.put(key, resultOf("y"), {});
      expect(await cache.get(key)).toBeDefined();
    });
  });
}

export function randomKey(instanceName = ""): ActionKey {
  return { instanceName, fn: DigestFunction.SHA256, hash: randomBytes(32).toString("hex") };
}
