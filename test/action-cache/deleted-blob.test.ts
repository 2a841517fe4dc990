// Blobs that vanish or change behind the server's back: no result that names one is handed out once that is known.

import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ActionCache, ActionKey } from "../../src/action-cache/action-cache.ts";
import { CompletenessCheckingActionCache } from "../../src/action-cache/completeness-checking-action-cache.ts";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { Code } from "../../src/base/status.ts";
import type { Storage } from "../../src/cas/storage.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { ActionResult } from "../../src/proto/remote_execution.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { expectCode, putRandom } from "../cas/blob-store-contract.ts";
import { StorageFixture } from "../cas/storage-fixture.ts";

const KEY: ActionKey = { instanceName: "", fn: DigestFunction.SHA256, hash: "ab".repeat(32) };

function cacheOf(storage: Storage): ActionCache {
  return new CompletenessCheckingActionCache(
    new StoredActionCache(storage.values),
    storage.blobs,
    new MetricsRegistry(),
  );
}

/** Stores a result with one output file, large enough to be a file, and a small one. */
async function storeResult(storage: Storage): Promise<Digest> {
  const large = await putRandom(storage.blobs, 200_000);
  const small = await putRandom(storage.blobs, 200);
  const outputFiles = [large, small].map(({ hash, sizeBytes }) => ({ path: hash, digest: { hash, sizeBytes } }));
  await cacheOf(storage).put(KEY, ActionResult.encode({ outputFiles }), {});
  expect(await cacheOf(storage).get(KEY)).toBeDefined();
  return large;
}

function pathBelow(dataDir: string, digest: Digest): string {
  return join(dataDir, "files", "sha256", digest.hash.slice(0, 2), digest.hash);
}

describe("a result whose blob was deleted behind the server's back", () => {
  test("is a miss from the first failed read on", async () => {
    await using fixture = await StorageFixture.open();
    const { storage, dataDir } = fixture;
    const large = await storeResult(storage);
    rmSync(pathBelow(dataDir, large));
    await expectCode(storage.blobs.openRead(large), Code.NOT_FOUND);
    await expect.poll(() => cacheOf(storage).get(KEY), { timeout: 20_000 }).toBeUndefined();
  });

  test("is a miss once the scrubber came by", async () => {
    await using fixture = await StorageFixture.open();
    const { storage, dataDir } = fixture;
    const large = await storeResult(storage);
    rmSync(pathBelow(dataDir, large));
    expect((await storage.scrub()).damaged).toEqual([`${DigestFunction.SHA256}:${large.hash}`]);
    expect(await cacheOf(storage).get(KEY)).toBeUndefined();
  });
});

// A disk that forgot what it had been told to keep, or --durability lazy on one that was unplugged.
describe("after a stop that was not clean, what was stored shortly before", () => {
  for (const [name, damage] of [
    ["vanished", (path: string) => rmSync(path)],
    [
      "is zeros",
      (path: string) => {
        chmodSync(path, 0o644);
        writeFileSync(path, new Uint8Array(200_000));
      },
    ],
  ] as const) {
    test(`and ${name} is found without a read, and its result is a miss`, async () => {
      await using fixture = await StorageFixture.open();
      const large = await storeResult(fixture.storage);
      const dataDir = mkdtempSync(join(tmpdir(), "ledge-unclean-"));
      try {
        // As a kill leaves it: nothing is being written at this moment.
        cpSync(fixture.dataDir, dataDir, { recursive: true });
        damage(pathBelow(dataDir, large));
        await using later = await StorageFixture.open({ dataDir });
        await expect.poll(() => cacheOf(later.storage).get(KEY), { timeout: 20_000 }).toBeUndefined();
      } finally {
        rmSync(dataDir, { recursive: true, force: true });
      }
    });
  }
});
