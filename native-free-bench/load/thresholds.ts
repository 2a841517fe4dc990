// `--fail-if`: rules on results, for CI.
//
// A rule is TARGET.SCENARIO.METRIC OP VALUE, and VALUE a number, or a factor times the same metric of another target:
// `a.fmb.p99 > 1.5*b`, `a.capabilities.rate < 50000`, `a.read-1k.errors > 0`.

import { UsageError } from "../arguments.ts";
import { summarize, type BenchReport, type Summary } from "./report.ts";

const METRICS = {
  rate: "rate",
  calls: "callsPerSecond",
  p50: "p50",
  p90: "p90",
  p99: "p99",
  max: "max",
  errors: "errors",
  shed: "shed",
} as const satisfies Record<string, keyof Summary>;

export interface Threshold {
  readonly text: string;
  readonly target: string;
  readonly scenario: string;
  readonly metric: keyof typeof METRICS;
  readonly operator: string;
  readonly factor: number;
  readonly otherTarget: string | undefined;
}

export function parseThreshold(text: string): Threshold {
  const match =
    /^\s*([\w-]+)\.([\w@-]+)\.([\w]+)\s*(<=|>=|<|>)\s*(?:([\d.]+)(?:\s*\*\s*([\w-]+))?|([A-Za-z][\w-]*))\s*$/.exec(
      text,
    );
  const metric = match?.[3];
  if (match === null || metric === undefined || !(metric in METRICS)) {
    throw new UsageError(
      `--fail-if: "${text}" is not TARGET.SCENARIO.METRIC OP NUMBER[*TARGET], with a metric of ${Object.keys(METRICS).join(", ")}`,
    );
  }
  const factor = match[5] === undefined ? 1 : Number(match[5]);
  return {
    text,
    target: match[1]!,
    scenario: match[2]!,
    metric: metric as keyof typeof METRICS,
    operator: match[4]!,
    factor,
    otherTarget: match[6] ?? match[7],
  };
}

/** Why the rule is broken; undefined when it holds. A rule about something that was not measured is broken. */
export function judgeThreshold(rule: Threshold, report: BenchReport): string | undefined {
  const scenario = report.scenarios.find(({ scenario: name }) => name === rule.scenario);
  const rows = scenario === undefined ? [] : summarize(scenario);
  const valueOf = (target: string): number | undefined => {
    const row = rows.find((candidate) => candidate.target === target);
    return row === undefined || row.problem !== undefined ? undefined : row[METRICS[rule.metric]];
  };
  const actual = valueOf(rule.target);
  const other = rule.otherTarget === undefined ? 1 : valueOf(rule.otherTarget);
  if (actual === undefined || other === undefined) return `${rule.text}: not measured`;
  const limit = rule.factor * other;
  const isBroken = { "<": actual < limit, "<=": actual <= limit, ">": actual > limit, ">=": actual >= limit }[
    rule.operator
  ];
  return isBroken === true
    ? `${rule.text}: ${rule.metric} is ${actual.toPrecision(4)}, the limit ${limit.toPrecision(4)}`
    : undefined;
}
