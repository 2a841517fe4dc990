// A disk that fills up: refused writes, going reads, and writes again once there is room. On a tmpfs of its own.

import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { Code, StatusError } from "../../src/base/status.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { digestOf } from "../../src/compute/hash.ts";
import type { Digest } from "../../src/digest/digest.ts";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { expectCode, putRandom, same } from "./blob-store-contract.ts";

const MIB = 1024 * 1024;

/** A small file system that this process mounts, or that a namespace of the test run gives it. */
class SmallDisk implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ledge-small-"));

  constructor(sizeBytes: number) {
    run("mount", "-t", "tmpfs", "-o", `size=${sizeBytes}`, "ledge-test", this.path);
  }

  [Symbol.dispose](): void {
    run("umount", "--lazy", this.path);
    rmSync(this.path, { recursive: true, force: true });
  }
}

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
}

function isFull(error: unknown): boolean {
  return error instanceof StatusError && error.code === Code.RESOURCE_EXHAUSTED;
}

function open(dataDir: string, maxSizeBytes = 2 ** 40, durability: "sync" | "lazy" = "sync") {
  const metrics = new MetricsRegistry();
  return openStorage({
    dataDir,
    maxSizeBytes,
    durability,
    protectRecentMs: 0,
    clock: systemClock,
    logger: silentLogger,
    metrics,
    threads: 2,
  });
}

/** Writes a file until the disk takes no byte more. */
function fillUp(path: string): void {
  const file = openSync(path, "w");
  for (let size = MIB; size > 0;) {
    try {
      if (writeSync(file, Buffer.alloc(size, 1)) < size) size = Math.floor(size / 2);
    } catch {
      size = Math.floor(size / 2);
    }
  }
  closeSync(file);
}

