// The child of crash.test.ts: stores blobs and action results as fast as it can and says what was acknowledged.
//
// Usage: node crash-load.ts DATA_DIR SEED FIRST MAX_SIZE [lazy]. Prints one line per acknowledgement: `b N` for blob N, `r N` for
// result N, whose blobs are N to N+2. What blob N holds follows from seed and N (crash-blobs.ts). Runs until killed.

import { writeSync } from "node:fs";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { Code, StatusError } from "../../src/base/status.ts";
import type { BlobStore } from "../../src/cas/blob-store.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { blobOf, resultKey, resultOf } from "./crash-blobs.ts";

const [dataDir = "", seed = "", first = "0", maxSize = "", durability = "sync"] = process.argv.slice(2);

const storage = await openStorage({
  dataDir,
  maxSizeBytes: Number(maxSize),
  protectRecentMs: 0,
  durability: durability === "lazy" ? "lazy" : "sync",
  clock: systemClock,
  logger: silentLogger,
  metrics: new MetricsRegistry(),
  threads: 2,
});
const cache = new StoredActionCache(storage.values);
let next = Number(first);

async function work(): Promise<void> {
  for (;;) {
    const number = next;
    next += 3;
    try {
      await Promise.all([number, number + 1, number + 2].map((blob) => store(storage.blobs, blob)));
      await cache.put(resultKey(seed, number), resultOf(seed, number), { writer: "crash-load" });
      say(`r ${number}`);
    } catch (error) {
      // A small store that is full of what is under way: the next ones find room again.
      if (!(error instanceof StatusError) || error.code !== Code.RESOURCE_EXHAUSTED) throw error;
    }
  }
}

async function store(blobs: BlobStore, number: number): Promise<void> {
  const { digest, data } = blobOf(seed, number);
  if (number % 2 === 0) {
    await blobs.put(digest, data);
  } else {
    const upload = await blobs.openUpload(digest);
    for (let offset = 0; offset < data.length; offset += 100_000) {
      await upload.write(new Uint8Array(data.subarray(offset, offset + 100_000)));
    }
    await upload.finish();
  }
  say(`b ${number}`);
}

/** Straight to the pipe: a line in a buffer of ours would die with us. A full pipe is waited for, however slow its reader. */
function say(line: string): void {
  let rest = Buffer.from(`${line}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

await Promise.all(Array.from({ length: 8 }, work));
