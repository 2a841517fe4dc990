// Decides at start whether the index file can be trusted, and makes a new one from what can be read when it cannot.
//
//   RUNNING   there while a server owns the directory; its number counts the starts since the last clean stop
//
// After one unclean stop the file is walked for a moment in a child process; after several, or when it does not open,
// the whole of it. A walk that fails puts the file into quarantine/, and children copy its whole records into a new one,
// each going on behind the record that ended the one before. Files whose records are lost are adopted later
// (file-adoption.ts), which is why the new index says that it is a rebuilt one.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory, writeFileAtomic } from "../base/atomic-file.ts";
import { selfArguments } from "../base/self.ts";
import { LmdbStore } from "../kv/lmdb-store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";

/** What one unclean stop allows the walk to take: kill -9 does not damage LMDB, and a start should take a second. */
const SHORT_WALK_MS = 300;
/** A page that ends the process whenever it is read would end it again within this time of a busy server's start. */
export const SERVING_AFTER_MS = 60_000;

/** Ends a child that hangs in a loop of damaged pages. */
const LONGEST_WALK_MS = 10 * 60_000;
/** A file that ends this many children has little left worth reading. */
const MAX_SALVAGE_ATTEMPTS = 30;

export interface OpenIndexOptions {
  readonly dataDir: string;
  readonly path: string;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
}

export interface OpenedIndex {
  readonly store: LmdbStore;
  /** True when records may be missing for files that are there. */
  readonly isRebuilt: boolean;
}

export async function openIndex(options: OpenIndexOptions): Promise<OpenedIndex> {
  // A library that does not load here (no folder to extract it to) must not pass for a damaged file.
  LmdbStore.loadLibrary();
  const marker = join(options.dataDir, "RUNNING");
  const uncleanStops = Number(await readFile(marker, "utf8").catch(() => "0"));
  await writeFileAtomic(marker, `${uncleanStops + 1}\n`);
  const isSound = uncleanStops === 0 || !existsSync(options.path) || (await isWalkable(options.path, uncleanStops));
  if (isSound) {
    try {
      return { store: LmdbStore.open(options), isRebuilt: false };
    } catch (error) {
      options.logger.error("the index file does not open", { reason: String(error) });
    }
  }
  await rebuild(options);
  return { store: LmdbStore.open(options), isRebuilt: true };
}

/** Says that the index has served for a while: the next start after kill -9 is a quick one again. */
export async function markServing(dataDir: string): Promise<void> {
  await writeFileAtomic(join(dataDir, "RUNNING"), "1\n").catch(() => undefined); // a longer walk at the next start
}

/** Says that everything was written and closed. */
export async function markCleanStop(dataDir: string): Promise<void> {
  await unlink(join(dataDir, "RUNNING")).catch(() => undefined); // one walk more at the next start
}

async function isWalkable(path: string, uncleanStops: number): Promise<boolean> {
  const limitMs = uncleanStops > 1 ? LONGEST_WALK_MS : SHORT_WALK_MS;
  const { exitCode } = await runChild(["walk", path, String(limitMs)]);
  return exitCode === 0;
}

async function rebuild(options: OpenIndexOptions): Promise<void> {
  const { dataDir, path, logger } = options;
  const quarantine = join(dataDir, "quarantine");
  await mkdir(quarantine, { recursive: true, mode: 0o700 });
  const damaged = join(quarantine, "index.mdb");
  logger.error("the index file is damaged; making a new one from what can be read", { kept: damaged });
  // Two are enough to look into: the last damaged file and this one.
  await rename(damaged, `${damaged}.previous`).catch(() => undefined);
  await rename(path, damaged);
  await rm(`${path}-lock`, { force: true });
  await rm(`${damaged}-lock`, { force: true });
  let from = "";
  let attempts = 0;
  for (; attempts < MAX_SALVAGE_ATTEMPTS; attempts++) {
    const { exitCode, output } = await runChild(["salvage", damaged, path, from]);
    if (exitCode === 0) break;
    const reached = output.trimEnd().split("\n").at(-1)?.split(" ")[0] ?? "";
    const next = keyBehind(reached > from ? reached : from);
    if (next === undefined) break;
    from = next;
  }
  await syncDirectory(dataDir);
  logger.warn("made a new index", { attempts: attempts + 1 });
}

/** A key some way behind `hex`: the same table, the next of its 256 parts, or the next table. */
function keyBehind(hex: string): string | undefined {
  const key = [...Buffer.from(hex, "hex")];
  // Tables are a, c, d, m, n; hashes begin after a kind, places after zeros: three bytes split any of them.
  while (key.length < 4) key.push(0);
  const part = key.slice(0, 4);
  for (let at = 3; at >= 0; at--) {
    const byte = (part[at] ?? 0) + 1;
    part[at] = byte % 256;
    if (byte < 256) return Buffer.from(part).toString("hex");
  }
  return undefined;
}

function runChild(args: readonly string[]): Promise<{ exitCode: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...selfArguments("check-index"), ...args], {
      stdio: ["ignore", "pipe", "ignore"],
      timeout: LONGEST_WALK_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.setEncoding("latin1").on("data", (text: string) => {
      // Only the last line counts.
      output = (output + text).slice(-4096);
    });
    // No process to be had (EAGAIN, EMFILE) is no verdict on the file.
    child.on("error", (error) => reject(new Error(`Cannot check the index file: ${error.message}`, { cause: error })));
    child.on("close", (exitCode) => resolve({ exitCode, output }));
  });
}
