// kill -9 at random moments under load: nothing acknowledged may be lost, and nothing may be torn.
//
// LEDGE_CRASH_KILLS makes a long run of it (`npm run soak:storage`: 1,000); LEDGE_CRASH_SEED repeats one.

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { StoredActionCache } from "../../src/action-cache/stored-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { same } from "./blob-store-contract.ts";
import { blobOf, resultKey, resultOf } from "./crash-blobs.ts";

const KILLS = Number(process.env["LEDGE_CRASH_KILLS"] ?? "8");
/** Only a hang meets it: a kill and the look at everything stored after it take seconds, more as the store grows. */
const TIMEOUT_MS = 600_000 + KILLS * 30_000;
const SEED = process.env["LEDGE_CRASH_SEED"] ?? String(randomInt(2 ** 31));

interface Acknowledged {
  readonly blobs: Set<number>;
  readonly results: Set<number>;
  next: number;
}

function open(dataDir: string, maxSizeBytes: number) {
  const metrics = new MetricsRegistry();
  return openStorage({ dataDir, maxSizeBytes, clock: systemClock, logger: silentLogger, metrics, threads: 1 });
}

interface RunOptions {
  readonly dataDir: string;
  readonly known: Acknowledged;
  readonly maxSize: number;
  readonly afterMs: number;
  readonly durability?: "sync" | "lazy";
}

/** Runs the load until some time after its first acknowledgement and kills it there. */
async function runAndKill(options: RunOptions) {
  const { known, durability = "sync" } = options;
  const script = join(import.meta.dirname, "crash-load.ts");
  const args = [options.dataDir, SEED, String(known.next), String(options.maxSize), durability];
  const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  const ended = new Promise<void>((resolve) => child.stdout.on("close", resolve));
  while (text === "" && child.exitCode === null) await sleep(5);
  await sleep(options.afterMs);
  expect(child.exitCode, "the load ended by itself").toBe(null);
  child.kill("SIGKILL");
  await ended;
  for (const line of text.split("\n").slice(0, -1)) {
    const [kind, number] = [line[0], Number(line.slice(2))];
    (kind === "b" ? known.blobs : known.results).add(number);
    known.next = Math.max(known.next, number + 30);
  }
}

test(
  "no acknowledged blob or result is lost or torn by kill -9, and no result is incomplete",
  async () => {
    console.log(`seed ${SEED}, ${KILLS} kills`);
    const dataDir = mkdtempSync(join(tmpdir(), "ledge-crash-"));
    const known: Acknowledged = { blobs: new Set(), results: new Set(), next: 0 };
    try {
      for (let kill = 0; kill < KILLS; kill++) {
        await runAndKill({ dataDir, known, maxSize: 2 ** 40, afterMs: randomInt(200) });
        const storage = await open(dataDir, 2 ** 40);
        const cache = new StoredActionCache(storage.values);
        const lost: string[] = [];
        for (const number of known.blobs) {
          const { digest, data } = blobOf(SEED, number);
          if (!same(await storage.blobs.get(digest), data)) lost.push(`blob ${number} of ${data.length} bytes`);
        }
        for (const number of known.results) {
          const result = await cache.get(resultKey(SEED, number));
          if (!same(result, resultOf(SEED, number))) lost.push(`result ${number}`);
        }
        // Results that were written but never acknowledged must be whole as well.
        for (let number = 0; number < known.next + 100; number += 3) {
          if ((await cache.get(resultKey(SEED, number))) === undefined) continue;
          for (const blob of [number, number + 1, number + 2]) {
            if (!(await storage.blobs.has(blobOf(SEED, blob).digest))) lost.push(`blob ${blob} of result ${number}`);
          }
        }
        expect(readdirSync(join(dataDir, "tmp"))).toEqual([]);
        await storage.close();
        expect(lost, `seed ${SEED}, kill ${kill}`).toEqual([]);
      }
      console.log(`${known.blobs.size} blobs and ${known.results.size} results acknowledged, none lost`);
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);

test(
  "kill -9 while evicting leaves whole blobs only",
  async () => {
    const dataDir = mkdtempSync(join(tmpdir(), "ledge-crash-"));
    const known: Acknowledged = { blobs: new Set(), results: new Set(), next: 0 };
    const maxSize = 24 * 2 ** 20;
    try {
      for (let kill = 0; kill < Math.ceil(KILLS / 3); kill++) {
        await runAndKill({ dataDir, known, maxSize, afterMs: 150 + randomInt(250) });
        const storage = await open(dataDir, maxSize);
        await storage.loaded;
        let present = 0;
        for (const number of known.blobs) {
          const { digest, data } = blobOf(SEED, number);
          const stored = await storage.blobs.get(digest);
          if (stored === undefined) continue;
          present++;
          if (!same(stored, data)) throw new Error(`seed ${SEED}: blob ${number} is torn`);
        }
        expect(present).toBeGreaterThan(0);
        expect(storage.stats().usedBytes).toBeLessThan(maxSize * 1.2);
        await storage.close();
      }
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);

// What was acknowledged may be gone, but only from the end, and never in parts.
test(
  "kill -9 with --durability lazy loses no more than the last writes, tears nothing and keeps results complete",
  async () => {
    const dataDir = mkdtempSync(join(tmpdir(), "ledge-crash-"));
    const known: Acknowledged = { blobs: new Set(), results: new Set(), next: 0 };
    try {
      let lost = 0;
      let acknowledged = 0;
      for (let kill = 0; kill < Math.ceil(KILLS / 2); kill++) {
        const kept = new Set(known.blobs);
        await runAndKill({ dataDir, known, maxSize: 2 ** 40, afterMs: randomInt(300), durability: "lazy" });
        const storage = await open(dataDir, 2 ** 40);
        const cache = new StoredActionCache(storage.values);
        acknowledged += known.blobs.size - kept.size;
        for (const number of known.blobs) {
          const { digest, data } = blobOf(SEED, number);
          const stored = await storage.blobs.get(digest);
          if (stored !== undefined && !same(stored, data)) throw new Error(`seed ${SEED}: blob ${number} is torn`);
          // What an earlier start found on the disk is durable.
          if (stored === undefined && kept.has(number)) throw new Error(`seed ${SEED}: blob ${number} is lost`);
          if (stored === undefined && known.blobs.delete(number)) lost++;
        }
        for (let number = 0; number < known.next + 100; number += 3) {
          if ((await cache.get(resultKey(SEED, number))) === undefined) continue;
          for (const blob of [number, number + 1, number + 2]) {
            const { digest, data } = blobOf(SEED, blob);
            if (!same(await storage.blobs.get(digest), data)) {
              throw new Error(`seed ${SEED}: result ${number} is there, its blob ${blob} is not`);
            }
          }
        }
        await storage.close();
      }
      console.log(`lazy: ${lost} of ${acknowledged} acknowledged blobs lost`);
      expect(known.blobs.size).toBeGreaterThan(0);
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);
