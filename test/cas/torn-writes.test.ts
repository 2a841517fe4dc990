// The power fails: whatever part of the writes that were not synced reached the disk, the executable starts on it, knows
// everything that was acknowledged, and gives no wrong byte.
//
// A load is traced once. Prefixes of its log between syncs become data directories, with what was not synced dropped,
// reordered or torn at 512 bytes (disk-crash.ts), and the real server is asked about each. LEDGE_TORN_STATES makes a long
// run of it (`npm run soak:storage`), LEDGE_TORN_SEED repeats one.

import { spawnSync } from "node:child_process";
import { createHash, randomInt } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";
import { CRASH_MODES, diskAfterCrash, type CrashMode } from "./disk-crash.ts";
import { parseDiskTrace, TRACED_CALLS, type DiskOperation, type DiskTrace } from "./disk-trace.ts";
import { askAfterCrash } from "./torn-writes-questions.ts";

const STATES = Number(process.env["LEDGE_TORN_STATES"] ?? "16");
const SEED = process.env["LEDGE_TORN_SEED"] ?? String(randomInt(2 ** 31));
const SERVERS_AT_ONCE = 2;
/** Only a hang meets it: a state takes a second. */
const TIMEOUT_MS = 120_000 + STATES * 20_000;

interface State {
  readonly number: number;
  readonly at: number;
  readonly mode: CrashMode;
}

describe("a power failure between any two syncs", () => {
  let folder: string;
  let trace: DiskTrace;
  beforeAll(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), "ledge-torn-")));
    const log = join(folder, "trace");
    const script = join(import.meta.dirname, "torn-writes-load.ts");
    const dataDir = join(folder, "data");
    const strace = ["-f", "-xx", "-s", String(2 ** 24), "-e", `trace=${TRACED_CALLS}`, "-o", log];
    const { status, error } = spawnSync("strace", [...strace, process.execPath, script, dataDir, SEED], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    if (status !== 0) throw new Error(`strace of the load ended with ${status}`, { cause: error });
    trace = parseDiskTrace(readFileSync(log, "latin1"), dataDir);
    rmSync(log);
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test(
    "loses nothing acknowledged and makes nothing wrong",
    async () => {
      const points = crashPoints(trace);
      console.log(`seed ${SEED}, ${STATES} states of ${points.length} points and ${CRASH_MODES.length} modes`);
      const random = randomOf(`${SEED} states`);
      // A long run visits every point; a short one some of them.
      const order = points.map((at) => ({ at, key: random() })).toSorted((a, b) => a.key - b.key);
      const states = Array.from({ length: STATES }, (_, number): State => {
        const mode = CRASH_MODES[(number + Math.floor(number / order.length)) % CRASH_MODES.length] ?? "nothing";
        return { number, at: order[number % order.length]?.at ?? 0, mode };
      }).values();
      const problems: string[] = [];
      const work = async (): Promise<void> => {
        for (const state of states) problems.push(...(await problemsOf(trace, state)));
      };
      await Promise.all(Array.from({ length: SERVERS_AT_ONCE }, work));
      expect(problems).toEqual([]);
    },
    TIMEOUT_MS,
  );

  // A check that cannot fail proves nothing: without any of the syncs it finds what a disk would have lost.
  for (const [name, isMissing] of [
    ["of files", (path: string) => path.startsWith("tmp/")],
    ["of directories", (path: string) => /^files\/\w+\/..\/$/.test(path)],
    ["of the index", (path: string) => path === "index.mdb"],
  ] as const) {
    test(`is found out without the syncs ${name}`, async () => {
      const paths = firstPaths(trace);
      const operations = trace.operations.flatMap((operation): DiskOperation[] => {
        if (operation.type === "said" || !isMissing(paths.get(operation.node) ?? "")) return [operation];
        if (operation.type === "sync") return [];
        return [operation.type === "sync-write" ? { ...operation, type: "write" } : operation];
      });
      expect(operations.length).toBeLessThan(trace.operations.length);
      const problems = await problemsOf({ ...trace, operations }, { number: 0, at: trace.length, mode: "nothing" });
      expect(problems.join("\n")).toMatch(/acknowledged/);
    });
  }

  /** What the server says that it should not, on the disk of `state`. */
  async function problemsOf(disk: DiskTrace, state: State): Promise<string[]> {
    const { number, at, mode } = state;
    const files = diskAfterCrash(disk, { at, mode, random: randomOf(`${SEED} state ${number}`) });
    const dataDir = mkdtempSync(join(folder, "state-"));
    writeFiles(dataDir, files);
    const name = `seed ${SEED}, state ${number} (${mode} not synced by line ${at})`;
    try {
      await using server = await LedgeServer.start({ dataDir, flags: ["--slots", "0", "--max-size", "1GiB"] });
      const said = disk.operations.flatMap((operation) =>
        operation.type === "said" && operation.beganAt < at ? [operation.text] : [],
      );
      const problems = await askAfterCrash(server.address, SEED, said);
      return problems.map((problem) => `${name}: ${problem}`);
    } catch (error) {
      return [`${name}: ${error instanceof Error ? error.message : String(error)}`];
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  }
});

/** Before and after each sync and each acknowledgement: in between nothing is promised and nothing becomes durable. */
function crashPoints({ operations }: DiskTrace): number[] {
  const points = new Set<number>();
  for (const { type, beganAt, endedAt } of operations) {
    if (type === "sync" || type === "sync-write") points.add(endedAt).add(endedAt + 1);
    if (type === "said") points.add(beganAt + 1);
  }
  return [...points].toSorted((a, b) => a - b);
}

/** What each file and folder was called at first, below the root. */
function firstPaths({ operations, root, folders }: DiskTrace): ReadonlyMap<number, string> {
  const paths = new Map([[root, ""]]);
  for (const operation of operations) {
    if (operation.type !== "name" || operation.target === undefined || paths.has(operation.target)) continue;
    const slash = folders.has(operation.target) ? "/" : "";
    paths.set(operation.target, `${paths.get(operation.node) ?? ""}${operation.name}${slash}`);
  }
  return paths;
}

function writeFiles(dataDir: string, files: ReadonlyMap<string, Buffer>): void {
  for (const [path, bytes] of files) {
    if (path.endsWith("/")) mkdirSync(join(dataDir, path), { recursive: true });
    else writeFileSync(join(dataDir, path), bytes);
  }
}

/** Numbers that follow from `text`. */
function randomOf(text: string): () => number {
  const key = createHash("sha256").update(text).digest();
  let state = key.readUInt32LE(0);
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}
