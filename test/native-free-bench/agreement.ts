// Does the load generator agree with others? Run by hand on a quiet machine; no test asserts a time.
//
// `node test/native-free-bench/agreement.ts [grpc://HOST:PORT]` prints, for each server, the closed-loop rate of
// `h2load` (Debian's nghttp2-client) and of ours, and the latency of `ghz` (github.com/bojand/ghz) and of ours at half
// of what ghz can do, in alternating runs. Servers: ours that answers after a known time or keeps its core busy for a
// known time, and FindMissingBlobs of the server named on the command line. Aim: rates within 10 %, medians of latency
// within 10 % or 100 µs. Where a server does nothing, each tool shows its own cost: one call at a time says how much.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseTarget } from "../../native-free-bench/client/target.ts";
import { generateLoad, type LoadResult } from "../../native-free-bench/load/generator.ts";
import type { NullServerOptions } from "../../native-free-bench/load/null-server.ts";
import { startNullServerProcess } from "../../native-free-bench/load/null-server-process.ts";
import { prepare } from "../../native-free-bench/load/prepared-calls.ts";
import { RawConnection, type PreparedCall } from "../../native-free-bench/load/raw-connection.ts";
import { median } from "../../native-free-bench/load/statistics.ts";
import { RandomData } from "../../native-free-bench/random-data.ts";
import { Capabilities, ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";

const ROUNDS = 5;
const RUN_S = 1;
const WARM_UP_S = 1;
const CONNECTIONS = 4;
const DEPTH = 16;
const NULL_CALL: PreparedCall = { path: "/ledge.bench.Null/Call", body: [Buffer.alloc(5)] };
const NULL_PROTO = `syntax = "proto3"; package ledge.bench;
message Nothing {} service Null { rpc Call(Nothing) returns (Nothing); }`;

const SHAPE = { connections: CONNECTIONS, depth: DEPTH };
const PROTOS = join(import.meta.dirname, "../../protos");
const REAPI = "build/bazel/remote/execution/v2/remote_execution.proto";

const folder = mkdtempSync(join(tmpdir(), "ledge-agreement-"));
const NULL_GHZ: GhzCall = {
  call: NULL_CALL,
  flags: ["--proto", join(folder, "null.proto"), "--call", "ledge.bench.Null.Call", "--data", "{}"],
};
try {
  await compareAll();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function compareAll(): Promise<void> {
  await withServer({}, async (port) => {
    await compareRates("nothing to do: each tool's own ceiling", `grpc://127.0.0.1:${port}`, NULL_CALL);
    await compareSingleCalls(port);
    await compareLatencies("nothing to do", `127.0.0.1:${port}`, NULL_GHZ);
  });
  for (const busyMicroseconds of [25, 200])
    await withServer({ busyMicroseconds }, async (port) => {
      await compareRates(`${busyMicroseconds} µs of work a call`, `grpc://127.0.0.1:${port}`, NULL_CALL);
    });
  await withServer({ delayMs: 5 }, async (port) => {
    await compareRates("answers after 5 ms", `grpc://127.0.0.1:${port}`, NULL_CALL);
    await compareLatencies("answers after 5 ms", `127.0.0.1:${port}`, NULL_GHZ);
  });
  const [target] = process.argv.slice(2);
  if (target === undefined) return;
  const random = new RandomData(1);
  const blobDigests = Array.from({ length: 1000 }, () => ({ hash: random.bytes(32).toString("hex"), sizeBytes: 40 }));
  const call = prepare(Cas.methods.FindMissingBlobs, { blobDigests });
  await compareRates("FindMissingBlobs of 1,000 absent digests", target, call);
  const flags = ["--import-paths", PROTOS, "--proto", join(PROTOS, REAPI), "--data", "{}"];
  const method = "build.bazel.remote.execution.v2.Capabilities.GetCapabilities";
  await compareLatencies("GetCapabilities", new URL(target).host, {
    call: prepare(Capabilities.methods.GetCapabilities, {}),
    flags: [...flags, "--call", method],
  });
}

async function withServer(options: NullServerOptions, compare: (port: number) => Promise<void>): Promise<void> {
  const server = await startNullServerProcess(options);
  try {
    await compare(server.port);
  } finally {
    server.close();
  }
}

async function compareRates(name: string, target: string, call: PreparedCall): Promise<void> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(h2load(target, call, SHAPE));
    const { calls, durationMs } = await measure(target, call, SHAPE);
    ours.push((calls * 1000) / durationMs);
  }
  print(`${name}: closed loop, ${CONNECTIONS} × ${DEPTH}, calls/s`, { tool: "h2load", theirs, ours });
}

