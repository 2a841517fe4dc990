// The child of torn-writes.test.ts, traced by strace: stores, replaces and evicts, and says what was acknowledged.
//
// Usage: node torn-writes-load.ts DATA_DIR SEED. Prints `blob N`, `result ACTION VERSION` after each acknowledgement, and
// `evicting` before what was said may be taken away again.

import { writeSync } from "node:fs";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import {
  ACTIONS,
  ACTIONS_BEFORE_EVICTION,
  BLOBS_PER_ACTION,
  blobOf,
  resultKey,
  resultOf,
} from "./torn-writes-blobs.ts";

const EVICTED_BYTES = 400_000;

const [dataDir = "", seed = ""] = process.argv.slice(2);
const storage = await openStorage({
  dataDir,
  maxSizeBytes: 2 ** 40,
  protectRecentMs: 0,
  clock: systemClock,
  logger: silentLogger,
  metrics: new MetricsRegistry(),
  threads: 1,
});
const { blobs } = storage;
const cache = new StoredActionCache(storage.values);

await runActions(0, ACTIONS_BEFORE_EVICTION);
say("evicting");
await storage.evict(EVICTED_BYTES);
await runActions(ACTIONS_BEFORE_EVICTION, ACTIONS);
await storage.close();

/** All at once, so that commits are shared and syncs overlap. */
async function runActions(from: number, to: number): Promise<void> {
  await Promise.all(Array.from({ length: to - from }, (_, index) => runAction(from + index)));
}

async function runAction(action: number): Promise<void> {
  const [tiny = 0, small = 0, large = 0] = Array.from(
    { length: BLOBS_PER_ACTION },
    (_, n) => action * BLOBS_PER_ACTION + n,
  );
  await Promise.all([putBatch(tiny), putWhole(small), upload(large)]);
  for (const version of [0, 1]) {
    await cache.put(resultKey(seed, action), resultOf(seed, action, version), { writer: "torn-writes" });
    say(`result ${action} ${version}`);
  }
}

async function putBatch(number: number): Promise<void> {
  const { digest, data } = blobOf(seed, number);
  const written = blobs.putTogether(DigestBatch.of(digest.fn, [digest]), [data]);
  if (written === undefined) throw new Error("a small blob was not taken at once");
  await written;
  say(`blob ${number}`);
}

async function putWhole(number: number): Promise<void> {
  const { digest, data } = blobOf(seed, number);
  await blobs.put(digest, data);
  say(`blob ${number}`);
}

async function upload(number: number): Promise<void> {
  const { digest, data } = blobOf(seed, number);
  const opened = await blobs.openUpload(digest);
  for (let offset = 0; offset < data.length; offset += 50_000) {
    await opened.write(new Uint8Array(data.subarray(offset, offset + 50_000)));
  }
  await opened.finish();
  say(`blob ${number}`);
}

/** A declaration, because the lines above run before those below. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}
