// `ledge replay FILE --target grpc://…`: plays a trace and compares latencies with the recorded ones.

import { writeFileSync } from "node:fs";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "./arguments.ts";
import { parseBenchTarget } from "./load/bench-target.ts";
import { newSeed } from "./random-data.ts";
import { replay, type ReplayResult } from "./trace/replayer.ts";

const FLAGS: FlagTable = {
  target: { kind: "text", value: "TARGET", help: "the server, such as grpc://127.0.0.1:8980" },
  http: { kind: "text", value: "URL", help: "where the server speaks HTTP (default: the same port)" },
  speed: { kind: "text", value: "FACTOR|max", help: "1 is as recorded, 2 twice as fast (default: 1)" },
  depth: { kind: "text", value: "N", help: "calls in flight at most (default: 256)" },
  instance: { kind: "text", value: "NAME", help: "instance name (default: empty)" },
  seed: { kind: "text", value: "NUMBER", help: "of made-up bytes (default: random, printed)" },
  json: { kind: "text", value: "FILE", help: "write the result as JSON" },
  "tls-ca": { kind: "text", value: "FILE", help: "certificate authority of a grpcs:// target" },
  help: { kind: "switch", help: "print this" },
};

export async function runReplay(argv: readonly string[]): Promise<number> {
  return await withUsageErrors("replay", async () => await runReplayCommand(argv));
}

async function runReplayCommand(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) {
    process.stdout.write(`Usage: ledge replay [FLAGS] --target grpc://HOST:PORT TRACE\n\n${describeFlags(FLAGS)}\n`);
    return 0;
  }
  const [path] = args.positionals;
  const target = args.text("target");
  if (path === undefined || args.positionals.length > 1) throw new UsageError("expected one trace file");
  if (target === undefined) throw new UsageError("--target grpc://HOST:PORT is not given");
  const speed = args.text("speed") === "max" ? Infinity : args.number("speed", 1, { min: 0.001, max: 1e6 });
  const seed = Math.floor(args.number("seed", newSeed(), { min: 1, max: 2 ** 31 }));
  try {
    const depth = args.number("depth", 256, { min: 1, max: 100_000 });
    const result = await replay(path, {
      target: parseBenchTarget({ grpc: target, http: args.text("http"), caFile: args.text("tls-ca") }),
      instanceName: args.text("instance") ?? "",
      speed,
      depth,
      seed,
    });
    printResult(result, seed);
    const json = args.text("json");
    if (json !== undefined)
      writeFileSync(
        json,
        `${JSON.stringify({ format: "ledge-replay/1", target, seed, ...result, latency: Object.fromEntries(result.latency), recorded: Object.fromEntries(result.recorded) }, undefined, 1)}\n`,
      );
    return 0;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    process.stderr.write(`ledge replay: ${error instanceof Error ? error.message : String(error)}\n`);
    return 3;
  }
}

function printResult(result: ReplayResult, seed: number): void {
  const seconds = (result.durationMs / 1000).toFixed(2);
  process.stdout.write(
    `${result.calls} calls in ${seconds} s, ${result.otherCode} with another status than recorded, ${result.leftOut} left out (seed ${seed})\n`,
  );
  for (const [path, latency] of result.latency) {
    const before = result.recorded.get(path);
    const show = (share: number): string =>
      `${(latency.quantile(share) / 1000).toFixed(2)} ms (recorded ${((before?.quantile(share) ?? 0) / 1000).toFixed(2)})`;
    process.stdout.write(
      `  ${path.slice(path.lastIndexOf(".") + 1).padEnd(44)} ${String(latency.count).padStart(8)}  p50 ${show(0.5)}, p99 ${show(0.99)}\n`,
    );
  }
}
