// `ledge conformance TARGET`: runs the suite and reports.
//
// Exit codes: 0 nothing failed; 1 a check of a strict level failed; 2 wrong arguments; 3 the target could not be reached,
// went away, or left checks undecided. Reports are written in every case in which checks ran.

import { writeFileSync } from "node:fs";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "./arguments.ts";
import { parseTarget, type Target } from "./client/target.ts";
import { httpTarget, type HttpTarget } from "./client/http1-client.ts";
import type { Check, Level } from "./conformance/check.ts";
import {
  countStandings,
  formatJson,
  formatJunit,
  formatTable,
  formatTap,
  progressLine,
  summaryLine,
  type Judgement,
} from "./conformance/reports.ts";
import { runSuite, type CheckOutcome, type SuiteRun } from "./conformance/runner.ts";
import { SUITE } from "./conformance/suite.ts";
import { newSeed } from "./random-data.ts";

const FLAGS: FlagTable = {
  only: { kind: "list", value: "ID,AREA,…", help: "run only these checks; a final * matches any ending" },
  skip: { kind: "list", value: "ID,AREA,…", help: "leave these checks out" },
  list: { kind: "switch", help: "print the checks, one a line, and contact nobody" },
  instance: { kind: "text", value: "NAME", help: "instance name (default: empty)" },
  http: { kind: "text", value: "URL|none", help: "HTTP cache (default: the target's host and port)" },
  platform: { kind: "list", value: "NAME=VALUE", help: "platform property of every action" },
  "fail-on": {
    kind: "text",
    value: "LEVELS",
    help: "levels whose failure fails the run (default: MUST,SHOULD,CLIENTS)",
  },
  "expect-fail": { kind: "list", value: "ID=REASON", help: "a known failure" },
  timeout: { kind: "text", value: "DURATION", help: "for one check (default: 20s; checks that wait have more)" },
  budget: { kind: "text", value: "SIZE", help: "bytes sent at most, over which checks are skipped (default: 512MiB)" },
  seed: { kind: "text", value: "NUMBER", help: "of the made-up blobs (default: random, printed)" },
  "tls-ca": { kind: "text", value: "FILE", help: "certificate authority of a grpcs:// target" },
  json: { kind: "text", value: "FILE", help: "write the report as JSON (- for stdout)" },
  junit: { kind: "text", value: "FILE", help: "write the report as JUnit XML" },
  tap: { kind: "text", value: "FILE", help: "write the report as TAP" },
  quiet: { kind: "switch", help: "print failures and the summary only" },
  help: { kind: "switch", help: "print this" },
};

export async function runConformance(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("conformance", async () => await conformance(argv));
}

async function conformance(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) return print(`Usage: ledge conformance [FLAGS] grpc://HOST:PORT\n\n${describeFlags(FLAGS)}\n`);
  const checks = selectChecks(args.words("only"), args.words("skip"));
  if (args.has("list"))
    return print(
      checks.map((check) => `${check.id.padEnd(42)} ${check.level.padEnd(7)} ${check.says}`).join("\n") + "\n",
    );
  const targetText = args.positionals[0];
  if (targetText === undefined || args.positionals.length > 1)
    throw new UsageError("expected one target, such as grpc://127.0.0.1:8980");
  const target = parseTarget(targetText, args.text("tls-ca"));
  const expectedFailures = parseExpectedFailures(args.list("expect-fail"));
  const strict = parseLevels(args.text("fail-on"));
  const seed = Math.floor(args.number("seed", newSeed(), { min: 1, max: 2 ** 31 }));
  const log = progressTo(args, { expectedFailures, strict });
  let run: SuiteRun;
  try {
    run = await runSuite({
      target,
      http: httpTargetOf(args.text("http"), target),
      instanceName: args.text("instance") ?? "",
      checks,
      seed,
      platform: parsePlatform(args.list("platform")),
      timeoutMs: args.durationMs("timeout", 20_000),
      budgetBytes: args.sizeBytes("budget", 512 * 1024 * 1024),
      onOutcome: log,
    });
  } catch (error) {
    if (error instanceof UsageError) throw error;
    process.stderr.write(`ledge conformance: ${error instanceof Error ? error.message : String(error)}\n`);
    return 3;
  }
  return report(args, { run, expectedFailures, strict });
}

