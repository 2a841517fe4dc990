// The child of failing-disk.test.ts, whose system calls strace makes fail or wait: stores blobs and says how that went.
//
// Usage: node failing-disk-load.ts DATA_DIR SEED COUNT WRITERS. Prints `stored N` or `refused N CODE MESSAGE` for blob N of
// crash-blobs.ts, `unread N CODE MESSAGE` or `wrong N` for a stored one that cannot be read or reads otherwise, and at the end `peak BYTES` and `end`.

import { writeSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import { StatusError } from "../../src/base/status.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { same } from "./blob-store-contract.ts";
import { blobOf } from "./crash-blobs.ts";

const [dataDir = "", seed = "", count = "0", writers = "1"] = process.argv.slice(2);
const storage = await openStorage({
  dataDir,
  maxSizeBytes: 2 ** 40,
  clock: systemClock,
  logger: silentLogger,
  metrics: new MetricsRegistry(),
  threads: 1,
});
const { blobs } = storage;
say("open");
const stored: number[] = [];
const numbers = Array.from({ length: Number(count) }, (_, number) => number).values();

async function work(): Promise<void> {
  for (const number of numbers) {
    const { digest, data } = blobOf(seed, number);
    try {
      await blobs.put(digest, data);
      say(`stored ${number}`);
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      say(`refused ${number} ${error.code} ${error.message}`);
      continue;
    }
    stored.push(number);
    await readBack(number);
  }
}

async function readBack(number: number): Promise<void> {
  const { digest, data } = blobOf(seed, number);
  try {
    if (!same(await blobs.get(digest), data)) say(`wrong ${number}`);
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    say(`unread ${number} ${error.code} ${error.message}`);
  }
}

await Promise.all(Array.from({ length: Number(writers) }, work));
// When the disk has failed for good.
for (const number of stored) await readBack(number);
say(`peak ${process.resourceUsage().maxRSS * 1024}`);
await storage.close();
say("end");
// LMDB may hold on to a commit that failed.
process.exit(0);

/** A declaration, because the lines above run before those below. */
function say(line: string): void {
  writeSync(1, `${line.replaceAll("\n", " ")}\n`);
}
