// A lower --max-size than at the last start: the index file gives back what the new limit does not let it keep.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ManualClock, systemClock } from "../../src/base/clock.ts";
import { isAdoptionPending, requestAdoption } from "../../src/cas/file-adoption.ts";
import { compactIndex } from "../../src/cas/index-compaction.ts";
import { openStorage, type Storage } from "../../src/cas/storage.ts";
import type { Digest } from "../../src/digest/digest.ts";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { putRandom } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

async function putMany(storage: Storage, count: number): Promise<Digest[]> {
  const digests: Digest[] = [];
  while (digests.length < count) {
    digests.push(...(await Promise.all(Array.from({ length: 50 }, () => putRandom(storage.blobs, 40_000)))));
  }
  return digests;
}

function fileBytes(dataDir: string): number {
  return statSync(join(dataDir, "index.mdb")).blocks * 512;
}

/** What this process has mapped of the index. */
function mappedBytes(dataDir: string): number {
  const line = readFileSync("/proc/self/maps", "latin1")
    .split("\n")
    .find((map) => map.endsWith(join(dataDir, "index.mdb")));
  const [from = "0", to = "0"] = line?.split(" ")[0]?.split("-") ?? [];
  return Number(BigInt(`0x${to}`) - BigInt(`0x${from}`));
}

describe("a limit that was lowered between two starts", () => {
  test("gives back the index file's pages and address space, and keeps what was asked for last", async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    await using fixture = await StorageFixture.open({ maxSizeBytes: 2 * GIB, clock });
    const { dataDir } = fixture;
    const old = await putMany(fixture.storage, 600);
    clock.advance(1000);
    const young = await putMany(fixture.storage, 50);
    expect(fileBytes(dataDir)).toBeGreaterThan(24 * MIB);
    expect(mappedBytes(dataDir)).toBe(4 * GIB);

    await fixture.restart({ maxSizeBytes: 16 * MIB });

    expect(fileBytes(dataDir)).toBeLessThanOrEqual(0.6 * 16 * MIB);
    expect(mappedBytes(dataDir)).toBe(GIB);
    const { blobs } = fixture.storage;
    for (const digest of young) expect(await blobs.get(digest)).toHaveLength(digest.sizeBytes);
    const kept = (await Promise.all(old.map(async (digest) => blobs.has(digest)))).filter(Boolean).length;
    expect(kept).toBeGreaterThan(50);
    expect(kept).toBeLessThan(300);
    // New ones are taken, within the new limit, once the old ones were not asked for just now.
    clock.advance(11 * 60_000);
    await putMany(fixture.storage, 50);
    expect(fixture.storage.stats().usedBytes).toBeLessThanOrEqual(16 * MIB);
  });

  // Action results are small entries: a build that finds none of them runs everything again.
  test("takes what is old first, be it small or a file", async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    await using fixture = await StorageFixture.open({ maxSizeBytes: 2 * GIB, clock });
    for (let index = 0; index < 40; index++) await putRandom(fixture.storage.blobs, MIB);
    clock.advance(1000);
    const young = await putMany(fixture.storage, 300);

    await fixture.restart({ maxSizeBytes: 16 * MIB });

    const { blobs } = fixture.storage;
    const kept = (await Promise.all(young.map(async (digest) => blobs.has(digest)))).filter(Boolean).length;
    expect(kept).toBeGreaterThan(120);
  });

  test("says what it cannot give back where the copy has no room, and serves as it is", async () => {
    const disk = mkdtempSync(join(tmpdir(), "ledge-small-"));
    const run = (command: string, ...args: string[]) => expect(spawnSync(command, args).status).toBe(0);
    run("mount", "-t", "tmpfs", "-o", `size=${64 * MIB}`, "ledge-test", disk);
    try {
      const lines: string[] = [];
      const logger = createLogger({ level: "info", format: "text", write: (line) => void lines.push(line) });
      const open = (maxSizeBytes: number) =>
        openStorage({
          dataDir: disk,
          maxSizeBytes,
          clock: systemClock,
          logger,
          metrics: new MetricsRegistry(),
          threads: 1,
        });
      let storage = await open(GIB);
      const digests = await putMany(storage, 1050);
      await storage.close();
      expect(lines).toEqual([]);
      const before = fileBytes(disk);

      storage = await open(64 * MIB);

      expect(lines.join("")).toMatch(/stays larger than its share of --max-size.*to copy what is in use, the disk has/);
      expect(fileBytes(disk)).toBeGreaterThanOrEqual(before);
      const found = await Promise.all(digests.map(async (digest) => storage.blobs.get(digest)));
      expect(found.filter((data) => data !== undefined).length).toBeGreaterThan(500);
      await storage.close();
    } finally {
      run("umount", "--lazy", disk);
      rmSync(disk, { recursive: true, force: true });
    }
  });
});

// Else the start behind it would take those files for what a crash left, and remove them.
test("a copy of the index remembers that files wait for their records", async () => {
  await using fixture = await StorageFixture.open();
  const path = join(fixture.dataDir, "index.mdb");
  await fixture.storage.close();
  const before = LmdbStore.open({ path });
  await requestAdoption(before);
  await before.close();
  await compactIndex(fixture.dataDir);
  const after = LmdbStore.open({ path });
  expect(isAdoptionPending(after)).toBe(true);
  await after.close();
});
