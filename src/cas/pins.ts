// Counts who needs a blob to stay. A pinned digest need not be present: it stays once it arrives.

import { digestKey, type Digest } from "../digest/digest.ts";
import type { Pin } from "./blob-store.ts";

export class Pins {
  #counts = new Map<string, number>();

  /** How often something stopped being pinned: tells whether a look for victims could end otherwise now. */
  releases = 0;

  get count(): number {
    return this.#counts.size;
  }

  isPinned(key: string): boolean {
    return this.#counts.has(key);
  }

  pin(digests: Iterable<Digest>): Pin {
    const keys = new Set<string>();
    for (const digest of digests) keys.add(digestKey(digest));
    for (const key of keys) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    return {
      release: () => {
        for (const key of keys) this.#unpin(key);
        keys.clear();
      },
    };
  }

  #unpin(key: string): void {
    const count = this.#counts.get(key) ?? 0;
    if (count <= 1) {
      this.#counts.delete(key);
      this.releases++;
    } else this.#counts.set(key, count - 1);
  }
}
