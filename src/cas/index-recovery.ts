// Decides at start whether the index file can be trusted, and makes a new one from what can be read when it cannot.
//
//   RUNNING      there while a server owns the directory; its number counts the starts since the last clean stop
//   REBUILDING   there from before a damaged index is moved away until the new one says that files are to be adopted
//
// After one unclean stop the file is walked for a moment in a child process; after several, or when it does not open,
// the whole of it. A failure that an empty index meets as well is the machine's (address space, permission, memory): the
// file stays where it is and the start fails, saying what to do. A walk that fails by the file puts the file into quarantine/, and children copy its whole records into a new one,
// each going on behind the record that ended the one before. Files whose records are lost are adopted later
// (file-adoption.ts), which is why the new index says that it is a rebuilt one.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncDirectory, writeFileAtomic } from "../base/atomic-file.ts";
import { selfArguments } from "../base/self.ts";
import { Code, StatusError } from "../base/status.ts";
import { DamagedIndexError, mendHeaders } from "../kv/lmdb-file.ts";
import { LmdbStore } from "../kv/lmdb-store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { ExitCode } from "./index-check.ts";

const REBUILDING = "REBUILDING";

/** What one unclean stop allows the walk to take: kill -9 does not damage LMDB, and a start should take a second. */
const SHORT_WALK_MS = 300;
/** A page that ends the process whenever it is read would end it again within this time of a busy server's start. */
export const SERVING_AFTER_MS = 60_000;

/** Ends a child that hangs in a loop of damaged pages; a sound walk stops by itself at this time. */
const LONGEST_WALK_MS = 10 * 60_000;
const MARGIN_MS = 60_000;
/** A file that ends this many children has little left worth reading. */
const MAX_SALVAGE_ATTEMPTS = 30;

export interface OpenIndexOptions {
  readonly dataDir: string;
  readonly path: string;
  readonly maxStoredBytes: number;
  readonly reservedAddressBytes: number;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
}

export interface OpenedIndex {
  readonly store: LmdbStore;
  /** True when records may be missing for files that are there. */
  readonly isRebuilt: boolean;
  /** True when the last server did not end by closing it. */
  readonly wasUnclean: boolean;
}

/** Throws FAILED_PRECONDITION, and leaves the file alone, when it is this machine that keeps it from opening. */
export async function openIndex(options: OpenIndexOptions): Promise<OpenedIndex> {
  // A library that does not load here (no folder to extract it to) must not pass for a damaged file.
  LmdbStore.loadLibrary();
  const marker = join(options.dataDir, "RUNNING");
  const uncleanStops = Number(await readFile(marker, "utf8").catch(() => "0"));
  await writeFileAtomic(marker, `${uncleanStops + 1}\n`);
  try {
    const wasRebuilding = existsSync(join(options.dataDir, REBUILDING));
    if (wasRebuilding && !existsSync(options.path)) await makeFromQuarantined(options);
    const damage = await openOrFindDamage(options, uncleanStops);
    const wasUnclean = uncleanStops > 0;
    if (typeof damage !== "string") return { store: damage, isRebuilt: wasRebuilding, wasUnclean };
    await rebuild(options, damage);
    return { store: LmdbStore.open(options), isRebuilt: true, wasUnclean };
  } catch (error) {
    // No start at all: the next one needs no longer walk because of it.
    await (uncleanStops === 0 ? unlink(marker) : writeFileAtomic(marker, `${uncleanStops}\n`)).catch(() => undefined);
    throw error;
  }
}

/** The opened index, or what is wrong with its file. */
async function openOrFindDamage(options: OpenIndexOptions, uncleanStops: number): Promise<LmdbStore | string> {
  if (uncleanStops > 0 && existsSync(options.path)) {
    const damage = await findDamageByWalk(options, uncleanStops);
    if (damage !== undefined) return damage;
  }
  try {
    return LmdbStore.open(options);
  } catch (error) {
    if (error instanceof DamagedIndexError) return error.message;
    throw error;
  }
}

/** Says that the index has served for a while: the next start after kill -9 is a quick one again. */
export async function markServing(dataDir: string): Promise<void> {
  await writeFileAtomic(join(dataDir, "RUNNING"), "1\n").catch(() => undefined); // a longer walk at the next start
}

/** Says that the index itself knows now that it is a rebuilt one. */
export async function markRebuilt(dataDir: string): Promise<void> {
  await rm(join(dataDir, REBUILDING), { force: true });
}

/** Says that everything was written and closed. */
export async function markCleanStop(dataDir: string): Promise<void> {
  await unlink(join(dataDir, "RUNNING")).catch(() => undefined); // one walk more at the next start
}

