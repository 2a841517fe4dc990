// How late does the server's event loop get while everything goes on at once, at half of the greatest rate?
//
// `node native-free-bench/storage/loop-delay.ts --dir DIR --files N`, on a store that test/cas/fill-store.ts filled with
// so many files (and small blobs, --blobs): 32 uploads of 1 MiB, FindMissingBlobs of 1,000, new small blobs by the hundred,
// eviction for all of it (--max-size is what is stored), the scrubber. The idle time before is the baseline. Uploads change
// the store: it is filled anew for the next run. What it leaves out: execution.

import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assertNodeVersion } from "../../src/base/node-version.ts";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "../arguments.ts";
import { PreparedScenario, type Measurement, type MeasurementOptions } from "../load/measurement.ts";
import type { ClientShape, Scenario } from "../load/scenario.ts";
import { SCENARIOS } from "../load/scenarios.ts";
import { findNumbered, NUMBERED_FILE_BYTES } from "./numbered-blobs.ts";
import { StoredServer } from "./stored-server.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const PROBE = join(import.meta.dirname, "loop-delay-probe.ts");
const DIGESTS_PER_CALL = 1000;
/** Below the high mark by as much as the first seconds bring, so that eviction runs from then on. */
const FILLED_SHARE = 0.97;
const WANTED = { p99: 5, max: 50 };

const FLAGS: FlagTable = {
  dir: { kind: "text", value: "DIR", help: "a data directory that test/cas/fill-store.ts filled" },
  blobs: { kind: "text", value: "N", help: "small blobs in it (default: 1000000)" },
  files: { kind: "text", value: "N", help: "files of 1 MiB in it (default: 10000)" },
  duration: { kind: "text", value: "DURATION", help: "of the run (default: 60s)" },
  "search-duration": { kind: "text", value: "DURATION", help: "of the search for the greatest rate (default: 8s)" },
  "node-flags": { kind: "text", value: "FLAGS", help: "of the server, such as --cpu-prof" },
  help: { kind: "switch", help: "print this" },
};

interface Part {
  readonly scenario: Scenario;
  readonly shape: ClientShape;
}

interface Delay {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly collections: number;
  readonly longestCollection: number;
}

async function main(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) {
    process.stdout.write(`Usage: loop-delay.ts --dir DIR [FLAGS]\n\n${describeFlags(FLAGS)}\n`);
    return 0;
  }
  const dir = args.text("dir");
  if (dir === undefined) throw new UsageError("--dir is missing: a data directory filled by test/cas/fill-store.ts");
  const blobs = Math.floor(args.number("blobs", 1_000_000, { min: DIGESTS_PER_CALL, max: 1e8 }));
  const files = Math.floor(args.number("files", 10_000, { min: 100, max: 1e7 }));
  const report = `${dir}.delays`;
  rmSync(report, { force: true });
  process.env["LOOP_DELAY_FILE"] = report;
  const maxBytes = Math.ceil((files * NUMBERED_FILE_BYTES) / FILLED_SHARE);
  const nodeFlags = args.text("node-flags") ?? "";
  const command =
    `${process.execPath} ${nodeFlags} --import ${PROBE} ${join(ROOT, "src", "main.ts")} serve --listen 127.0.0.1:{port} ` +
    `--data-dir {dir} --slots 0 --max-size ${maxBytes} --log-level error`;
  const server = await StoredServer.start({ name: "ledge", command: command.split(/\s+/), dir });
  try {
    await sleep(3000); // loaded, compiled
    await takeDelay(server, report);
    await sleep(3000);
    printDelay("idle", await takeDelay(server, report));
    const sessions = await prepareParts(server, blobs);
    const searchMs = args.durationMs("search-duration", 8000);
    const greatest = await runAll(server, sessions, { durationMs: searchMs });
    printDelay("at the greatest rate", await takeDelay(server, report));
    const rates = greatest.map(({ calls, durationMs }) => (calls * 1000) / durationMs / 2);
    await sleep(2000);
    await takeDelay(server, report);
    await sleep(3000);
    const idle = await takeDelay(server, report);
    printDelay("idle again", idle);
    const half = await runAll(server, sessions, { durationMs: args.durationMs("duration", 60_000), rates });
    const loaded = await takeDelay(server, report);
    printDelay("at half of it", loaded);
    for (const [index, { calls, durationMs, unitsPerCall, errors }] of half.entries()) {
      const { name, unit } = sessions[index]!.part.scenario;
      const rate = ((calls * unitsPerCall * 1000) / durationMs).toFixed(0);
      process.stdout.write(`  ${name.padEnd(14)} ${rate} ${unit}/s ${JSON.stringify(errors)}\n`);
    }
    const [p99, max] = [loaded.p99 - idle.p99, loaded.max - idle.max];
    const verdict = p99 <= WANTED.p99 && max <= WANTED.max ? "met" : "MISSED";
    process.stdout.write(
      `above idle: p99 ${p99.toFixed(1)} ms, max ${max.toFixed(1)} ms; asked ${WANTED.p99} and ${WANTED.max}: ${verdict}\n`,
    );
  } finally {
    await server.stop();
    rmSync(report, { force: true });
  }
  return 0;
}

