// What the store costs end to end, beside another server: `node native-free-bench/storage/main.ts [FLAGS] [ROW…]`.
//
// Both servers run from the first row to the last, each on a store of its own below --dir, so both are measured with a
// client, a disk and a store in the same state. Runs alternate; a row prints medians, ranges and the ratio asked for.
// Memory and start are measured last, on what the rows have stored. What it leaves out: what a full store evicts.

import { spawn } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { assertNodeVersion } from "../../src/base/node-version.ts";
import { ContentAddressableStorage as Cas, FindMissingBlobsResponse } from "../../src/proto/remote_execution.ts";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "../arguments.ts";
import { parseBenchTarget, type BenchTarget } from "../load/bench-target.ts";
import { LoadSetup } from "../load/load-setup.ts";
import { PreparedScenario, type Measurement, type MeasurementOptions } from "../load/measurement.ts";
import { prepare } from "../load/prepared-calls.ts";
import { RawConnection } from "../load/raw-connection.ts";
import { formatRate } from "../load/report.ts";
import { median, ratioInterval } from "../load/statistics.ts";
import { newSeed } from "../random-data.ts";
import { storageRows, type StorageRow } from "./storage-rows.ts";
import { StoredServer } from "./stored-server.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const LEDGE = `${process.execPath} ${join(ROOT, "src", "main.ts")} serve --listen 127.0.0.1:{port} --data-dir {dir} --slots 0 --max-size 40GiB --log-level error`;

const FLAGS: FlagTable = {
  dir: { kind: "text", value: "DIR", help: "where both stores are made; must be empty or absent, and is removed" },
  "peer-command": { kind: "text", value: "COMMAND", help: "the other server; {dir}, {port} and {port2} are replaced" },
  "ledge-command": { kind: "text", value: "COMMAND", help: "ours (default: from source)" },
  runs: { kind: "text", value: "N", help: "alternating runs of a row (default: 3)" },
  duration: { kind: "text", value: "DURATION", help: "of a run (default: 2s)" },
  "warm-up": { kind: "text", value: "DURATION", help: "before each run, not counted (default: 500ms)" },
  blobs: { kind: "text", value: "N", help: "stored while FindMissingBlobs is measured (default: 1000000)" },
  "read-bytes": { kind: "text", value: "SIZE", help: "of distinct 64 MiB blobs that are read (default: 4GiB)" },
  seed: { kind: "text", value: "NUMBER", help: "default: random, printed" },
  help: { kind: "switch", help: "print this" },
};

/** What is measured of a server that stands still or starts. */
const START_ROW = "start";
const START_DIGESTS = 1000;
const START_RUNS = 3;

interface Contestant {
  readonly name: string;
  readonly target: BenchTarget;
  readonly pid: number | undefined;
}

