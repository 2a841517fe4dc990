// `node native-free-bench/main.ts executor`: what running actions costs, of Ledge and of others in the same run.
//
// Without --target it measures a Ledge of this checkout, which must have a sandbox. Rounds alternate between targets, so
// that what else the machine does meets all of them. Prints median and spread over the rounds, and the ratio to the
// first target. Exit codes: 0 measured, 2 wrong arguments, 3 a measure failed.

import { writeFileSync } from "node:fs";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "./arguments.ts";
import { parseTarget, type Target } from "./client/target.ts";
import { ExecutionClient } from "./executor/execution-client.ts";
import { MEASURES, type Measure } from "./executor/measures.ts";
import { startOwnServer } from "./executor/own-server.ts";
import { cpuDifference, readTreeUsage, type TreeUsage } from "./executor/process-tree-usage.ts";
import { median } from "./load/statistics.ts";
import { newSeed } from "./random-data.ts";

const FLAGS: FlagTable = {
  target: { kind: "list", value: "NAME=TARGET", help: "grpc://HOST:PORT of a server that executes (default: our own)" },
  "server-pid": { kind: "list", value: "NAME=PID", help: "a process of that target, for CPU and memory of its tree" },
  program: { kind: "text", value: "FILE", help: "measure this executable of Ledge in place of the sources" },
  slots: { kind: "text", value: "N", help: "of our own server (default: 2)" },
  measure: {
    kind: "list",
    value: "NAME,…",
    help: `default: all but soak; of ${MEASURES.map(({ name }) => name).join(", ")}`,
  },
  rounds: { kind: "text", value: "N", help: "default: 3" },
  instance: { kind: "text", value: "NAME", help: "instance name (default: empty)" },
  platform: { kind: "list", value: "NAME=VALUE", help: "platform property of every action" },
  json: { kind: "text", value: "FILE", help: "write every round as JSON" },
  help: { kind: "switch", help: "print this" },
};

interface MeasuredTarget {
  readonly name: string;
  readonly target: Target;
  readonly pids: readonly number[];
}

interface Row {
  readonly figure: string;
  readonly unit: string;
  readonly target: string;
  readonly values: number[];
}

export async function runExecutor(argv: readonly string[]): Promise<number> {
  return withUsageErrors("executor", async () => {
    const args = new Arguments(argv, FLAGS);
    if (args.has("help")) {
      process.stdout.write(`Usage: node native-free-bench/main.ts executor [flags]\n\n${describeFlags(FLAGS)}\n`);
      return 0;
    }
    const measures = chosenMeasures(args.words("measure"));
    await using own = args.list("target").length === 0 ? await openOwnServer(args) : undefined;
    const targets = own === undefined ? parseTargets(args) : [ownTarget(own)];
    const rows = await measureAll(args, measures, targets);
    process.stdout.write(formatRows(rows, targets));
    const json = args.text("json");
    if (json !== undefined)
      writeFileSync(json, `${JSON.stringify({ format: "ledge-executor/1", rows }, undefined, 1)}\n`);
    return rows.some(({ values }) => values.some(Number.isNaN)) ? 3 : 0;
  });
}

function chosenMeasures(names: readonly string[]): readonly Measure[] {
  if (names.length === 0) return MEASURES.filter(({ name }) => name !== "soak");
  return names.map((name) => {
    const measure = MEASURES.find((known) => known.name === name);
    if (measure === undefined) {
      throw new UsageError(`--measure: "${name}" is none of ${MEASURES.map((known) => known.name).join(", ")}`);
    }
    return measure;
  });
}

function openOwnServer(args: Arguments) {
  return startOwnServer({ slots: args.number("slots", 2, { min: 1, max: 1024 }), program: args.text("program") });
}

function ownTarget(own: { readonly address: string; readonly pid: number }): MeasuredTarget {
  return { name: "ledge", target: parseTarget(`grpc://${own.address}`), pids: [own.pid] };
}

