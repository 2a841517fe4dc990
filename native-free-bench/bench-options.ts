// The flags of `ledge bench`, and the plan that they describe.

import { Arguments, UsageError, type FlagTable } from "./arguments.ts";
import { parseBenchTarget, type BenchTarget } from "./load/bench-target.ts";
import { BUILD_MIXES } from "./load/build-mixes.ts";
import type { FindMissingOptions } from "./load/find-missing-scenarios.ts";
import type { MeasurementOptions } from "./load/measurement.ts";
import type { ClientShape, Scenario } from "./load/scenario.ts";
import { SCENARIOS } from "./load/scenarios.ts";
import { parseThreshold, type Threshold } from "./load/thresholds.ts";
import { newSeed } from "./random-data.ts";

export const BENCH_FLAGS: FlagTable = {
  target: { kind: "list", value: "NAME=TARGET", help: "grpc://HOST:PORT, grpcs://HOST:PORT or unix:PATH" },
  http: { kind: "list", value: "NAME=URL", help: "where that target speaks HTTP (default: the same port)" },
  scenario: { kind: "list", value: "NAME,…", help: "what to measure (default: a short selection; all: everything)" },
  list: { kind: "switch", help: "print the scenarios and contact nobody" },
  runs: { kind: "text", value: "N", help: "runs per target and scenario (default: 5)" },
  duration: { kind: "text", value: "DURATION", help: "of a run (default: 2s)" },
  "warm-up": { kind: "text", value: "DURATION", help: "before each run, not counted (default: 500ms)" },
  connections: { kind: "text", value: "N", help: "default: 4; a scenario may have its own" },
  depth: { kind: "text", value: "N", help: "calls in flight per connection (default: 16)" },
  shape: { kind: "list", value: "CxD,…", help: "connections x depth, each measured: how the rate scales" },
  rate: { kind: "text", value: "N", help: "open loop: arrivals a second, latency from the intended start" },
  processes: { kind: "text", value: "N", help: "processes that generate load (default: 1)" },
  client: { kind: "text", value: "raw|grpc-js", help: "default: raw" },
  instance: { kind: "text", value: "NAME", help: "instance name (default: empty)" },
  platform: { kind: "list", value: "NAME=VALUE", help: "platform property of every action" },
  compressible: { kind: "text", value: "SHARE", help: "share of a blob that a compressor removes (default: 0.5)" },
  "digests-per-call": { kind: "text", value: "N", help: "of FindMissingBlobs, in place of the scenario's" },
  "hit-share": { kind: "text", value: "SHARE", help: "of those digests, how many are present" },
  "working-set": { kind: "text", value: "N", help: "digests that calls draw from (default: 20000)" },
  overlap: { kind: "text", value: "SHARE", help: "of a call's digests, those of the call before (default: 0)" },
  seed: { kind: "text", value: "NUMBER", help: "default: random, printed" },
  "server-pid": { kind: "list", value: "NAME=PID", help: "report CPU, memory and bytes written of that process" },
  "fail-if": { kind: "list", value: "RULE", help: "such as 'a.fmb.p99 > 1.5*b'" },
  "tls-ca": { kind: "text", value: "FILE", help: "certificate authority of grpcs:// targets" },
  json: { kind: "text", value: "FILE", help: "write everything as JSON, also while measuring" },
  markdown: { kind: "text", value: "FILE", help: "write the table as Markdown" },
  html: { kind: "text", value: "FILE", help: "write one page with plots" },
  "worker-task": { kind: "text", value: "JSON", help: "internal: what one of several processes does" },
  "null-server": { kind: "text", value: "JSON", help: "internal: the server that the ceiling is measured with" },
  help: { kind: "switch", help: "print this" },
};

export const ALL_SCENARIOS: readonly Scenario[] = [...SCENARIOS, ...BUILD_MIXES];

/** What is measured when nothing is named: half a minute a target. */
const SHORT = [
  "capabilities",
  "fmb",
  "batch-update",
  "batch-read",
  "ac-hit",
  "ac-update",
  "read-1k",
  "write-1k",
  "read-1m",
  "write-1m",
];

/** Several gigabytes of digests, and minutes to store them; more is a slip of the hand. */
const MAX_WORKING_SET = 10_000_000;

export interface BenchPlan {
  readonly targets: ReadonlyMap<string, BenchTarget>;
  readonly pids: ReadonlyMap<string, number>;
  readonly scenarios: readonly Scenario[];
  /** None: the shape of the scenario or of the options. */
  readonly shapes: readonly ClientShape[];
  readonly options: MeasurementOptions;
  readonly runs: number;
  readonly processes: number;
  readonly rules: readonly Threshold[];
  readonly files: { readonly json?: string; readonly markdown?: string; readonly html?: string };
}

