// `ledge bench --target NAME=grpc://HOST:PORT …`: measures, compares, reports.
//
// Exit codes: 0 measured; 1 a --fail-if rule is broken; 2 wrong arguments; 3 a scenario could not be measured (what was
// measured is reported all the same). Runs alternate between targets, so that what else the machine does meets all.

import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "./arguments.ts";
import { parseTarget, type Target } from "./client/target.ts";
import { BUILD_MIXES } from "./load/build-mixes.ts";
import { measureCeiling } from "./load/ceiling.ts";
import type { Measurement, MeasurementOptions } from "./load/measurement.ts";
import type { NullServerOptions } from "./load/null-server.ts";
import { runNullServer } from "./load/null-server-process.ts";
import { measureInProcesses, runWorkerProcess, type WorkerTask } from "./load/worker-process.ts";
import { formatPage } from "./load/page.ts";
import {
  formatMarkdown,
  formatRate,
  isNearCeiling,
  summarize,
  type BenchReport,
  type ScenarioReport,
  type TargetRuns,
} from "./load/report.ts";
import { SCENARIOS, type Scenario } from "./load/scenarios.ts";
import { judgeThreshold, parseThreshold } from "./load/thresholds.ts";
import { newSeed } from "./random-data.ts";

const FLAGS: FlagTable = {
  target: { kind: "list", value: "NAME=TARGET", help: "grpc://HOST:PORT, grpcs://HOST:PORT or unix:PATH" },
  scenario: { kind: "list", value: "NAME,…", help: "what to measure (default: a short selection; all: everything)" },
  list: { kind: "switch", help: "print the scenarios and contact nobody" },
  runs: { kind: "text", value: "N", help: "runs per target and scenario (default: 5)" },
  duration: { kind: "text", value: "DURATION", help: "of a run (default: 2s)" },
  "warm-up": { kind: "text", value: "DURATION", help: "before each run, not counted (default: 500ms)" },
  connections: { kind: "text", value: "N", help: "default: 4; a scenario may have its own" },
  depth: { kind: "text", value: "N", help: "calls in flight per connection (default: 16)" },
  rate: { kind: "text", value: "N", help: "open loop: arrivals a second, latency from the intended start" },
  processes: { kind: "text", value: "N", help: "processes that generate load (default: 1)" },
  client: { kind: "text", value: "raw|grpc-js", help: "default: raw" },
  instance: { kind: "text", value: "NAME", help: "instance name (default: empty)" },
  platform: { kind: "list", value: "NAME=VALUE", help: "platform property of every action" },
  compressible: { kind: "text", value: "SHARE", help: "share of a blob that a compressor removes (default: 0.5)" },
  seed: { kind: "text", value: "NUMBER", help: "default: random, printed" },
  "server-pid": { kind: "list", value: "NAME=PID", help: "report CPU, memory and bytes written of that process" },
  "fail-if": { kind: "list", value: "RULE", help: "such as 'a.fmb.p99 > 1.5*b'" },
  "tls-ca": { kind: "text", value: "FILE", help: "certificate authority of grpcs:// targets" },
  json: { kind: "text", value: "FILE", help: "write everything as JSON" },
  markdown: { kind: "text", value: "FILE", help: "write the table as Markdown" },
  html: { kind: "text", value: "FILE", help: "write one page with plots" },
  "worker-task": { kind: "text", value: "JSON", help: "internal: what one of several processes does" },
  "null-server": { kind: "text", value: "JSON", help: "internal: the server that the ceiling is measured with" },
  help: { kind: "switch", help: "print this" },
};

const ALL: readonly Scenario[] = [...SCENARIOS, ...BUILD_MIXES];
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

export async function runBench(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("bench", async () => await bench(argv));
}

async function bench(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  const task = args.text("worker-task");
  if (task !== undefined) return await runWorkerProcess(JSON.parse(task) as WorkerTask, ALL);
  const nullServer = args.text("null-server");
  if (nullServer !== undefined) return await runNullServer(JSON.parse(nullServer) as NullServerOptions);
  if (args.has("help"))
    return print(`Usage: ledge bench [FLAGS] --target NAME=grpc://HOST:PORT [--target …]\n\n${describeFlags(FLAGS)}\n`);
  if (args.has("list")) return print(ALL.map(({ name, question }) => `${name.padEnd(20)} ${question}\n`).join(""));
  if (args.positionals.length > 0)
    throw new UsageError(`unexpected "${args.positionals[0]}"; targets are given with --target NAME=grpc://HOST:PORT`);
  const targets = parseTargets(args);
  const scenarios = selectScenarios(args.words("scenario"));
  const rules = args.list("fail-if").map(parseThreshold);
  const pids = new Map(parsePairs(args.list("server-pid"), "server-pid").map(([name, pid]) => [name, Number(pid)]));
  const options = measurementOptions(args);
  const count = {
    runs: args.number("runs", 5, { min: 1, max: 1000 }),
    processes: args.number("processes", 1, { min: 1, max: 64 }),
  };

  const ceilingPerSecond = await measureCeiling(options);
  process.stdout.write(`Ceiling of the generator: ${formatRate(ceilingPerSecond, "calls")}, seed ${options.seed}\n`);
  const reports: ScenarioReport[] = [];
  for (const scenario of scenarios) {
    const report = await measureScenario(scenario, { targets, pids, options, ...count });
    reports.push(report);
    printScenario(report, ceilingPerSecond);
  }
  const report: BenchReport = {
    format: "ledge-bench/1",
    startedAt: new Date().toISOString(),
    command: `ledge bench ${argv.join(" ")}`,
    machine: describeMachine(),
    seed: options.seed,
    ceilingPerSecond,
    scenarios: reports,
  };
  writeReports(args, report);
  const broken = rules.map((rule) => judgeThreshold(rule, report)).filter((reason) => reason !== undefined);
  for (const reason of broken) process.stderr.write(`ledge bench: --fail-if ${reason}\n`);
  if (broken.length > 0) return 1;
  return reports.some(({ targets: rows }) => rows.some(({ problem }) => problem !== undefined)) ? 3 : 0;
}