async function main(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  const rows = storageRows({
    blobs: Math.floor(args.number("blobs", 1_000_000, { min: 1000, max: 1e8 })),
    readBytes: args.sizeBytes("read-bytes", 4 * 2 ** 30),
  });
  if (args.has("help")) {
    const names = [...rows.map(({ name, what }) => `  ${name.padEnd(14)} ${what}`), `  ${START_ROW}`].join("\n");
    process.stdout.write(`Usage: main.ts --dir DIR [FLAGS] [ROW…]\n\n${describeFlags(FLAGS)}\n\nRows:\n${names}\n`);
    return 0;
  }
  const dir = args.text("dir");
  if (dir === undefined) throw new UsageError("--dir is missing: a folder on the disk to be measured");
  const wanted = args.positionals.length === 0 ? [...rows.map(({ name }) => name), START_ROW] : args.positionals;
  const known = new Set([...rows.map(({ name }) => name), START_ROW]);
  for (const name of wanted) if (!known.has(name)) throw new UsageError(`"${name}" is no row (--help lists them)`);
  const options = measurementOptions(args);
  const runs = Math.floor(args.number("runs", 3, { min: 1, max: 100 }));
  process.stdout.write(`seed ${options.seed}\n`);
  mkdirSync(dir);
  const servers: StoredServer[] = [];
  try {
    const commands: [string, string][] = [["ledge", args.text("ledge-command") ?? LEDGE]];
    const peer = args.text("peer-command");
    if (peer !== undefined) commands.push(["peer", peer]);
    for (const [name, command] of commands) {
      servers.push(await StoredServer.start({ name, command: command.split(/\s+/), dir: join(dir, name) }));
    }
    const emptyBytes = servers.map(({ anonymousBytes }) => anonymousBytes);
    for (const row of rows) if (wanted.includes(row.name)) await measureRow(row, { servers, options, runs, dir });
    for (const [index, server] of servers.entries()) {
      const grown = (server.anonymousBytes - emptyBytes[index]!) / 2 ** 20;
      process.stdout.write(`memory         ${server.name}: ${grown.toFixed(0)} MiB more than empty (RssAnon)\n`);
    }
    if (wanted.includes(START_ROW)) await measureStarts(servers, options);
  } finally {
    for (const server of servers) await server.stop();
    rmSync(dir, { recursive: true, force: true });
  }
  return 0;
}

function measurementOptions(args: Arguments): MeasurementOptions {
  return {
    client: "raw",
    connections: 4,
    depth: 16,
    ratePerSecond: undefined,
    warmUpMs: args.durationMs("warm-up", 500),
    durationMs: args.durationMs("duration", 2000),
    seed: Math.floor(args.number("seed", newSeed(), { min: 1, max: 2 ** 31 })),
    instanceName: "",
    compressibleShare: 0.5,
    platform: new Map(),
    findMissing: {},
  };
}

interface RowPlan {
  readonly servers: readonly StoredServer[];
  readonly options: MeasurementOptions;
  readonly runs: number;
  readonly dir: string;
}

async function measureRow(row: StorageRow, { servers, options, runs, dir }: RowPlan): Promise<void> {
  const contestants: Contestant[] = servers.map(({ name, target, pid }) => ({ name, target, pid }));
  const straightLine = row.isUpload === true ? await startStraightLine(join(dir, "straight-line")) : undefined;
  try {
    if (straightLine !== undefined) contestants.push(straightLine.contestant);
    const rowOptions = { ...options, findMissing: row.findMissing ?? {} };
    const results = new Map<string, Measurement[]>();
    const sessions: [Contestant, PreparedScenario][] = [];
    for (const contestant of contestants) {
      const { scenario } = row;
      sessions.push([contestant, await PreparedScenario.create(scenario, contestant.target, rowOptions)]);
      results.set(contestant.name, []);
    }
    for (let run = 0; run < runs; run++) {
      for (const [{ name, pid }, session] of sessions)
        results.get(name)!.push(await session.run({ pid, shape: row.shape }));
    }
    printRow(row, results);
  } finally {
    straightLine?.stop();
  }
}

