// The in-memory blob store: the contract of all stores, and its limit.

import { describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { describeBlobStoreContract, expectCode, putRandom } from "./blob-store-contract.ts";

describeBlobStoreContract("MemoryBlobStore", async () => ({
  store: new MemoryBlobStore(),
  close: async () => undefined,
}));

describe("MemoryBlobStore eviction", () => {
  test("put() evicts what nobody asked for", async () => {
    const store = new MemoryBlobStore({ maxBytes: 3000 });
    const [old, asked] = [await putRandom(store, 1000), await putRandom(store, 1000)];
    await putRandom(store, 1000);
    store.has(asked);
    store.has(old);
    await putRandom(store, 1000);
    await putRandom(store, 1000);
    expect([store.has(old), store.has(asked), store.bytes]).toEqual([true, false, 3000]);
  });

  test("put() never evicts a pinned blob and says RESOURCE_EXHAUSTED instead", async () => {
    const store = new MemoryBlobStore({ maxBytes: 1500 });
    const pinned = await putRandom(store, 1000);
    const pin = store.pin([pinned]);
    await expectCode(putRandom(store, 1000), Code.RESOURCE_EXHAUSTED);
    pin.release();
    await putRandom(store, 1000);
    expect(store.has(pinned)).toBe(false);
  });
});