describe("a full disk", () => {
  for (const [name, parallel] of [
    ["one after the other", 1],
    ["many at once", 32],
  ] as const) {
    test(`uploads ${name} are refused with RESOURCE_EXHAUSTED, reads go on, and room lets uploads in again`, async () => {
      using disk = new SmallDisk(48 * MIB);
      // The rest of the disk belongs to somebody else, and frees itself later.
      const other = join(disk.path, "other");
      writeFileSync(other, Buffer.alloc(20 * MIB, 1));
      const storage = await open(join(disk.path, "data"));
      const stored: { digest: Digest; data: Uint8Array }[] = [];
      let refusals = 0;
      const work = async () => {
        for (let i = 0; i < 600 && refusals < 40; i++) {
          const data = randomBytes([200, 9000, 40_000, 700_000][i % 4] ?? 1);
          const digest = digestOf(1, data);
          try {
            await storage.blobs.put(digest, data);
            stored.push({ digest, data });
          } catch (error) {
            if (!isFull(error)) throw error;
            refusals++;
          }
        }
      };
      await Promise.all(Array.from({ length: parallel }, work));
      expect(refusals).toBeGreaterThan(0);
      expect(stored.length).toBeGreaterThan(10);
      // Files may have been evicted to free the disk; what is present is right.
      for (const { digest, data } of stored) {
        const read = await storage.blobs.get(digest);
        if (read !== undefined) expect(same(read, data)).toBe(true);
      }
      rmSync(other);
      await expect
        .poll(() => putRandom(storage.blobs, 50_000).then(() => "stored", String), { timeout: 20_000 })
        .toBe("stored");
      await putRandom(storage.blobs, 500);
      await storage.close();
      const again = await open(join(disk.path, "data"));
      for (const { digest, data } of stored) {
        const read = await again.blobs.get(digest);
        if (read !== undefined) expect(same(read, data)).toBe(true);
      }
      await again.close();
    });
  }

  // LMDB itself at the very end of the disk, without a guard before it: a rejected write, not the end of the process.
  for (const parallel of [1, 50]) {
    test(`LMDB on a full disk rejects with RESOURCE_EXHAUSTED, keeps what it had and goes on later, ${parallel} at once`, async () => {
      using disk = new SmallDisk(6 * MIB);
      const store = LmdbStore.open({ path: join(disk.path, "index.mdb") });
      const kept: number[] = [];
      let next = 0;
      let refusals = 0;
      const key = (number: number) => Buffer.from(`key ${number}`);
      const value = (number: number) => Buffer.alloc(20_000, number % 251);
      const work = async () => {
        while (refusals < 20) {
          const number = next++;
          try {
            await store.write([{ type: "put", key: key(number), value: value(number) }]);
            kept.push(number);
          } catch (error) {
            if (!isFull(error)) throw error;
            refusals++;
          }
        }
      };
      await Promise.all(Array.from({ length: parallel }, work));
      expect(kept.length).toBeGreaterThan(50);
      const check = (from: LmdbStore) => {
        for (const number of kept) expect(same(from.get(key(number)), value(number))).toBe(true);
      };
      check(store);
      run("mount", "-o", `remount,size=${12 * MIB}`, disk.path);
      await store.write([{ type: "put", key: Buffer.from("later"), value: value(1) }]);
      await store.close();
      const again = LmdbStore.open({ path: join(disk.path, "index.mdb") });
      check(again);
      expect(again.get(Buffer.from("later"))).toBeDefined();
      await again.close();
    });
  }

  test("eviction frees a store that is full to its limit on a small disk", async () => {
    using disk = new SmallDisk(64 * MIB);
    const metrics = new MetricsRegistry();
    const storage = await openStorage({
      dataDir: join(disk.path, "data"),
      maxSizeBytes: 30 * MIB,
      protectRecentMs: 0,
      clock: systemClock,
      logger: silentLogger,
      metrics,
      threads: 1,
    });
    for (let i = 0; i < 80; i++) await putRandom(storage.blobs, 900_000);
    expect(storage.stats().usedBytes).toBeLessThanOrEqual(30 * MIB);
    await storage.close();
  });

  // LMDB copies the pages it changes: without a reserve, a full disk could not even delete.
  for (const durability of ["sync", "lazy"] as const) {
    test(`eviction works with no byte left, with --durability ${durability}`, async () => {
      using disk = new SmallDisk(64 * MIB);
      const storage = await open(join(disk.path, "data"), 2 ** 40, durability);
      for (let i = 0; i < 300; i++) await putRandom(storage.blobs, i % 10 === 0 ? 500_000 : 2000);
      await expect.poll(() => existsSync(join(disk.path, "data", "reserve")), { timeout: 20_000 }).toBe(true);
      fillUp(join(disk.path, "other"));
      const before = storage.stats().entryCount;
      await storage.evict(8 * MIB);
      expect(storage.stats().entryCount).toBeLessThan(before);
      expect(existsSync(join(disk.path, "data", "reserve"))).toBe(false);
      const { entryCount } = storage.stats();
      await storage.close();
      // Gone from the disk, not from memory alone.
      const again = await open(join(disk.path, "data"));
      await again.loaded;
      expect(again.stats().entryCount).toBe(entryCount);
      await again.close();
    });
  }

  test("an upload that meets the end of the disk leaves no file behind", async () => {
    using disk = new SmallDisk(16 * MIB);
    const storage = await open(join(disk.path, "data"));
    const upload = await storage.blobs.openUpload({ fn: 1, hash: "12".repeat(32), sizeBytes: 100 * MIB });
    const send = async () => {
      for (let i = 0; i < 100; i++) await upload.write(randomBytes(MIB));
    };
    await expectCode(send(), Code.RESOURCE_EXHAUSTED);
    expect(storage.stats().openUploads).toBe(0);
    await expect
      .poll(() => putRandom(storage.blobs, 1000).then(() => "stored", String), { timeout: 20_000 })
      .toBe("stored");
    await storage.close();
  });
});
