// The key-value store on LMDB: the contract, durability, shared commits and a full disk.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { describeKeyValueStoreContract } from "./key-value-store-contract.ts";

describeKeyValueStoreContract("LmdbStore", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ledge-lmdb-"));
  const store = LmdbStore.open({ path: join(directory, "index.mdb") });
  return {
    store,
    async close() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});

describe("LmdbStore", () => {
  test("what was written is there after opening again", async () => {
    const directory = mkdtempSync(join(tmpdir(), "ledge-lmdb-"));
    try {
      const path = join(directory, "index.mdb");
      const first = LmdbStore.open({ path });
      await first.write([{ type: "put", key: Buffer.from("key"), value: Buffer.from("value") }]);
      await first.close();
      const second = LmdbStore.open({ path });
      expect(Buffer.from(second.get(Buffer.from("key")) ?? []).toString()).toBe("value");
      await second.close();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  // A commit costs a sync; a thousand small writes must not cost a thousand of them.
  test("writes issued together share commits", async () => {
    const directory = mkdtempSync(join(tmpdir(), "ledge-lmdb-"));
    const metrics = new MetricsRegistry();
    const store = LmdbStore.open({ path: join(directory, "index.mdb"), metrics });
    try {
      const keys = Array.from({ length: 1000 }, (_, index) => Buffer.from(`key ${index}`));
      await Promise.all(keys.map((key) => store.write([{ type: "put", key, value: key }])));
      expect(metrics.counter("ledge_lmdb_commits_total", "").value).toBeLessThan(10);
    } finally {
      await store.close();
      rmSync(directory, { recursive: true });
    }
  });
});
