// The in-memory twin of the action cache, for tests.

import { MemoryValueStore } from "../cas/memory-value-store.ts";
import { StoredActionCache } from "./stored-action-cache.ts";

export class MemoryActionCache extends StoredActionCache {
  constructor(options: { readonly maxBytes?: number } = {}) {
    super(new MemoryValueStore(options));
  }
}
