// The child of bit-flips.test.ts: opens a storage that may be damaged and says of each blob whether it is there.
//
// Usage: node flip-probe.ts DATA_DIR SEED COUNT. Prints `present N absent N wrong N stored N`. A damaged page that ends
// this process is what the test looks for.

import { writeSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import { StatusError } from "../../src/base/status.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { same } from "./blob-store-contract.ts";
import { blobOf } from "./crash-blobs.ts";

const [dataDir = "", seed = "", count = "0"] = process.argv.slice(2);
const metrics = new MetricsRegistry();
const storage = await openStorage({
  dataDir,
  maxSizeBytes: 2 ** 40,
  clock: systemClock,
  logger: silentLogger,
  metrics,
  threads: 1,
});
await storage.loaded;
const counts = { present: 0, absent: 0, wrong: 0, stored: 0 };
for (let number = 0; number < Number(count); number++) {
  const { digest, data } = blobOf(seed, number);
  try {
    const read = await storage.blobs.get(digest);
    if (read === undefined) counts.absent++;
    else if (same(read, data)) counts.present++;
    else counts.wrong++;
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    counts.absent++;
  }
}
// A damaged free list shows when something is written.
for (let number = Number(count); number < Number(count) + 50; number++) {
  const { digest, data } = blobOf(seed, number);
  await storage.blobs.put(digest, data);
  if (same(await storage.blobs.get(digest), data)) counts.stored++;
}
await storage.close();
writeSync(1, `${JSON.stringify(counts)}\n`);