interface Session {
  readonly part: Part;
  /** At `ratePerSecond` calls, or as fast as it goes. */
  readonly prepareAt: (durationMs: number, ratePerSecond?: number) => Promise<PreparedScenario>;
}

async function prepareParts(server: StoredServer, blobs: number): Promise<Session[]> {
  const named = (name: string): Scenario => SCENARIOS.find((scenario) => scenario.name === name)!;
  const parts: Part[] = [
    { scenario: named("write-1m"), shape: { connections: 4, depth: 8 } },
    { scenario: findNumbered(blobs, DIGESTS_PER_CALL), shape: { connections: 1, depth: 4 } },
    { scenario: named("batch-update"), shape: { connections: 1, depth: 4 } },
  ];
  return parts.map((part) => ({
    part,
    prepareAt: (durationMs, ratePerSecond) =>
      PreparedScenario.create(part.scenario, server.target, optionsFor(durationMs, ratePerSecond)),
  }));
}

/** All parts at once; each has new data. */
async function runAll(
  server: StoredServer,
  sessions: readonly Session[],
  { durationMs, rates }: { readonly durationMs: number; readonly rates?: readonly number[] },
): Promise<Measurement[]> {
  const ready = await Promise.all(sessions.map(({ prepareAt }, index) => prepareAt(durationMs, rates?.[index])));
  return Promise.all(
    ready.map((scenario, index) => scenario.run({ pid: server.pid, shape: sessions[index]!.part.shape })),
  );
}

function optionsFor(durationMs: number, ratePerSecond: number | undefined): MeasurementOptions {
  return {
    client: "raw",
    connections: 1,
    depth: 1,
    ratePerSecond,
    warmUpMs: 0,
    durationMs,
    seed: Math.floor(performance.now() * 1000) % 2 ** 31,
    instanceName: "",
    compressibleShare: 0.5,
    platform: new Map(),
    findMissing: {},
  };
}

async function takeDelay(server: StoredServer, report: string): Promise<Delay> {
  const before = linesOf(report).length;
  process.kill(server.pid, "SIGUSR2");
  for (;;) {
    const lines = linesOf(report);
    if (lines.length > before) return JSON.parse(lines.at(-1)!) as Delay;
    await sleep(10);
  }
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").slice(0, -1);
  } catch {
    return [];
  }
}

function printDelay(what: string, delay: Delay): void {
  const facts = [
    ["p50", delay.p50],
    ["p99", delay.p99],
    ["p99.9", delay.p999],
    ["max", delay.max],
    ["longest collection", delay.longestCollection],
  ] as const;
  const text = facts.map(([name, value]) => `${name} ${value.toFixed(1)}`).join(", ");
  process.stdout.write(`${what.padEnd(22)} ${text} ms (${delay.collections} collections)\n`);
}

assertNodeVersion();
process.exitCode = await withUsageErrors("loop delay", () => main(process.argv.slice(2)));