function parseTargets(args: Arguments): MeasuredTarget[] {
  const pids = args.list("server-pid").map((text) => pairOf("server-pid", text));
  return args.list("target").map((text) => {
    const [name, address] = pairOf("target", text);
    const own = pids.filter(([owner]) => owner === name).map(([, pid]) => Number(pid));
    return { name, target: parseTarget(address), pids: own };
  });
}

function pairOf(flag: string, text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new UsageError(`--${flag}: "${text}" is not NAME=VALUE`);
  return [text.slice(0, at), text.slice(at + 1)];
}

async function measureAll(
  args: Arguments,
  measures: readonly Measure[],
  targets: readonly MeasuredTarget[],
): Promise<Row[]> {
  const rounds = args.number("rounds", 3, { min: 1, max: 100 });
  const platform = args.list("platform").map((text) => {
    const [name, value] = pairOf("platform", text);
    return { name, value };
  });
  const rows = new Map<string, Row>();
  const put = (figure: string, unit: string, target: string, value: number) => {
    const key = `${figure}\n${target}`;
    const row = rows.get(key) ?? { figure, unit, target, values: [] };
    rows.set(key, row);
    row.values.push(value);
  };
  const seed = newSeed();
  process.stdout.write(`seed ${seed}, ${rounds} rounds\n`);
  for (const measure of measures) {
    for (let round = 0; round < rounds; round++) {
      for (const { name, target, pids } of targets) {
        const client = await ExecutionClient.open(target, args.text("instance") ?? "");
        const before = readTreeUsage(pids);
        try {
          const run = `${seed}-${measure.name}-${round}-${name}`;
          const result = await measure.run({ client, run, seed: seed + round * 1000, platform });
          for (const { name: figure, unit, value } of result.figures) put(figure, unit, name, value);
          if (pids.length > 0) putUsage(measure, name, result.actions, before, readTreeUsage(pids), put);
        } catch (error) {
          process.stderr.write(`${name}, ${measure.name}: ${error instanceof Error ? error.message : String(error)}\n`);
          put(measure.name, "", name, Number.NaN);
        } finally {
          client.close();
        }
      }
    }
  }
  return [...rows.values()];
}

/** What the target's processes used, uploads included. */
function putUsage(
  measure: Measure,
  target: string,
  actions: number,
  before: TreeUsage,
  after: TreeUsage,
  put: (figure: string, unit: string, target: string, value: number) => void,
): void {
  const cpu = [...cpuDifference(before, after)].toSorted((a, b) => b[1] - a[1]);
  const total = cpu.reduce((sum, [, ms]) => sum + ms, 0);
  put(`${measure.name}: CPU per action`, "ms", target, total / actions);
  for (const [who, ms] of cpu) if (ms > total / 50) put(`  of it ${who}`, "ms", target, ms / actions);
  if (measure.name !== "soak") return;
  put("soak: resident memory after it", "MiB", target, after.residentBytes / 2 ** 20);
  put("soak: anonymous memory after it", "MiB", target, after.anonymousBytes / 2 ** 20);
  put("soak: processes more than before", "", target, after.processes - before.processes);
  put("soak: descriptors more than before", "", target, after.descriptors - before.descriptors);
  put("soak: mounts more than before", "", target, after.mounts - before.mounts);
}

function formatRows(rows: readonly Row[], targets: readonly MeasuredTarget[]): string {
  const [first] = targets;
  const lines = rows.map(({ figure, unit, target, values }) => {
    const base = rows.find((row) => row.figure === figure && row.target === first?.name);
    const middle = median(values);
    const ratio = base === undefined || target === first?.name ? "" : ` × ${(middle / median(base.values)).toFixed(2)}`;
    const spread = `${format(Math.min(...values))} to ${format(Math.max(...values))}`;
    return `${figure.padEnd(44)} ${target.padEnd(12)} ${format(middle).padStart(9)} ${unit.padEnd(4)} (${spread})${ratio}`;
  });
  return `${lines.join("\n")}\n`;
}

function format(value: number): string {
  return value.toFixed(Math.abs(value) < 100 ? 2 : 0);
}
