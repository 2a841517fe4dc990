// The opaque key-value stores, on disk and in memory, held to one contract.

import { MemoryOpaqueStore } from "../../src/cas/memory-opaque-store.ts";
import { describeOpaqueStoreContract } from "./opaque-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

describeOpaqueStoreContract("MemoryOpaqueStore", async () => ({
  store: new MemoryOpaqueStore(),
  close: async () => undefined,
}));

describeOpaqueStoreContract("LocalOpaqueStore", async () => {
  const fixture = await StorageFixture.open();
  return { store: fixture.storage.opaque, close: () => fixture[Symbol.asyncDispose]() };
});