interface ScenarioPlan {
  readonly targets: ReadonlyMap<string, Target>;
  readonly pids: ReadonlyMap<string, number>;
  readonly options: MeasurementOptions;
  readonly runs: number;
  readonly processes: number;
}

async function measureScenario(scenario: Scenario, plan: ScenarioPlan): Promise<ScenarioReport> {
  const rows = new Map<string, { runs: Measurement[]; problem: string | undefined }>();
  const sessions = new Map<string, Awaited<ReturnType<typeof measureInProcesses>>>();
  for (const [name, target] of plan.targets) {
    const row = { runs: [], problem: undefined as string | undefined };
    rows.set(name, row);
    try {
      sessions.set(name, await measureInProcesses(scenario, target, plan));
    } catch (error) {
      row.problem = error instanceof Error ? error.message : String(error);
    }
  }
  for (let run = 0; run < plan.runs; run++) {
    for (const [name, session] of sessions) {
      const row = rows.get(name)!;
      if (row.problem !== undefined) continue;
      try {
        const measurement = await session.run(plan.pids.get(name));
        row.runs.push(measurement);
        row.problem = problemOf(measurement);
      } catch (error) {
        row.problem = error instanceof Error ? error.message : String(error);
      }
    }
  }
  const targets: TargetRuns[] = [...rows].map(([target, row]) => ({ target, ...row }));
  return { scenario: scenario.name, question: scenario.question, unit: scenario.unit, targets };
}

/** A server that died or hangs; single errors are counted, not fatal. */
function problemOf({ calls, failure, errors }: Measurement): string | undefined {
  if (failure !== undefined) return failure;
  if (calls > 0) return undefined;
  const codes = Object.entries(errors).map(([code, count]) => `${count} × ${code}`);
  return codes.length === 0 ? "no call ended" : `no call succeeded (status: ${codes.join(", ")})`;
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
    platform: new Map(parsePairs(args.list("platform"), "platform")),
  };
}

function parseTargets(args: Arguments): Map<string, Target> {
  const pairs = parsePairs(args.list("target"), "target");
  if (pairs.length === 0) throw new UsageError("no --target NAME=grpc://HOST:PORT is given");
  const targets = new Map(pairs.map(([name, text]) => [name, parseTarget(text, args.text("tls-ca"))]));
  if (targets.size < pairs.length) throw new UsageError("two targets have the same name");
  return targets;
}

function parsePairs(texts: readonly string[], flag: string): [string, string][] {
  return texts.map((text) => {
    const cut = text.indexOf("=");
    if (cut < 1 || cut === text.length - 1) throw new UsageError(`--${flag}: "${text}" is not NAME=VALUE`);
    return [text.slice(0, cut), text.slice(cut + 1)];
  });
}

function selectScenarios(names: readonly string[]): readonly Scenario[] {
  if (names.includes("all")) return ALL;
  return (names.length === 0 ? SHORT : names).map((name) => {
    const scenario = ALL.find((candidate) => candidate.name === name);
    if (scenario === undefined) throw new UsageError(`--scenario: there is no "${name}" (--list prints them)`);
    return scenario;
  });
}

function printScenario(report: ScenarioReport, ceilingPerSecond: number): void {
  process.stdout.write(`\n${report.scenario}: ${report.question}\n`);
  for (const row of summarize(report)) {
    const spread = `${formatRate(row.rateLow, report.unit)} to ${formatRate(row.rateHigh, report.unit)}`;
    const line = `p50 ${row.p50.toFixed(2)} ms, p99 ${row.p99.toFixed(2)} ms, max ${row.max.toFixed(1)} ms`;
    const ratio =
      row.ratio === undefined
        ? ""
        : `, ratio ${row.ratio.estimate.toFixed(2)} (${row.ratio.low.toFixed(2)} to ${row.ratio.high.toFixed(2)})`;
    if (row.rate > 0)
      process.stdout.write(
        `  ${row.target.padEnd(16)} ${formatRate(row.rate, report.unit).padEnd(22)} (${spread}), ${line}${ratio}\n`,
      );
    if (row.errors + row.shed > 0)
      process.stdout.write(
        `  ${row.target.padEnd(16)} ${row.errors} calls failed, ${row.shed} could not be sent in time\n`,
      );
    if (row.problem !== undefined)
      process.stdout.write(`  ${row.target.padEnd(16)} not (fully) measured: ${row.problem}\n`);
    if (isNearCeiling(row, ceilingPerSecond))
      process.stdout.write(
        `  ${row.target.padEnd(16)} warning: within 70 % of the generator's ceiling; try --processes\n`,
      );
  }
}

function writeReports(args: Arguments, report: BenchReport): void {
  const [json, markdown, html] = [args.text("json"), args.text("markdown"), args.text("html")];
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, undefined, 1)}\n`);
  if (markdown !== undefined) writeFileSync(markdown, formatMarkdown(report));
  if (html !== undefined) writeFileSync(html, formatPage(report));
}

function describeMachine(): string {
  const all = cpus();
  return `${all.length} × ${all[0]?.model.trim() ?? "unknown processor"}, ${process.platform} ${process.arch}`;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