function printRow(row: StorageRow, results: ReadonlyMap<string, readonly Measurement[]>): void {
  process.stdout.write(`${row.name.padEnd(14)} ${row.what}\n`);
  const rates = (name: string): number[] =>
    (results.get(name) ?? []).map(({ calls, unitsPerCall, durationMs }) => (calls * unitsPerCall * 1000) / durationMs);
  const perCpu = (name: string): number[] =>
    (results.get(name) ?? []).map((run) => (run.unitsPerCall * 1e6) / (run.cpuMicrosecondsPerCall ?? Number.NaN));
  for (const [name, runs] of results) {
    const all = rates(name);
    const errors = runs.reduce((sum, run) => sum + Object.values(run.errors).reduce((a, b) => a + b, 0), 0);
    const range = `${formatRate(Math.min(...all), row.scenario.unit)} to ${formatRate(Math.max(...all), row.scenario.unit)}`;
    const cpu = `${formatRate(median(perCpu(name)), row.scenario.unit)} per CPU second`;
    process.stdout.write(
      `  ${name.padEnd(14)} ${formatRate(median(all), row.scenario.unit).padEnd(20)} (${range}), ${cpu}${errors === 0 ? "" : `, ${errors} errors`}\n`,
    );
  }
  for (const other of [...results.keys()].slice(1)) {
    const { estimate, low, high } = ratioInterval(rates("ledge"), rates(other));
    const asked = other === "peer" ? row.asked : 0.7;
    const verdict = estimate >= asked ? "met" : "MISSED";
    process.stdout.write(
      `  ledge / ${other}: ${estimate.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}), asked ${asked}: ${verdict}\n`,
    );
    if (other !== "peer" || row.askedPerCpu === undefined) continue;
    const cpuRatio = ratioInterval(perCpu("ledge"), perCpu(other)).estimate;
    const cpuVerdict = cpuRatio >= row.askedPerCpu ? "met" : "MISSED";
    process.stdout.write(`  per CPU second: ${cpuRatio.toFixed(2)}, asked ${row.askedPerCpu}: ${cpuVerdict}\n`);
  }
}

/** Time from the start of the process until 1,000 stored blobs are found and 1,000 absent ones are not. */
async function measureStarts(servers: readonly StoredServer[], options: MeasurementOptions): Promise<void> {
  process.stdout.write(`${START_ROW.padEnd(14)} until the first right FindMissingBlobs, warm page cache\n`);
  const times = new Map<StoredServer, number[]>(servers.map((server) => [server, []]));
  for (const server of servers) {
    const connection = await RawConnection.open(server.target.grpc);
    const setup = new LoadSetup(connection, { ...options, seed: options.seed + 1 });
    const blobs = Array.from({ length: START_DIGESTS }, () => setup.blob(40));
    await setup.store(blobs);
    connection.close();
    const absent = Array.from({ length: START_DIGESTS }, () => setup.absent(40));
    const blobDigests = [...blobs.map(({ digest }) => digest), ...absent];
    const question = prepare(Cas.methods.FindMissingBlobs, { blobDigests });
    const hashes = new Set(absent.map(({ hash }) => hash));
    const isRight = (body: Buffer): boolean => {
      const { missingBlobDigests } = FindMissingBlobsResponse.decode(body.subarray(5));
      return missingBlobDigests.length === hashes.size && missingBlobDigests.every(({ hash }) => hashes.has(hash));
    };
    for (let run = 0; run < START_RUNS; run++) {
      await server.stop();
      times.get(server)!.push(await server.start(question, isRight));
    }
    const all = times.get(server)!;
    const range = `${Math.min(...all).toFixed(0)} to ${Math.max(...all).toFixed(0)}`;
    process.stdout.write(`  ${server.name.padEnd(14)} ${median(all).toFixed(0)} ms (${range})\n`);
  }
}

/** The program beside which uploads are judged, in a process of its own. */
async function startStraightLine(folder: string): Promise<{ contestant: Contestant; stop: () => void }> {
  mkdirSync(folder, { recursive: true });
  const script = join(import.meta.dirname, "straight-line-server.ts");
  const child = spawn(process.execPath, [script, folder], { stdio: ["ignore", "pipe", "inherit"] });
  const { value } = (await createInterface(child.stdout)[Symbol.asyncIterator]().next()) as { value?: string };
  if (value === undefined) throw new Error("the straight-line program ended; its message is above");
  const target = parseBenchTarget({ grpc: `grpc://127.0.0.1:${value}`, http: undefined, caFile: undefined });
  return { contestant: { name: "straight-line", target, pid: child.pid }, stop: () => child.kill("SIGKILL") };
}

assertNodeVersion();
process.exitCode = await withUsageErrors("storage bench", () => main(process.argv.slice(2)));
