// `ledge stats`, `ledge fsck` and `ledge gc`: look at, check and shrink the store of a server that is stopped.
//
// They own the data directory meanwhile, by the server's lock, and write what they found to stdout. A running server
// answers /status and /metrics, scrubs in idle time and evicts by itself.

import { existsSync } from "node:fs";
import { allowAssetsBelow } from "../base/embedded-assets.ts";
import { systemClock } from "../base/clock.ts";
import { formatBytes } from "../base/units.ts";
import type { ScrubReport } from "../cas/scrub.ts";
import type { Storage } from "../cas/storage.ts";
import type { StorageReport } from "../cas/storage-report.ts";
import { createLogger } from "../telemetry/log.ts";
import { MetricsRegistry } from "../telemetry/metrics.ts";
import { UsageError } from "./flag.ts";
import { readServeArguments } from "./serve-config.ts";

/** Prints what is stored, by kind, size and age. */
export function runStats(args: readonly string[]): Promise<number> {
  return withStore(args, async (storage) => {
    process.stdout.write(reportText(await storage.report()));
    return 0;
  });
}

/** Hashes everything again and drops what is damaged; returns 1 when something was. */
export function runFsck(args: readonly string[]): Promise<number> {
  return withStore(args, async (storage) => {
    const report = await storage.scrub();
    process.stdout.write(scrubText(report));
    return report.damaged.length === 0 ? 0 : 1;
  });
}

/** Evicts until the store is within --max-size; with --compact gives back what the index file does not use any more. */
export async function runGc(args: readonly string[]): Promise<number> {
  const isCompacting = args.includes("--compact");
  const rest = args.filter((arg) => arg !== "--compact");
  return withStore(rest, evictToLimit, isCompacting ? compact : undefined);
}

async function evictToLimit(storage: Storage, maxSizeBytes: number): Promise<number> {
  const before = storage.stats();
  await storage.evict(Math.max(0, before.usedBytes - maxSizeBytes));
  const after = storage.stats();
  const freed = formatBytes(before.usedBytes - after.usedBytes);
  const evicted = before.entryCount - after.entryCount;
  process.stdout.write(
    `${formatBytes(after.usedBytes)} in ${after.entryCount} entries; evicted ${evicted} entries, ${freed}\n`,
  );
  return 0;
}

async function compact(dataDir: string): Promise<void> {
  const { compactIndex } = await import("../cas/index-compaction.ts");
  const { beforeBytes, afterBytes } = await compactIndex(dataDir);
  process.stdout.write(`compacted the index from ${formatBytes(beforeBytes)} to ${formatBytes(afterBytes)}\n`);
}

async function withStore(
  args: readonly string[],
  action: (storage: Storage, maxSizeBytes: number) => Promise<number>,
  /** Runs when the store is closed and still ours. */
  afterwards: (dataDir: string) => Promise<void> = async () => undefined,
): Promise<number> {
  const { config } = readServeArguments(args);
  const { dataDir, maxSizeBytes } = config;
  if (dataDir === ":memory:" || !existsSync(dataDir))
    throw new UsageError(`--data-dir: there is no store in "${dataDir}"`);
  allowAssetsBelow(dataDir);
  const { lockDataDir } = await import("../server/data-dir-lock.ts");
  const { openStorage } = await import("../cas/storage.ts");
  const lock = await lockDataDir(dataDir);
  try {
    const logger = createLogger({ level: config.logLevel, format: config.logFormat });
    // The limit must not make opening evict: `stats` and `fsck` only look.
    const limits = { maxSizeBytes: Number.MAX_SAFE_INTEGER, protectRecentMs: 0 };
    const storage = await openStorage({
      dataDir,
      ...limits,
      clock: systemClock,
      logger,
      metrics: new MetricsRegistry(),
    });
    let exitCode: number;
    try {
      await storage.loaded;
      exitCode = await action(storage, maxSizeBytes);
    } finally {
      await storage.close();
    }
    await afterwards(dataDir);
    return exitCode;
  } finally {
    lock.release();
  }
}

function reportText({ kinds, sizes, ages }: StorageReport): string {
  const lines = kinds.map(
    ({ kind, count, bytes, diskBytes, fileCount }) =>
      `${kind.padEnd(16)}${cell(count)} ${cell(formatBytes(bytes))} ${cell(formatBytes(diskBytes))} ${cell(fileCount)}`,
  );
  const total = kinds.reduce((sum, { diskBytes }) => sum + diskBytes, 0);
  return [
    `${"".padEnd(16)}${cell("entries")} ${cell("bytes")} ${cell("on disk")} ${cell("files")}`,
    ...lines,
    `${"all".padEnd(16)}${cell(kinds.reduce((sum, { count }) => sum + count, 0))} ${cell("")} ${cell(formatBytes(total))}`,
    "",
    "by size",
    ...sizes.map((row) => histogramLine(row, Number.isFinite(row.below) ? formatBytes(row.below) : undefined)),
    "",
    "by time since they were asked for",
    ...ages.map((row) => histogramLine(row, Number.isFinite(row.below) ? formatAge(row.below) : undefined)),
    "",
  ].join("\n");
}

function histogramLine(row: { readonly count: number; readonly bytes: number }, below: string | undefined): string {
  const label = below === undefined ? "more" : `below ${below}`;
  return `${label.padEnd(16)}${cell(row.count)} ${cell(formatBytes(row.bytes))}`;
}

function formatAge(ms: number): string {
  const [unit, name] = ms >= 86_400_000 ? [86_400_000, "d"] : ms >= 3_600_000 ? [3_600_000, "h"] : [60_000, "min"];
  return `${ms / Number(unit)} ${name}`;
}

function cell(value: string | number): string {
  return String(value).padStart(12);
}

function scrubText({ checkedEntries, checkedBytes, damaged }: ScrubReport): string {
  const summary = `checked ${checkedEntries} entries, ${formatBytes(checkedBytes)}: ${damaged.length} damaged and dropped\n`;
  return damaged.map((name) => `damaged: ${name}\n`).join("") + summary;
}
