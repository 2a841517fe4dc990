// What came of a run, as a table for people, JSON, JUnit XML, TAP, and one line.
//
// Invariant: every form has every check of the run with the same verdict. An expected failure (named with its reason by
// the user) counts as neither passed nor failed.

import type { Level } from "./check.ts";
import type { CheckOutcome, SuiteRun } from "./runner.ts";

export interface Judgement {
  readonly run: SuiteRun;
  /** id → reason. */
  readonly expectedFailures: ReadonlyMap<string, string>;
  /** Levels whose failures make the run fail. */
  readonly strict: ReadonlySet<Level>;
}

export type Standing = "passed" | "failed" | "noted" | "expected" | "skipped" | "undecided";

/** How an outcome counts. */
export function standingOf(outcome: CheckOutcome, judgement: Judgement): Standing {
  if (outcome.verdict === "pass") return "passed";
  if (outcome.verdict === "skip") return outcome.note.startsWith("not run") ? "undecided" : "skipped";
  if (judgement.expectedFailures.has(outcome.check.id)) return "expected";
  if (outcome.verdict === "error") return "undecided";
  return judgement.strict.has(outcome.check.level) ? "failed" : "noted";
}

export function countStandings(judgement: Judgement): Record<Standing, number> {
  const counts: Record<Standing, number> = { passed: 0, failed: 0, noted: 0, expected: 0, skipped: 0, undecided: 0 };
  for (const outcome of judgement.run.outcomes) counts[standingOf(outcome, judgement)]++;
  return counts;
}

/** One line for a badge or a log. */
export function summaryLine(judgement: Judgement): string {
  const counts = countStandings(judgement);
  const byLevel = (["MUST", "SHOULD", "CLIENTS", "MAY"] as const).map((level) => {
    const applied = judgement.run.outcomes.filter(({ check, verdict }) => check.level === level && verdict !== "skip");
    return `${level} ${applied.filter(({ verdict }) => verdict === "pass").length}/${applied.length}`;
  });
  const tail = [
    `${counts.failed} failed`,
    `${counts.undecided} undecided`,
    `${counts.expected} expected`,
    `${counts.noted} noted`,
    `${counts.skipped} not offered`,
  ];
  return `conformance ${judgement.run.targetText}: ${byLevel.join(", ")}; ${tail.join(", ")}`;
}

const MARKS: Record<Standing, string> = {
  passed: "ok",
  failed: "FAIL",
  noted: "note",
  expected: "expected",
  skipped: "-",
  undecided: "????",
};

/** One line while it runs. */
export function progressLine(outcome: CheckOutcome, judgement: Judgement): string {
  const mark = MARKS[standingOf(outcome, judgement)].padEnd(8);
  const note = outcome.note === "" ? "" : `  ${outcome.note.replaceAll("\n", " ")}`;
  return `${mark} ${outcome.check.level.padEnd(7)} ${outcome.check.id.padEnd(40)}${note}`;
}

/** What failed, with what a server's author needs. */
export function formatTable(judgement: Judgement): string {
  const lines: string[] = [];
  for (const outcome of judgement.run.outcomes) {
    const standing = standingOf(outcome, judgement);
    if (standing === "passed" || standing === "skipped") continue;
    const reason = judgement.expectedFailures.get(outcome.check.id);
    lines.push(
      `${MARKS[standing]} ${outcome.check.id} (${outcome.check.level})`,
      `     rule      ${outcome.check.says}`,
      `     source    ${outcome.check.cites}`,
      `     observed  ${outcome.note}`,
      `     advice    ${outcome.check.advice}`,
      ...(reason === undefined ? [] : [`     expected  ${reason}`]),
      "",
    );
  }
  return lines.join("\n");
}

