// What is there after a restart, clean or not: everything acknowledged, nothing else.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { expectCode, putRandom, randomDigest } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

describe("restart of the local store", () => {
  test("everything stored is there, and nothing else", async () => {
    await using fixture = await StorageFixture.open();
    const digests: Digest[] = [];
    for (const size of [1, 100, 5000, 65_535, 65_536, 100_000, 3_000_000]) {
      digests.push(await putRandom(fixture.storage.blobs, size));
    }
    const before = fixture.storage.stats();
    await fixture.restart();
    await fixture.storage.loaded;
    const after = fixture.storage.stats();
    expect(after.entryCount).toBe(before.entryCount);
    for (const digest of digests) expect(await fixture.storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
  });

  // The index is read in slices; a query must not have to wait for them, nor be wrong before.
  test("findMissing() is right from the first moment, while the index is being read", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const present = await Promise.all(Array.from({ length: 5000 }, (_, index) => putRandom(blobs, 20 + index)));
    await fixture.restart();
    expect(fixture.storage.stats().isLoaded).toBe(false);
    const absent = Array.from({ length: 100 }, () => randomDigest(5));
    const batch = DigestBatch.of(DigestFunction.SHA256, [...absent, ...present]);
    expect(await fixture.storage.blobs.findMissing(batch)).toEqual(Uint32Array.from(absent.keys()));
    await fixture.storage.loaded;
    expect(await fixture.storage.blobs.findMissing(batch)).toEqual(Uint32Array.from(absent.keys()));
    expect(fixture.storage.stats().entryCount).toBe(5000);
  });

  // Growing step by step would copy every entry several times: seconds for a million.
  test("the index has its size before it is read, and no more than it needs", async () => {
    await using fixture = await StorageFixture.open();
    await Promise.all(Array.from({ length: 6000 }, (_, index) => putRandom(fixture.storage.blobs, 20 + (index % 50))));
    await fixture.restart();
    const before = fixture.storage.stats();
    await fixture.storage.loaded;
    expect(fixture.storage.stats().entryCount).toBe(6000);
    expect(before.indexMemoryBytes / 6000).toBeGreaterThanOrEqual(50);
    // But for segments that got more than their share: which ones do is drawn anew at each start.
    const after = fixture.storage.stats().indexMemoryBytes;
    expect(after / before.indexMemoryBytes).toBeLessThan(1.05);
    expect(after / 6000).toBeLessThanOrEqual(72);
  });

  test("a value deleted while the index is being read does not come back", async () => {
    await using fixture = await StorageFixture.open();
    const key = (index: number) => Buffer.alloc(32, index);
    await Promise.all(
      Array.from({ length: 200 }, (_, index) =>
        fixture.storage.values.put(16, key(index), Buffer.from(`value ${index}`)),
      ),
    );
    await fixture.restart();
    expect(await fixture.storage.values.delete(16, key(150))).toBe(true);
    await fixture.storage.values.put(16, key(151), Buffer.from("replaced"));
    await fixture.storage.loaded;
    expect(await fixture.storage.values.get(16, key(150))).toBeUndefined();
    expect(Buffer.from((await fixture.storage.values.get(16, key(151))) ?? []).toString()).toBe("replaced");
    await fixture.restart();
    await fixture.storage.loaded;
    expect(await fixture.storage.values.get(16, key(150))).toBeUndefined();
    expect(Buffer.from((await fixture.storage.values.get(16, key(151))) ?? []).toString()).toBe("replaced");
  });

  test("what a killed process was writing is removed, foreign names are left alone", async () => {
    await using fixture = await StorageFixture.open();
    await putRandom(fixture.storage.blobs, 100_000);
    writeFileSync(join(fixture.dataDir, "tmp", "17"), "half a blob");
    writeFileSync(join(fixture.dataDir, "notes.txt"), "mine");
    mkdirSync(join(fixture.dataDir, "files", "sha256", "zz"));
    await fixture.restart();
    expect(readdirSync(join(fixture.dataDir, "tmp"))).toEqual([]);
    expect(readdirSync(fixture.dataDir)).toContain("notes.txt");
  });

  // Files are renamed before their record is committed: a kill in between leaves one that nobody names.
  test("files that no entry names are removed, all others stay", async () => {
    await using fixture = await StorageFixture.open();
    const digest = await putRandom(fixture.storage.blobs, 100_000);
    const folder = join(fixture.dataDir, "files", "sha256", "ab");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `ab${"0".repeat(62)}`), "nobody's");
    writeFileSync(join(folder, "README"), "somebody's");
    await fixture.restart();
    await expect
      .poll(() => readdirSync(folder).filter((name) => name !== digest.hash), { timeout: 20_000 })
      .toEqual(["README"]);
    expect(await fixture.storage.blobs.get(digest)).toHaveLength(100_000);
  });

  test("the order of last access survives a restart", async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    await using fixture = await StorageFixture.open({ clock, maxSizeBytes: 10 * 2 ** 20, protectRecentMs: 0 });
    const digests: Digest[] = [];
    for (let i = 0; i < 8; i++) {
      digests.push(await putRandom(fixture.storage.blobs, 2 ** 20));
      clock.advance(1000);
    }
    await fixture.storage.blobs.has(digests[0] as Digest);
    await fixture.restart();
    await fixture.storage.loaded;
    for (let i = 0; i < 4; i++) {
      clock.advance(1000);
      await putRandom(fixture.storage.blobs, 2 ** 20);
    }
    const batch = DigestBatch.of(DigestFunction.SHA256, digests);
    const missing = await fixture.storage.blobs.findMissing(batch);
    expect(missing).not.toContain(0);
    expect([...missing].slice(0, 2)).toEqual([1, 2]);
  });

  test("RUNNING counts unclean starts, forgets them after a minute of service, and is gone after a clean stop", async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    await using fixture = await StorageFixture.open({ clock });
    const marker = join(fixture.dataDir, "RUNNING");
    expect(readFileSync(marker, "utf8")).toBe("1\n");
    await fixture.storage.close();
    expect(existsSync(marker)).toBe(false);
    writeFileSync(marker, "3\n");
    await fixture.restart();
    expect(readFileSync(marker, "utf8")).toBe("4\n");
    clock.advance(60_000);
    await expect.poll(() => readFileSync(marker, "utf8"), { timeout: 20_000 }).toBe("1\n");
  });

  test("a data directory of a newer format is refused by name", async () => {
    await using fixture = await StorageFixture.open();
    await fixture.storage.close();
    writeFileSync(join(fixture.dataDir, "FORMAT"), "99\n");
    await expectCode(fixture.restart(), Code.FAILED_PRECONDITION);
    rmSync(join(fixture.dataDir, "FORMAT"));
    await fixture.restart();
  });

  test("places are not used twice after a restart", async () => {
    await using fixture = await StorageFixture.open();
    const first = await Promise.all(Array.from({ length: 50 }, () => putRandom(fixture.storage.blobs, 500)));
    await fixture.restart();
    const second = await Promise.all(Array.from({ length: 50 }, () => putRandom(fixture.storage.blobs, 500)));
    for (const digest of [...first, ...second]) expect(await fixture.storage.blobs.get(digest)).toHaveLength(500);
  });
});
