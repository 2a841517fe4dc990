// The in-memory key-value store held to the contract of LMDB's.

import { MemoryStore } from "../../src/kv/memory-store.ts";
import { describeKeyValueStoreContract } from "./key-value-store-contract.ts";

describeKeyValueStoreContract("MemoryStore", async () => {
  const store = new MemoryStore();
  return { store, close: () => store.close() };
});
