// The operator's tools on a store: scrubbing drops what is not what its name says; reports; making room by hand.

import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { DigestFunction } from "../../src/digest/digest.ts";
import { putRandom } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

describe("scrub()", () => {
  test("drops what is not what its name says and keeps the rest", async () => {
    await using fixture = await StorageFixture.open();
    const { storage } = fixture;
    const good = [await putRandom(storage.blobs, 100), await putRandom(storage.blobs, 200_000)];
    const bad = await putRandom(storage.blobs, 200_000);
    await storage.values.put(16, Buffer.alloc(32, 1), Buffer.from("a result"));
    const path = storage.blobs.filePath(bad) ?? "";
    const bytes = readFileSync(path);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    chmodSync(path, 0o644);
    writeFileSync(path, bytes);
    const report = await storage.scrub();
    expect(report).toMatchObject({ checkedEntries: 4, damaged: [`${DigestFunction.SHA256}:${bad.hash}`] });
    expect(await storage.blobs.has(bad)).toBe(false);
    for (const digest of good) expect(await storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
    expect((await storage.scrub()).damaged).toEqual([]);
  });

  test("report() counts by kind, size and age; evict() makes room", async () => {
    await using fixture = await StorageFixture.open({ protectRecentMs: 0 });
    const { storage } = fixture;
    await putRandom(storage.blobs, 100);
    await putRandom(storage.blobs, 200_000);
    await storage.values.put(16, Buffer.alloc(32, 1), Buffer.from("a result"));
    const report = await storage.report();
    expect(report.kinds).toMatchObject([
      { kind: "SHA256 blobs", count: 2, bytes: 200_100, fileCount: 1 },
      { kind: "action results", count: 1, bytes: 8, fileCount: 0 },
    ]);
    expect(report.sizes.map(({ count }) => count)).toEqual([2, 0, 0, 1, 0, 0, 0]);
    await storage.evict(10 ** 9);
    expect(storage.stats().entryCount).toBe(0);
  });
});
