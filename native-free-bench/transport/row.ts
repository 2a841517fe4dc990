// What a row of the table is: series of values taken in turns, and the ratios that are asked of them.
//
// Invariant: everything in a row is measured in one run, in alternating rounds; a ratio is taken round by round, since
// what disturbs a machine disturbs neighbours in time alike. Reported are the median and the range.

import { readProcessUsage } from "../load/process-usage.ts";
import { median } from "../load/statistics.ts";
import type { ServerFleet } from "./servers.ts";

export interface RowContext {
  readonly fleet: ServerFleet;
  readonly rounds: number;
  /** Where a gRPC server in Go answers GetCapabilities, on the servers' core. */
  readonly grpcGo: { readonly host: string; readonly port: number } | undefined;
}

export interface Row {
  readonly name: string;
  readonly question: string;
  readonly run: (context: RowContext) => Promise<RowResult>;
}

export interface Series {
  readonly label: string;
  readonly unit: string;
  readonly values: readonly number[];
  /** CPU seconds of the server per unit (`perWhat`), where they are known. */
  readonly cpu?: { readonly values: readonly number[]; readonly unit: string };
}

/** `value` must be at least (or at most) `limit`. */
export interface Requirement {
  readonly what: string;
  readonly values: readonly number[];
  readonly limit: number;
  readonly kind: "at least" | "at most";
  /** Behind the value; "×" for a ratio. */
  readonly unit?: string;
}

export interface RowResult {
  readonly series: readonly Series[];
  readonly requirements: readonly Requirement[];
  readonly notes?: readonly string[];
}

/** One thing to measure in every round. */
export interface Contestant {
  readonly label: string;
  /** Of the server, for its CPU time. */
  readonly pid?: number;
  readonly measure: () => Promise<Measured>;
}

export interface Measured {
  readonly perSecond: number;
  /** All units of this run, warm-up included: what the CPU time is divided by. */
  readonly units: number;
}

export interface RoundOptions {
  readonly rounds: number;
  readonly unit: string;
  /** How CPU time is given: per call in microseconds, or per gigabyte in seconds. */
  readonly cpuUnit: "µs/call" | "s/GB";
}

/** Measures all contestants in each round, in turns that begin with another one each time. */
export async function alternate(
  contestants: readonly Contestant[],
  { rounds, unit, cpuUnit }: RoundOptions,
): Promise<Map<string, Series>> {
  const found = new Map(contestants.map(({ label }) => [label, { values: [] as number[], cpu: [] as number[] }]));
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const { label, pid, measure } = contestants[(round + turn) % contestants.length]!;
      const before = pid === undefined ? undefined : readProcessUsage(pid);
      const { perSecond, units } = await measure();
      const after = pid === undefined ? undefined : readProcessUsage(pid);
      const { values, cpu } = found.get(label)!;
      values.push(perSecond);
      if (before === undefined || after === undefined) continue;
      cpu.push(((after.cpuSeconds - before.cpuSeconds) / units) * (cpuUnit === "µs/call" ? 1e6 : 1e9));
    }
  }
  const series = [...found].map(([label, { values, cpu }]): [string, Series] => [
    label,
    { label, unit, values, ...(cpu.length === 0 ? {} : { cpu: { values: cpu, unit: cpuUnit } }) },
  ]);
  return new Map(series);
}

/** `what` is at least `limit` times `base`; nothing when either was not measured. */
export function ratio(series: Map<string, Series>, what: string, base: string, limit: number): Requirement[] {
  const [above, below] = [series.get(what), series.get(base)];
  if (above === undefined || below === undefined) return [];
  const values = above.values.map((value, round) => value / below.values[round]!);
  return [{ what: `${what} / ${base}`, values, limit, kind: "at least", unit: "×" }];
}

export function printRow(row: Row, result: RowResult): void {
  const lines = [`${row.name}: ${row.question}`];
  for (const { label, unit, values, cpu } of result.series) {
    const usage = cpu === undefined ? "" : `   ${digits(median(cpu.values))} ${cpu.unit} of the server`;
    lines.push(`  ${label.padEnd(44)} ${summary(values)} ${unit}${usage}`);
  }
  for (const { what, values, limit, kind, unit = "" } of result.requirements) {
    const found = median(values);
    const met = kind === "at least" ? found >= limit : found <= limit;
    lines.push(`  ${what.padEnd(44)} ${summary(values)} ${unit}   ${kind} ${limit}: ${met ? "met" : "MISSED"}`);
  }
  for (const note of result.notes ?? []) lines.push(`  ${note}`);
  process.stdout.write(`${lines.join("\n")}\n\n`);
}

function summary(values: readonly number[]): string {
  const range = `(${digits(Math.min(...values))}–${digits(Math.max(...values))})`;
  return `${digits(median(values)).padStart(9)} ${range.padEnd(20)}`;
}

function digits(value: number): string {
  const fraction = value >= 1000 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: fraction, minimumFractionDigits: fraction });
}
