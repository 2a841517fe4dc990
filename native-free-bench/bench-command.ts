// `ledge bench --target NAME=grpc://HOST:PORT …`: measures, compares, reports.
//
// Exit codes: 0 measured; 1 a --fail-if rule is broken; 2 wrong arguments; 3 a scenario could not be measured; 130
// interrupted. In each case what was measured is reported, and after every scenario the JSON file has all so far. Runs
// alternate between targets, so that what else the machine does meets all.

import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { Arguments, describeFlags, withUsageErrors } from "./arguments.ts";
import { ALL_SCENARIOS, BENCH_FLAGS, parsePlan, type BenchPlan } from "./bench-options.ts";
import { measureCeiling } from "./load/ceiling.ts";
import { statusName } from "./load/load-setup.ts";
import type { Measurement } from "./load/measurement.ts";
import type { NullServerOptions } from "./load/null-server.ts";
import { runNullServer } from "./load/null-server-process.ts";
import { formatPage } from "./load/page.ts";
import {
  formatMarkdown,
  formatRate,
  isGeneratorLimited,
  summarize,
  type BenchReport,
  type ScenarioReport,
  type TargetRuns,
} from "./load/report.ts";
import type { ClientShape, Scenario } from "./load/scenario.ts";
import { judgeThreshold } from "./load/thresholds.ts";
import { measureInProcesses, runWorkerProcess, type MeasuringSession, type WorkerTask } from "./load/worker-process.ts";

const INTERRUPTED = 130;

export async function runBench(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("bench", async () => await bench(argv));
}

async function bench(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, BENCH_FLAGS);
  const task = args.text("worker-task");
  if (task !== undefined) return await runWorkerProcess(JSON.parse(task) as WorkerTask, ALL_SCENARIOS);
  const nullServer = args.text("null-server");
  if (nullServer !== undefined) return await runNullServer(JSON.parse(nullServer) as NullServerOptions);
  if (args.has("help"))
    return print(
      `Usage: ledge bench [FLAGS] --target NAME=grpc://HOST:PORT [--target …]\n\n${describeFlags(BENCH_FLAGS)}\n`,
    );
  if (args.has("list"))
    return print(ALL_SCENARIOS.map(({ name, question }) => `${name.padEnd(20)} ${question}\n`).join(""));
  const plan = parsePlan(args);
  const ceilingPerSecond = (await measureCeiling(plan.options)) * Math.min(plan.processes, cpus().length);
  process.stdout.write(
    `Ceiling of the generator: ${formatRate(ceilingPerSecond, "calls")}, seed ${plan.options.seed}\n`,
  );
  const report = {
    format: "ledge-bench/1",
    startedAt: new Date().toISOString(),
    command: `ledge bench ${argv.join(" ")}`,
    machine: describeMachine(),
    seed: plan.options.seed,
    ceilingPerSecond,
    scenarios: [] as ScenarioReport[],
  } satisfies BenchReport;
  const isInterrupted = await measureAll(plan, report);
  writeReports(plan, report);
  const broken = plan.rules.map((rule) => judgeThreshold(rule, report)).filter((reason) => reason !== undefined);
  for (const reason of broken) process.stderr.write(`ledge bench: --fail-if ${reason}\n`);
  if (isInterrupted) {
    process.stderr.write("ledge bench: interrupted; the reports have what was measured until then\n");
    return INTERRUPTED;
  }
  if (broken.length > 0) return 1;
  return report.scenarios.some(({ targets }) => targets.some(({ problem }) => problem !== undefined)) ? 3 : 0;
}