/** Ids, areas (`read`) or beginnings (`read.name.*`); an id that matches nothing is a mistake worth saying. */
function selectChecks(only: readonly string[], skip: readonly string[]): readonly Check[] {
  const matches = (check: Check, pattern: string): boolean =>
    pattern.endsWith("*")
      ? check.id.startsWith(pattern.slice(0, -1))
      : check.id === pattern || check.id.startsWith(`${pattern}.`);
  for (const pattern of [...only, ...skip]) {
    if (!SUITE.some((check) => matches(check, pattern)))
      throw new UsageError(`no check matches "${pattern}" (--list prints them)`);
  }
  return SUITE.filter(
    (check) =>
      (only.length === 0 || only.some((pattern) => matches(check, pattern))) &&
      !skip.some((pattern) => matches(check, pattern)),
  );
}

function parseExpectedFailures(texts: readonly string[]): Map<string, string> {
  return new Map(
    texts.map((text) => {
      const [id = "", ...reason] = text.split("=");
      if (!SUITE.some((check) => check.id === id)) throw new UsageError(`--expect-fail: no check is called "${id}"`);
      if (reason.join("=").trim() === "")
        throw new UsageError(`--expect-fail: "${text}" gives no reason; write ${id}=REASON`);
      return [id, reason.join("=")] as const;
    }),
  );
}

function parseLevels(text = "MUST,SHOULD,CLIENTS"): ReadonlySet<Level> {
  const known: readonly Level[] = ["MUST", "SHOULD", "MAY", "CLIENTS"];
  return new Set(
    text.split(",").map((word) => {
      const level = known.find((candidate) => candidate === word.trim().toUpperCase());
      if (level === undefined) throw new UsageError(`--fail-on: "${word}" is not one of ${known.join(", ")}`);
      return level;
    }),
  );
}

function parsePlatform(texts: readonly string[]): Map<string, string> {
  return new Map(
    texts.map((text) => {
      const cut = text.indexOf("=");
      if (cut < 1) throw new UsageError(`--platform: "${text}" is not NAME=VALUE`);
      return [text.slice(0, cut), text.slice(cut + 1)] as const;
    }),
  );
}

function httpTargetOf(text: string | undefined, target: Target): HttpTarget | undefined {
  if (text === "none" || (text === undefined && target.socketPath !== undefined)) return undefined;
  const baseUrl = text ?? `${target.tls ? "https" : "http"}://${target.authority}`;
  if (!/^https?:\/\/[^/]+/.test(baseUrl))
    throw new UsageError(`--http: "${baseUrl}" is not http://HOST:PORT[/PREFIX] or "none"`);
  return httpTarget(baseUrl, target.certificateAuthority);
}

function progressTo(args: Arguments, rules: Omit<Judgement, "run">): (outcome: CheckOutcome) => void {
  if (args.has("quiet") || args.text("json") === "-") return () => undefined;
  const judgement: Judgement = { ...rules, run: { outcomes: [] } as unknown as SuiteRun };
  return (outcome) => process.stdout.write(`${progressLine(outcome, judgement)}\n`);
}

function report(args: Arguments, judgement: Judgement): number {
  const forms = { json: formatJson, junit: formatJunit, tap: formatTap };
  for (const [name, format] of Object.entries(forms)) {
    const path = args.text(name);
    if (path === "-") process.stdout.write(format(judgement));
    else if (path !== undefined) writeFileSync(path, format(judgement));
  }
  const counts = countStandings(judgement);
  if (args.text("json") !== "-") {
    process.stdout.write(`\n${formatTable(judgement)}\n`);
    process.stdout.write(
      `${summaryLine(judgement)} (${Math.round(judgement.run.durationMs / 1000)} s, seed ${judgement.run.seed})\n`,
    );
  }
  if (judgement.run.lostTarget !== undefined) process.stderr.write(`ledge conformance: ${judgement.run.lostTarget}\n`);
  if (counts.failed > 0) return 1;
  return counts.undecided > 0 ? 3 : 0;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
