// Compares two results of `npm run bench` (or of `ledge bench --json`): the second relative to the first.
//
// `node native-free-bench/main.ts compare BEFORE.json AFTER.json`. A difference counts only when the slowest and fastest
// runs of the two do not overlap.

import { readFileSync } from "node:fs";
import { UsageError, withUsageErrors } from "./arguments.ts";
import { Histogram } from "./load/histogram.ts";
import { formatRate, summarize, type BenchReport, type Summary } from "./load/report.ts";

interface MicroReport {
  readonly format: "ledge-micro/1";
  readonly results: readonly { readonly name: string; readonly nanoseconds: number }[];
}

export async function runCompare(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("compare", async () => {
    const [before, after] = argv;
    if (before === undefined || after === undefined || argv.length > 2)
      throw new UsageError("expected two result files");
    const [first, second] = [readResult(before), readResult(after)];
    if (first.format === "ledge-micro/1" && second.format === "ledge-micro/1") compareMicro(first, second);
    else if (first.format === "ledge-bench/1" && second.format === "ledge-bench/1") compareBench(first, second);
    else throw new UsageError(`"${before}" is ${first.format}, "${after}" is ${second.format}: compare equals`);
    return await Promise.resolve(0);
  });
}

/** A report as it was written: histograms are their buckets. */
export function readResult(path: string): BenchReport | MicroReport {
  let report: BenchReport | MicroReport;
  try {
    report = JSON.parse(readFileSync(path, "utf8")) as BenchReport | MicroReport;
  } catch (error) {
    throw new UsageError(`cannot read "${path}": ${error instanceof Error ? error.message : String(error)}`);
  }
  if (report.format === "ledge-micro/1") return report;
  if (report.format !== "ledge-bench/1") throw new UsageError(`"${path}" is not a result of ledge bench`);
  const revive = (latency: unknown): Histogram => Histogram.fromJSON(latency as ReturnType<Histogram["toJSON"]>);
  return {
    ...report,
    scenarios: report.scenarios.map((scenario) => ({
      ...scenario,
      targets: scenario.targets.map((target) => ({
        ...target,
        runs: target.runs.map((run) => ({ ...run, latency: revive(run.latency) })),
      })),
    })),
  };
}

function compareMicro(before: MicroReport, after: MicroReport): void {
  for (const { name, nanoseconds } of after.results) {
    const old = before.results.find((result) => result.name === name)?.nanoseconds;
    const ratio = old === undefined ? "new" : `${(nanoseconds / old).toFixed(2)} times`;
    process.stdout.write(
      `${name.padEnd(48)} ${(old ?? 0).toFixed(0).padStart(10)} -> ${nanoseconds.toFixed(0).padStart(10)} ns  ${ratio}\n`,
    );
  }
}

function compareBench(before: BenchReport, after: BenchReport): void {
  for (const scenario of after.scenarios) {
    const old = before.scenarios.find(({ scenario: name }) => name === scenario.scenario);
    if (old === undefined) continue;
    const oldRows = summarize(old);
    for (const row of summarize(scenario)) {
      const oldRow = oldRows.find(({ target }) => target === row.target);
      if (oldRow !== undefined)
        process.stdout.write(`${describe(`${scenario.scenario} ${row.target}`, oldRow, row, scenario.unit)}\n`);
    }
  }
}

function describe(name: string, before: Summary, after: Summary, unit: string): string {
  const overlaps = after.rateLow <= before.rateHigh && before.rateLow <= after.rateHigh;
  const verdict = overlaps ? "no difference beyond the spread" : after.rate > before.rate ? "faster" : "slower";
  const rates = `${formatRate(before.rate, unit).padStart(18)} -> ${formatRate(after.rate, unit).padStart(18)}`;
  return `${name.padEnd(30)} ${rates}  ${(after.rate / before.rate).toFixed(2)} times, p99 ${before.p99.toFixed(2)} -> ${after.p99.toFixed(2)} ms: ${verdict}`;
}
