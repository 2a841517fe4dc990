// Disks that fail, wait or turn read-only: writes are refused in words, reads go on, nothing acknowledged is lost.
//
// strace makes the system calls of a child fail or wait, LMDB's own included, which no layer over fs would reach.

import { spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { expectCode, putRandom, same } from "./blob-store-contract.ts";
import { blobOf } from "./crash-blobs.ts";
import { StorageFixture } from "./storage-fixture.ts";

interface Outcome {
  readonly stored: readonly number[];
  readonly refusals: readonly string[];
  /** What was stored and could not be read. */
  readonly unread: readonly string[];
  readonly peakBytes: number;
}

/** Runs the load with `inject` (as in strace -e inject=), which begins once the storage is open. */
async function runLoad(options: {
  readonly inject: string;
  readonly count: number;
  readonly writers: number;
}): Promise<Outcome> {
  const seed = String(randomInt(2 ** 31));
  console.log(`seed ${seed}, ${options.inject}`);
  const folder = mkdtempSync(join(tmpdir(), "ledge-failing-"));
  const dataDir = join(folder, "data");
  const script = join(import.meta.dirname, "failing-disk-load.ts");
  const calls = options.inject.slice(0, options.inject.indexOf(":"));
  const strace = ["-f", "-o", "/dev/null", "--seccomp-bpf", "-e", `trace=${calls}`, "-e", `inject=${options.inject}`];
  const load = [process.execPath, script, dataDir, seed, String(options.count), String(options.writers)];
  try {
    const { stdout, status, signal } = spawnSync("strace", [...strace, ...load], {
      encoding: "utf8",
      timeout: 200_000,
      maxBuffer: 2 ** 28,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const lines = stdout.split("\n");
    expect({ status, signal, end: lines.includes("end") }).toEqual({ status: 0, signal: null, end: true });
    expect(lines.filter((line) => line.startsWith("wrong"))).toEqual([]);
    const stored = lines.filter((line) => line.startsWith("stored")).map((line) => Number(line.slice(7)));
    await assertStored(dataDir, seed, stored);
    const peak = lines.find((line) => line.startsWith("peak"));
    return {
      stored,
      refusals: lines.filter((line) => line.startsWith("refused")),
      unread: lines.filter((line) => line.startsWith("unread")),
      peakBytes: Number(peak?.slice(5)),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What was acknowledged is there, on a disk that works again. */
async function assertStored(dataDir: string, seed: string, numbers: readonly number[]): Promise<void> {
  const metrics = new MetricsRegistry();
  const options = { dataDir, maxSizeBytes: 2 ** 40, clock: systemClock, logger: silentLogger, metrics, threads: 1 };
  const storage = await openStorage(options);
  const lost: number[] = [];
  for (const number of numbers) {
    const { digest, data } = blobOf(seed, number);
    if (!same(await storage.blobs.get(digest), data)) lost.push(number);
  }
  const before = storage.stats().entryCount;
  await putRandom(storage.blobs, 500);
  expect(storage.stats().entryCount).toBe(before + 1);
  await storage.close();
  expect(lost).toEqual([]);
}

const UNREAD = /^unread \d+ 14 Cannot read the index: .*there when ledge is started again/;

describe("a disk that fails", () => {
  // What a failed sync lost cannot be known, so the index takes nothing more.
  for (const [name, inject] of [
    ["to sync", "fdatasync:error=EIO:when=15+"],
    ["to write", "pwrite64,pwritev:error=EIO:when=15..30"],
  ] as const) {
    test(`${name} refuses writes in words, and what was acknowledged is there after a restart`, async () => {
      const { stored, refusals, unread } = await runLoad({ inject, count: 120, writers: 8 });
      expect(stored.length).toBeGreaterThan(5);
      expect(refusals.length).toBeGreaterThan(0);
      for (const refusal of refusals) expect(refusal).toMatch(/^refused \d+ 13 .*(Input\/output error|EIO)/);
      for (const line of unread) expect(line).toMatch(UNREAD);
    });
  }

  test("to write the root page refuses reads of the index too, in words, and what was acknowledged is there after a restart", async () => {
    const unread: string[] = [];
    // One writer writes a root page every few writes; which of them it is differs a little from run to run.
    for (let when = 15; unread.length === 0 && when < 35; when++) {
      const inject = `pwrite64:error=EIO:when=${when}..${when + 20}`;
      unread.push(...(await runLoad({ inject, count: 60, writers: 1 })).unread);
    }
    expect(unread.length).toBeGreaterThan(0);
    for (const line of unread) expect(line).toMatch(UNREAD);
  });
});

describe("a slow disk", () => {
  test("makes writers wait, within bounded memory", async () => {
    // 200 blobs of up to 1.7 MB, all at once, and 50 ms for each sync.
    const { stored, refusals, peakBytes } = await runLoad({
      inject: "fdatasync:delay_enter=50000",
      count: 200,
      writers: 200,
    });
    expect([stored.length, refusals]).toEqual([200, []]);
    expect(peakBytes).toBeLessThan(600 * 2 ** 20);
  });
});

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
}

describe("a file system that turns read-only", () => {
  test("refuses writes, goes on to read, and takes writes again when it can be written to", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const digests = [await putRandom(blobs, 5000), await putRandom(blobs, 500_000)];
    // As a kernel does after an error: what is open stays open, what is done by name fails with EROFS.
    run("mount", "--bind", fixture.dataDir, fixture.dataDir);
    try {
      run("mount", "-o", "remount,bind,ro", fixture.dataDir);
      await expectCode(putRandom(blobs, 100), Code.UNAVAILABLE);
      await expect(putRandom(blobs, 100_000)).rejects.toThrow(/EROFS/);
      for (const digest of digests) expect(await blobs.get(digest)).toHaveLength(digest.sizeBytes);
    } finally {
      run("umount", "--lazy", fixture.dataDir);
    }
    for (const size of [100, 100_000]) digests.push(await putRandom(blobs, size));
    await fixture.restart();
    for (const digest of digests) expect(await fixture.storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
  });
});