/** One connection, one call at a time: the way there and back, and what a tool adds to it. */
async function compareSingleCalls(port: number): Promise<void> {
  const names = ["h2load", "ghz", "ours"] as const;
  const means: Record<(typeof names)[number], number[]> = { h2load: [], ghz: [], ours: [] };
  const alone = { connections: 1, depth: 1 };
  for (let round = 0; round < ROUNDS; round++) {
    means.h2load.push(1e6 / h2load(`grpc://127.0.0.1:${port}`, NULL_CALL, alone));
    const flags = [...NULL_GHZ.flags, "--concurrency", "1", "--connections", "1"];
    means.ghz.push(1e6 / ghz(`127.0.0.1:${port}`, flags).rps);
    means.ours.push((await measure(`grpc://127.0.0.1:${port}`, NULL_CALL, alone)).latency.mean);
  }
  const shown = names.map((name) => `${name} ${show(means[name])}`);
  process.stdout.write(`nothing to do: one call at a time, µs a call\n  ${shown.join(", ")}\n`);
}

interface GhzCall {
  readonly call: PreparedCall;
  /** The same call in the words of ghz. */
  readonly flags: readonly string[];
}

async function compareLatencies(name: string, address: string, { call, flags }: GhzCall): Promise<void> {
  const common = [...flags, "--connections", String(CONNECTIONS), "--concurrency", String(CONNECTIONS * DEPTH)];
  const ceiling = ghz(address, common).rps;
  const ratePerSecond = Math.floor(ceiling / 2);
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(ghz(address, [...common, "--rps", String(ratePerSecond)]).p50Us);
    ours.push((await measure(`grpc://${address}`, call, { ...SHAPE, ratePerSecond })).latency.quantile(0.5));
  }
  print(`${name}: ${ratePerSecond} calls/s, half of ghz's ${ceiling.toFixed(0)}; p50 in µs`, {
    tool: "ghz",
    theirs,
    ours,
  });
}

interface Shape {
  readonly connections: number;
  readonly depth: number;
  readonly ratePerSecond?: number;
}

async function measure(target: string, call: PreparedCall, shape: Shape): Promise<LoadResult> {
  const clients = await Promise.all(
    Array.from({ length: shape.connections }, async () => await RawConnection.open(parseTarget(target))),
  );
  const result = await generateLoad(clients, () => call, {
    depth: shape.depth,
    ratePerSecond: shape.ratePerSecond,
    warmUpMs: WARM_UP_S * 1000,
    durationMs: RUN_S * 1000,
  });
  for (const client of clients) client.close();
  return result;
}

function h2load(target: string, call: PreparedCall, { connections, depth }: Shape): number {
  const body = join(folder, "body");
  writeFileSync(body, Buffer.concat(call.body));
  const shape = ["--clients", String(connections), "--max-concurrent-streams", String(depth), "--threads", "1"];
  const time = ["--warm-up-time", `${WARM_UP_S}s`, "--duration", String(RUN_S)];
  const request = ["--data", body, "-H", "content-type: application/grpc", "-H", "te: trailers"];
  const output = run("h2load", [...shape, ...time, ...request, `${target.replace("grpc:", "http:")}${call.path}`]);
  return Number(/finished in [\d.]+\w+, ([\d.]+) req\/s/.exec(output)?.[1]);
}

function ghz(address: string, flags: readonly string[]): { rps: number; p50Us: number } {
  writeFileSync(join(folder, "null.proto"), NULL_PROTO);
  const fixed = ["--insecure", "--format", "json", "--duration", `${RUN_S + WARM_UP_S}s`, "--duration-stop", "wait"];
  const report = JSON.parse(run("ghz", [...fixed, ...flags, address])) as {
    rps: number;
    latencyDistribution: readonly { percentage: number; latency: number }[];
  };
  const p50 = report.latencyDistribution.find(({ percentage }) => percentage === 50)!;
  return { rps: report.rps, p50Us: p50.latency / 1000 };
}

function run(program: string, args: readonly string[]): string {
  const { stdout, stderr, error, status } = spawnSync(program, args, { encoding: "utf8", maxBuffer: 2 ** 28 });
  if (error !== undefined) throw new Error(`${program} is needed: ${error.message}`);
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr}`);
  return stdout;
}

function print(
  name: string,
  { tool, theirs, ours }: { tool: string; theirs: readonly number[]; ours: readonly number[] },
): void {
  const ratio = median(ours) / median(theirs);
  process.stdout.write(`${name}\n  ${tool} ${show(theirs)}, ours ${show(ours)}, ours/${tool} ${ratio.toFixed(3)}\n`);
}

/** The median, the least and the greatest. */
function show(values: readonly number[]): string {
  return `${median(values).toFixed(0)} (${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)})`;
}