export function parsePlan(args: Arguments): BenchPlan {
  if (args.positionals.length > 0)
    throw new UsageError(`unexpected "${args.positionals[0]}"; targets are given with --target NAME=grpc://HOST:PORT`);
  const targets = parseTargets(args);
  const pids = new Map(
    parsePairs(args, "server-pid").map(([name, text]) => {
      if (!/^\d+$/.test(text)) throw new UsageError(`--server-pid: "${text}" is not the number of a process`);
      return [name, Number(text)];
    }),
  );
  for (const name of pids.keys())
    if (!targets.has(name)) throw new UsageError(`--server-pid: there is no target "${name}"`);
  const files = Object.fromEntries(
    ["json", "markdown", "html"].map((name) => [name, args.text(name)]).filter(([, path]) => path !== undefined),
  ) as BenchPlan["files"];
  return {
    targets,
    pids,
    scenarios: selectScenarios(args.words("scenario")),
    shapes: args.words("shape").map(parseShape),
    options: measurementOptions(args),
    runs: args.number("runs", 5, { min: 1, max: 1000 }),
    processes: args.number("processes", 1, { min: 1, max: 64 }),
    rules: args.list("fail-if").map(parseThreshold),
    files,
  };
}

function measurementOptions(args: Arguments): MeasurementOptions {
  const client = args.text("client") ?? "raw";
  if (client !== "raw" && client !== "grpc-js")
    throw new UsageError(`--client: "${client}" is neither raw nor grpc-js`);
  return {
    client,
    connections: args.number("connections", 4, { min: 1, max: 1000 }),
    depth: args.number("depth", 16, { min: 1, max: 1000 }),
    ratePerSecond: args.text("rate") === undefined ? undefined : args.number("rate", 0, { min: 0.1, max: 1e6 }),
    warmUpMs: args.durationMs("warm-up", 500),
    durationMs: args.durationMs("duration", 2000),
    seed: Math.floor(args.number("seed", newSeed(), { min: 1, max: 2 ** 31 })),
    instanceName: args.text("instance") ?? "",
    compressibleShare: args.number("compressible", 0.5, { min: 0, max: 1 }),
    platform: new Map(parsePairs(args, "platform")),
    findMissing: findMissingOptions(args),
  };
}

function findMissingOptions(args: Arguments): FindMissingOptions {
  const given = (flag: string, range: { min: number; max: number }): number | undefined =>
    args.text(flag) === undefined ? undefined : args.number(flag, 0, range);
  const share = { min: 0, max: 1 };
  const entries = {
    digestsPerCall: given("digests-per-call", { min: 1, max: 100_000 }),
    hitShare: given("hit-share", share),
    workingSet: given("working-set", { min: 1, max: MAX_WORKING_SET }),
    overlap: given("overlap", share),
  };
  const whole = (value: number): number => Math.floor(value);
  return {
    ...(entries.digestsPerCall === undefined ? {} : { digestsPerCall: whole(entries.digestsPerCall) }),
    ...(entries.hitShare === undefined ? {} : { hitShare: entries.hitShare }),
    ...(entries.workingSet === undefined ? {} : { workingSet: whole(entries.workingSet) }),
    ...(entries.overlap === undefined ? {} : { overlap: entries.overlap }),
  };
}

function parseTargets(args: Arguments): Map<string, BenchTarget> {
  const pairs = parsePairs(args, "target");
  if (pairs.length === 0) throw new UsageError("no --target NAME=grpc://HOST:PORT is given");
  const http = new Map(parsePairs(args, "http"));
  const caFile = args.text("tls-ca");
  const targets = new Map(
    pairs.map(([name, grpc]) => [name, parseBenchTarget({ grpc, http: http.get(name), caFile })]),
  );
  if (targets.size < pairs.length) throw new UsageError("two targets have the same name");
  for (const name of http.keys()) if (!targets.has(name)) throw new UsageError(`--http: there is no target "${name}"`);
  return targets;
}

function parsePairs(args: Arguments, flag: string): [string, string][] {
  return args.list(flag).map((text) => {
    const cut = text.indexOf("=");
    if (cut < 1 || cut === text.length - 1) throw new UsageError(`--${flag}: "${text}" is not NAME=VALUE`);
    return [text.slice(0, cut), text.slice(cut + 1)];
  });
}

function parseShape(text: string): ClientShape {
  const [, connections, depth] = /^(\d{1,4})x(\d{1,4})$/.exec(text) ?? [];
  if (connections === undefined || depth === undefined || Number(connections) * Number(depth) === 0)
    throw new UsageError(`--shape: "${text}" is not CONNECTIONSxDEPTH, such as 4x16`);
  return { connections: Number(connections), depth: Number(depth) };
}

function selectScenarios(names: readonly string[]): readonly Scenario[] {
  if (names.includes("all")) return ALL_SCENARIOS;
  return (names.length === 0 ? SHORT : names).map((name) => {
    const scenario = ALL_SCENARIOS.find((candidate) => candidate.name === name);
    if (scenario === undefined) throw new UsageError(`--scenario: there is no "${name}" (--list prints them)`);
    return scenario;
  });
}