export function formatJson(judgement: Judgement): string {
  const { run } = judgement;
  const report = {
    format: "ledge-conformance/1",
    target: run.targetText,
    startedAt: run.startedAt,
    durationMs: Math.round(run.durationMs),
    seed: run.seed,
    sentBytes: run.sentBytes,
    features: run.features,
    lostTarget: run.lostTarget ?? null,
    counts: countStandings(judgement),
    checks: run.outcomes.map((outcome) => ({
      id: outcome.check.id,
      level: outcome.check.level,
      verdict: outcome.verdict,
      standing: standingOf(outcome, judgement),
      says: outcome.check.says,
      cites: outcome.check.cites,
      advice: outcome.check.advice,
      observed: outcome.note,
      durationMs: Math.round(outcome.durationMs),
    })),
  };
  return `${JSON.stringify(report, undefined, 2)}\n`;
}

export function formatJunit(judgement: Judgement): string {
  const { run } = judgement;
  const counts = countStandings(judgement);
  const cases = run.outcomes.map((outcome) => {
    const [area = "", ...rest] = outcome.check.id.split(".");
    const open = `    <testcase classname="${xml(area)}" name="${xml(rest.join("."))}" time="${(outcome.durationMs / 1000).toFixed(3)}">`;
    return `${open}${junitBody(outcome, judgement)}</testcase>`;
  });
  const totals = `tests="${run.outcomes.length}" failures="${counts.failed}" errors="${counts.undecided}" skipped="${counts.skipped + counts.expected + counts.noted}"`;
  return [
    `<?xml version="1.0" encoding="UTF-8"?>`,
    `<testsuites ${totals} time="${(run.durationMs / 1000).toFixed(3)}">`,
    `  <testsuite name="${xml(`conformance ${run.targetText}`)}" ${totals} timestamp="${xml(run.startedAt)}">`,
    ...cases,
    `  </testsuite>`,
    `</testsuites>`,
    "",
  ].join("\n");
}

function junitBody(outcome: CheckOutcome, judgement: Judgement): string {
  const standing = standingOf(outcome, judgement);
  const text = `${outcome.check.level}: ${outcome.check.says}\nsource: ${outcome.check.cites}\nobserved: ${outcome.note}\nadvice: ${outcome.check.advice}`;
  if (standing === "passed") return "";
  if (standing === "failed") return `<failure message="${xml(outcome.note)}">${xml(text)}</failure>`;
  if (standing === "undecided") return `<error message="${xml(outcome.note)}">${xml(text)}</error>`;
  return `<skipped message="${xml(judgement.expectedFailures.get(outcome.check.id) ?? outcome.note)}"/>`;
}

export function formatTap(judgement: Judgement): string {
  const lines = ["TAP version 14", `1..${judgement.run.outcomes.length}`];
  for (const [index, outcome] of judgement.run.outcomes.entries()) {
    const standing = standingOf(outcome, judgement);
    const isOk = standing !== "failed" && standing !== "undecided";
    const directive =
      standing === "skipped"
        ? ` # SKIP ${oneLine(outcome.note)}`
        : standing === "expected" || standing === "noted"
          ? ` # TODO ${oneLine(judgement.expectedFailures.get(outcome.check.id) ?? outcome.note)}`
          : "";
    lines.push(`${isOk ? "ok" : "not ok"} ${index + 1} - ${outcome.check.id}${directive}`);
    if (!isOk) {
      lines.push("  ---", `  level: ${outcome.check.level}`, `  rule: ${JSON.stringify(outcome.check.says)}`);
      lines.push(`  source: ${JSON.stringify(outcome.check.cites)}`, `  observed: ${JSON.stringify(outcome.note)}`);
      lines.push(`  advice: ${JSON.stringify(outcome.check.advice)}`, "  ...");
    }
  }
  return `${lines.join("\n")}\n`;
}

function xml(text: string): string {
  const escapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  // XML 1.0 has no way at all to write most control characters.
  return text
    .replace(/[&<>"]/g, (character) => escapes[character]!)
    .replace(/(?![\t\n\r])\p{Cc}|[\ufffe\uffff]/gu, "\ufffd");
}

function oneLine(text: string): string {
  return text.replaceAll("\n", " ").replaceAll("#", "\\#");
}
