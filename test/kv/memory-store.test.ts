import { MemoryStore } from "../../src/kv/memory-store.ts";
import { describeKeyValueStoreContract } from "./key-value-store-contract.ts";

describeKeyValueStoreContract("MemoryStore", async () => {
  const store = new MemoryStore();
  return { store, close: () => store.close() };
});