/** What is wrong with the file, found by a child that reads it; undefined when it was read without trouble. */
async function findDamageByWalk(options: OpenIndexOptions, uncleanStops: number): Promise<string | undefined> {
  const limitMs = uncleanStops > 1 ? LONGEST_WALK_MS : SHORT_WALK_MS;
  const walk = await runIndexChild(["walk", options.path, String(limitMs)]);
  if (walk.exitCode === 0) return undefined;
  const damage = `reading it in a child process ended with ${endOf(walk)}`;
  if (walk.exitCode === ExitCode.DAMAGED) return walk.said || damage;
  if (walk.exitCode === ExitCode.NOT_OPENABLE) throw cannotOpen(walk.said);
  // An empty index in the same place tells the file's fault from the machine's.
  const emptyPath = join(options.dataDir, "tmp", "empty-index");
  const empty = await runIndexChild(["create", emptyPath]);
  for (const path of [emptyPath, `${emptyPath}-lock`]) await rm(path, { force: true });
  if (empty.exitCode === 0) return damage;
  throw cannotOpen(empty.said || `a child process that makes an empty index beside it ended with ${endOf(empty)}`);
}

function cannotOpen(reason: string): StatusError {
  return new StatusError(
    Code.FAILED_PRECONDITION,
    reason.startsWith("Cannot") ? reason : `Cannot open the index: ${reason}`,
  );
}

function endOf({ exitCode, signal }: ChildEnd): string {
  return signal ?? `exit code ${exitCode}`;
}

function quarantined(dataDir: string): string {
  return join(dataDir, "quarantine", "index.mdb");
}

async function rebuild(options: OpenIndexOptions, damage: string): Promise<void> {
  const { dataDir, path, logger } = options;
  const damaged = quarantined(dataDir);
  await mkdir(dirname(damaged), { recursive: true, mode: 0o700 });
  logger.error("the index file is damaged; making a new one from what can be read", { damage, kept: damaged });
  await writeFileAtomic(join(dataDir, REBUILDING), "");
  // Two are enough to look into: the last damaged file and this one.
  await rename(damaged, `${damaged}.previous`).catch(() => undefined);
  await rename(path, damaged);
  await makeFromQuarantined(options);
}

/** A new index in its place, whole: a start that is killed meanwhile finds none, and makes it from the beginning. */
async function makeFromQuarantined({ dataDir, path, logger }: OpenIndexOptions): Promise<void> {
  const damaged = quarantined(dataDir);
  const young = `${path}.rebuilt`;
  for (const stale of [young, `${young}-lock`, `${path}-lock`, `${damaged}-lock`]) await rm(stale, { force: true });
  const attempts = existsSync(damaged) && mendHeaders(damaged) ? await salvage(damaged, young) : 0;
  await rm(`${young}-lock`, { force: true });
  // Where nothing could be read there is none.
  if (existsSync(young)) await rename(young, path);
  await syncDirectory(dataDir);
  logger.warn("made a new index", { attempts });
}

/** Returns how many children it took. */
async function salvage(damaged: string, path: string): Promise<number> {
  let from = "";
  let attempts = 1;
  for (; attempts < MAX_SALVAGE_ATTEMPTS; attempts++) {
    const { exitCode, output } = await runIndexChild(["salvage", damaged, path, from]);
    if (exitCode === 0) break;
    const reached = output.trimEnd().split("\n").at(-1)?.split(" ")[0] ?? "";
    const next = keyBehind(reached > from ? reached : from);
    if (next === undefined) break;
    from = next;
  }
  return attempts;
}

/** A key some way behind `hex`: the same table, the next of its 256 parts, or the next table. */
function keyBehind(hex: string): string | undefined {
  const key = [...Buffer.from(hex, "hex")];
  // Tables are a, c, d, e; hashes begin after a kind, places after zeros: three bytes split any of them.
  while (key.length < 4) key.push(0);
  const part = key.slice(0, 4);
  for (let at = 3; at >= 0; at--) {
    const byte = (part[at] ?? 0) + 1;
    part[at] = byte % 256;
    if (byte < 256) return Buffer.from(part).toString("hex");
  }
  return undefined;
}

interface ChildEnd {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  /** The last it wrote to stderr. */
  readonly said: string;
}

/** Throws when it cannot be started or was killed for a reason of the machine's: that is no verdict on the file. */
export function runIndexChild(args: readonly string[]): Promise<ChildEnd> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...selfArguments("check-index"), ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: LONGEST_WALK_MS + MARGIN_MS,
      killSignal: "SIGTERM",
    });
    let output = "";
    let said = "";
    child.stdout.setEncoding("latin1").on("data", (text: string) => {
      // Only the last line counts.
      output = (output + text).slice(-4096);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-4096)));
    child.on("error", (error) => reject(new Error(`Cannot check the index file: ${error.message}`, { cause: error })));
    child.on("close", (exitCode, signal) => {
      if (signal === "SIGKILL") reject(cannotOpen("the child process that reads it was killed; is memory short?"));
      else resolve({ exitCode, signal, output, said: said.trim() });
    });
  });
}
