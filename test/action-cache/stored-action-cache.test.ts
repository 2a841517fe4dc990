// The action cache over a value store: the contract, and the record that keeps provenance beside the result.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { describeActionCacheContract, randomKey } from "./action-cache-contract.ts";

function open(dataDir: string) {
  const metrics = new MetricsRegistry();
  return openStorage({ dataDir, maxSizeBytes: 2 ** 28, clock: systemClock, logger: silentLogger, metrics, threads: 1 });
}

describeActionCacheContract("MemoryActionCache", async () => ({
  cache: new MemoryActionCache(),
  close: async () => undefined,
}));

describeActionCacheContract("StoredActionCache on the local store", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "ledge-ac-"));
  const storage = await open(dataDir);
  return {
    cache: new StoredActionCache(storage.values),
    async close() {
      await storage.close();
      rmSync(dataDir, { recursive: true });
    },
  };
});

test("findProvenance() tells who wrote a result, also after a restart", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "ledge-ac-"));
  try {
    const key = randomKey("team");
    const first = await open(dataDir);
    const provenance = { writer: "10.0.0.7", toolInvocationId: "build 1", writtenAtMs: 17 };
    await new StoredActionCache(first.values).put(key, Buffer.from("result"), provenance);
    await first.close();
    const second = await open(dataDir);
    const cache = new StoredActionCache(second.values);
    expect(await cache.findProvenance(key)).toMatchObject(provenance);
    expect(Buffer.from((await cache.get(key)) ?? []).toString()).toBe("result");
    await second.close();
  } finally {
    rmSync(dataDir, { recursive: true });
  }
});