/** Adds to `report` scenario by scenario; returns whether it was interrupted. A second interrupt ends the process. */
async function measureAll(plan: BenchPlan, report: BenchReport & { scenarios: ScenarioReport[] }): Promise<boolean> {
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort(new Error("interrupted"));
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  try {
    for (const scenario of plan.scenarios) {
      if (interrupt.signal.aborted) break;
      for (const measured of await measureScenario(scenario, plan, interrupt.signal)) {
        report.scenarios.push(measured);
        printScenario(measured, report);
      }
      if (plan.files.json !== undefined) writeJson(plan.files.json, report);
    }
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
  return interrupt.signal.aborted;
}

/** One report, or one for each shape. */
async function measureScenario(scenario: Scenario, plan: BenchPlan, signal: AbortSignal): Promise<ScenarioReport[]> {
  const problems = new Map<string, string>();
  const sessions = new Map<string, MeasuringSession>();
  for (const [name, target] of plan.targets) {
    try {
      sessions.set(name, await measureInProcesses(scenario, target, { ...plan, signal }));
    } catch (error) {
      problems.set(name, messageOf(error));
    }
  }
  const { name, question, unit } = scenario;
  const reports: ScenarioReport[] = [];
  const shapes: readonly (ClientShape | undefined)[] = plan.shapes.length === 0 ? [undefined] : plan.shapes;
  for (const shape of shapes) {
    const targets = await measureTargets(sessions, plan, { shape, problems, signal });
    const suffix = shape === undefined ? {} : { shape };
    const shown = shape === undefined ? name : `${name}@${shape.connections}x${shape.depth}`;
    reports.push({ scenario: shown, question, unit, targets, ...suffix });
  }
  for (const session of sessions.values()) session.close();
  return reports;
}

async function measureTargets(
  sessions: ReadonlyMap<string, MeasuringSession>,
  plan: BenchPlan,
  { shape, problems, signal }: { shape: ClientShape | undefined; problems: Map<string, string>; signal: AbortSignal },
): Promise<TargetRuns[]> {
  const runs = new Map<string, Measurement[]>([...plan.targets.keys()].map((name) => [name, []]));
  for (let run = 0; run < plan.runs; run++) {
    for (const [name, session] of sessions) {
      if (signal.aborted && !problems.has(name)) problems.set(name, messageOf(signal.reason));
      if (problems.has(name)) continue;
      try {
        const measurement = await session.run({ pid: plan.pids.get(name), shape, signal });
        // A run that was cut short measured something else.
        if (signal.aborted) continue;
        runs.get(name)!.push(measurement);
        const problem = problemOf(measurement);
        if (problem !== undefined) problems.set(name, problem);
      } catch (error) {
        problems.set(name, messageOf(error));
      }
    }
  }
  for (const name of sessions.keys())
    if (signal.aborted && !problems.has(name)) problems.set(name, messageOf(signal.reason));
  return [...runs].map(([target, measured]) => ({ target, runs: measured, problem: problems.get(target) }));
}

/** A server that died or hangs; single errors are counted, not fatal. */
function problemOf({ calls, failure, errors, firstError }: Measurement): string | undefined {
  if (failure !== undefined) return failure;
  if (calls > 0) return undefined;
  const codes = Object.entries(errors).map(([code, count]) => `${count} × ${statusName(code)}`);
  if (codes.length === 0) return "no call ended";
  return `no call succeeded (${codes.join(", ")}${firstError === undefined ? "" : `: ${firstError}`})`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function printScenario(report: ScenarioReport, { ceilingPerSecond }: BenchReport): void {
  process.stdout.write(`\n${report.scenario}: ${report.question}\n`);
  for (const row of summarize(report)) {
    const say = (text: string): boolean => process.stdout.write(`  ${row.target.padEnd(16)} ${text}\n`);
    const spread = `${formatRate(row.rateLow, report.unit)} to ${formatRate(row.rateHigh, report.unit)}`;
    const line = `p50 ${row.p50.toFixed(2)} ms, p99 ${row.p99.toFixed(2)} ms, max ${row.max.toFixed(1)} ms`;
    const ratio =
      row.ratio === undefined
        ? ""
        : `, ratio ${row.ratio.estimate.toFixed(2)} (${row.ratio.low.toFixed(2)} to ${row.ratio.high.toFixed(2)})`;
    if (row.rate > 0) say(`${formatRate(row.rate, report.unit).padEnd(22)} (${spread}), ${line}${ratio}`);
    if (row.errors + row.shed > 0)
      say(
        `${row.errors} calls failed, ${row.shed} could not be sent in time${row.firstError === undefined ? "" : `; the first said: ${row.firstError}`}`,
      );
    if (row.problem !== undefined) say(`not (fully) measured: ${row.problem}`);
    if (isGeneratorLimited(row, ceilingPerSecond))
      say("warning: near what the generator can do itself; try --processes");
  }
}

function writeReports({ files }: BenchPlan, report: BenchReport): void {
  if (files.json !== undefined) writeJson(files.json, report);
  if (files.markdown !== undefined) writeFileSync(files.markdown, formatMarkdown(report));
  if (files.html !== undefined) writeFileSync(files.html, formatPage(report));
}

function writeJson(path: string, report: BenchReport): void {
  writeFileSync(path, `${JSON.stringify(report, undefined, 1)}\n`);
}

function describeMachine(): string {
  const all = cpus();
  return `${all.length} × ${all[0]?.model.trim() ?? "unknown processor"}, ${process.platform} ${process.arch}`;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
