// The child of durability.test.ts, traced by strace: stores blobs and results one after the other and says so.
//
// Usage: node durability-load.ts DATA_DIR. Prints `begin NAME` before each store and `done NAME` after it resolved; for a
// blob that becomes a file NAME is its hash.

import { randomBytes } from "node:crypto";
import { writeSync } from "node:fs";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { INLINE_LIMIT_BYTES } from "../../src/cas/inline-limit.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

const [dataDir = ""] = process.argv.slice(2);
const metrics = new MetricsRegistry();
const options = { dataDir, maxSizeBytes: 2 ** 40, clock: systemClock, logger: silentLogger, metrics, threads: 1 };
const storage = await openStorage(options);
await storage.loaded;
const cache = new StoredActionCache(storage.values);

for (let round = 0; round < 4; round++) {
  for (const size of [100, 20_000, 100_000, 1_500_000]) {
    const data = randomBytes(size);
    const digest = digestOf(DigestFunction.SHA256, data);
    const name = size >= INLINE_LIMIT_BYTES ? `file ${digest.hash}` : `inline ${digest.hash}`;
    say(`begin ${name}`);
    if (round % 2 === 0) {
      await storage.blobs.put(digest, data);
    } else {
      const upload = await storage.blobs.openUpload(digest);
      await upload.write(new Uint8Array(data));
      await upload.finish();
    }
    say(`done ${name}`);
  }
  const key = { instanceName: "", fn: DigestFunction.SHA256, hash: randomBytes(32).toString("hex") };
  say(`begin result ${key.hash}`);
  await cache.put(key, randomBytes(300), {});
  say(`done result ${key.hash}`);
}
await storage.close();

function say(line: string): void {
  writeSync(1, `${line}\n`);
}
