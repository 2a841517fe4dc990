// The blob store on disk: the contract of all stores, and what only files and LMDB can get wrong.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { describeBlobStoreContract } from "./blob-store-contract.ts";

describeBlobStoreContract("LocalBlobStore", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "ledge-store-"));
  const storage = await openStorage({
    dataDir,
    maxSizeBytes: 2 ** 30,
    clock: systemClock,
    logger: silentLogger,
    metrics: new MetricsRegistry(),
    threads: 2,
  });
  return {
    store: storage.blobs,
    async close() {
      await storage.close();
      rmSync(dataDir, { recursive: true });
    },
  };
});
