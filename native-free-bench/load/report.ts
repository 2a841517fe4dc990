// Runs of a comparison summed up: medians, spread, ratios to the first target with intervals; as JSON and Markdown.

import { median, ratioInterval, type Interval } from "./statistics.ts";
import { Histogram } from "./histogram.ts";
import type { Measurement } from "./measurement.ts";
import type { ClientShape } from "./scenario.ts";

export interface TargetRuns {
  readonly target: string;
  readonly runs: readonly Measurement[];
  /** Why there are no (further) runs. */
  readonly problem: string | undefined;
}

export interface ScenarioReport {
  readonly scenario: string;
  readonly question: string;
  readonly unit: string;
  /** With --shape: the scenario's name is then NAME@CxD. */
  readonly shape?: ClientShape;
  readonly targets: readonly TargetRuns[];
}

export interface BenchReport {
  readonly format: "ledge-bench/1";
  readonly startedAt: string;
  readonly command: string;
  readonly machine: string;
  readonly seed: number;
  readonly ceilingPerSecond: number;
  readonly scenarios: readonly ScenarioReport[];
}

export interface Summary {
  readonly target: string;
  /** Units per second: the median of the runs, the slowest and the fastest. */
  readonly rate: number;
  readonly rateLow: number;
  readonly rateHigh: number;
  readonly callsPerSecond: number;
  /** Milliseconds, over all runs. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly errors: number;
  readonly shed: number;
  readonly firstError: string | undefined;
  readonly generatorBusy: number | undefined;
  readonly cpuPerCall: number | undefined;
  readonly residentBytes: number | undefined;
  readonly writtenPerCall: number | undefined;
  /** Rate relative to the first target's. */
  readonly ratio: Interval | undefined;
  readonly problem: string | undefined;
}

export function ratesOf({ runs }: TargetRuns): number[] {
  return runs.map((run) => (run.calls * run.unitsPerCall * 1000) / run.durationMs);
}

export function latencyOf({ runs }: TargetRuns): Histogram {
  const all = new Histogram();
  for (const { latency } of runs) all.add(latency);
  return all;
}

export function summarize(report: ScenarioReport): Summary[] {
  const [first] = report.targets;
  return report.targets.map((target) => {
    const rates = ratesOf(target);
    const latency = latencyOf(target);
    const defined = (values: readonly (number | undefined)[]): number | undefined => {
      const present = values.filter((value) => value !== undefined);
      return present.length === 0 ? undefined : median(present);
    };
    return {
      target: target.target,
      rate: median(rates),
      rateLow: rates.length === 0 ? 0 : Math.min(...rates),
      rateHigh: rates.length === 0 ? 0 : Math.max(...rates),
      callsPerSecond: median(target.runs.map((run) => (run.calls * 1000) / run.durationMs)),
      p50: latency.quantile(0.5) / 1000,
      p90: latency.quantile(0.9) / 1000,
      p99: latency.quantile(0.99) / 1000,
      max: latency.max / 1000,
      errors: target.runs.reduce(
        (sum, { errors }) => sum + Object.values(errors).reduce((total, count) => total + count, 0),
        0,
      ),
      shed: target.runs.reduce((sum, { shed }) => sum + shed, 0),
      firstError: target.runs.find(({ firstError }) => firstError !== undefined)?.firstError,
      generatorBusy: defined(target.runs.map(({ generatorBusy }) => generatorBusy)),
      cpuPerCall: defined(target.runs.map((run) => run.cpuMicrosecondsPerCall)),
      residentBytes: defined(target.runs.map((run) => run.residentBytes)),
      writtenPerCall: defined(target.runs.map((run) => run.writtenBytesPerCall)),
      ratio:
        first === undefined || target === first || rates.length === 0
          ? undefined
          : ratioInterval(rates, ratesOf(first)),
      problem: target.problem,
    };
  });
}

export function formatMarkdown(report: BenchReport): string {
  const lines = [
    `Measured ${report.startedAt} on ${report.machine}, seed ${report.seed}; ceiling of the generator ${formatRate(report.ceilingPerSecond, "calls")}.`,
    "",
  ];
  lines.push(
    "| scenario | target | rate (median) | slowest to fastest run | p50 ms | p90 ms | p99 ms | max ms | ratio (95 %) | errors | CPU µs/call | memory MiB | written B/call |",
  );
  lines.push("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
  for (const scenario of report.scenarios) {
    for (const row of summarize(scenario))
      lines.push(`| ${cells(scenario, row, report.ceilingPerSecond).join(" | ")} |`);
  }
  return `${lines.join("\n")}\n`;
}

function cells(scenario: ScenarioReport, row: Summary, ceiling: number): string[] {
  if (row.problem !== undefined && row.rate === 0)
    return [
      scenario.scenario,
      row.target,
      `not measured: ${row.problem.replaceAll("|", "/")}`,
      ...new Array<string>(10).fill(""),
    ];
  const number = (value: number | undefined, digits: number): string =>
    value === undefined ? "" : value.toFixed(digits);
  const mark = isGeneratorLimited(row, ceiling) ? " (generator limited)" : "";
  return [
    scenario.scenario,
    row.target,
    formatRate(row.rate, scenario.unit) + mark,
    `${formatRate(row.rateLow, scenario.unit)} to ${formatRate(row.rateHigh, scenario.unit)}`,
    ...[row.p50, row.p90, row.p99, row.max].map((value) => number(value, 2)),
    formatRatio(row.ratio),
    row.errors + row.shed === 0 ? "0" : `${row.errors} errors, ${row.shed} shed`,
    number(row.cpuPerCall, 1),
    number(row.residentBytes === undefined ? undefined : row.residentBytes / 2 ** 20, 0),
    number(row.writtenPerCall, 0),
  ];
}

/** A result this close to what the generator can do, or for which it was never idle, says little about the server. */
export function isGeneratorLimited(row: Summary, ceilingPerSecond: number): boolean {
  return row.callsPerSecond > 0.7 * ceilingPerSecond || (row.generatorBusy ?? 0) > 0.9;
}

export function formatRate(rate: number, unit: string): string {
  if (unit === "bytes") return `${(rate / 1e6).toFixed(rate < 1e7 ? 2 : 0)} MB/s`;
  const text =
    rate >= 1e6
      ? `${(rate / 1e6).toFixed(2)} M`
      : rate >= 1e4
        ? `${(rate / 1e3).toFixed(1)} k`
        : rate.toFixed(rate < 100 ? 1 : 0);
  return `${text} ${unit}/s`;
}

function formatRatio(ratio: Interval | undefined): string {
  if (ratio === undefined) return "1";
  if (!Number.isFinite(ratio.estimate)) return "";
  const interval = Number.isFinite(ratio.low) ? ` (${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)})` : "";
  return `${ratio.estimate.toFixed(2)}${interval}`;
}
