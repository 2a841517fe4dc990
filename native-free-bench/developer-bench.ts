// `npm run bench` and `npm run bench -- NAME`: what developers measure before and after a change.
//
// Micro-benchmarks of the codecs inside this process (tinybench; question: nanoseconds a call, without sockets), and
// the harness end to end against a server started from source on an empty store. Results are JSON in bench-results/,
// which git ignores; compare-results.ts compares two of them. Numbers of a busy machine are worth nothing.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bench } from "tinybench";
import { ContentAddressableStorage as Cas } from "../src/proto/remote_execution.ts";
import { DigestBatch } from "../src/digest/digest-batch.ts";
import { digestOf, findDigestFunction } from "./digest-functions.ts";
import { blake3Hex } from "./blake3.ts";
import { Histogram } from "./load/histogram.ts";
import { RandomData } from "./random-data.ts";
import { runBench } from "./bench-command.ts";

const ROOT = join(import.meta.dirname, "..");
const RESULTS = join(ROOT, "bench-results");
/** Long enough to compare, short enough to be run. */
const SHORT = ["--runs", "3", "--duration", "1s", "--warm-up", "300ms"];

export async function runDeveloperBench(names: readonly string[]): Promise<number> {
  mkdirSync(RESULTS, { recursive: true });
  const stamp = new Date().toISOString().replaceAll(":", "-").slice(0, 19);
  const wantsMicro = names.length === 0 || names.includes("micro");
  const scenarios = names.filter((name) => name !== "micro");
  if (wantsMicro) await runMicro(join(RESULTS, `micro-${stamp}.json`));
  if (names.length > 0 && scenarios.length === 0) return 0;
  return await runAgainstOwnServer(scenarios, join(RESULTS, `bench-${stamp}.json`));
}

async function runMicro(path: string): Promise<void> {
  const random = new RandomData(1);
  const sha256 = findDigestFunction(1)!;
  const blobDigests = Array.from({ length: 1000 }, () => digestOf(sha256, random.bytes(40)));
  const { input } = Cas.methods.FindMissingBlobs;
  const encoded = input.encode({ blobDigests });
  const kilobyte = random.bytes(1024);
  const histogram = new Histogram();
  const batch = new DigestBatch();
  const bench = new Bench({ time: 300, warmupTime: 100 });
  bench
    .add("encode FindMissingBlobs of 1,000 digests", () => void input.encode({ blobDigests }))
    .add("decode FindMissingBlobs of 1,000 digests", () => void input.decode(encoded))
    .add("hold 1,000 digests in a DigestBatch", () => {
      batch.clear(1);
      for (const { hash, sizeBytes } of blobDigests) batch.add({ fn: 1, hash, sizeBytes });
    })
    .add("SHA-256 of 1 KiB", () => void sha256.hash(kilobyte))
    .add("BLAKE3 of 1 KiB, the harness's own", () => void blake3Hex(kilobyte))
    .add("record a latency", () => histogram.record(123.4));
  await bench.run();
  const results = bench.tasks.map((task) => {
    const { result } = task;
    const ns = "latency" in result ? result.latency.mean * 1e6 : Number.NaN;
    process.stdout.write(`${task.name.padEnd(48)} ${ns.toFixed(0).padStart(12)} ns\n`);
    return { name: task.name, nanoseconds: ns };
  });
  writeFileSync(path, `${JSON.stringify({ format: "ledge-micro/1", results }, undefined, 1)}\n`);
  process.stdout.write(`Results: ${path}\n\n`);
}

async function runAgainstOwnServer(scenarios: readonly string[], path: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "ledge-bench-"));
  const portFile = join(folder, "port");
  const server = spawn(
    process.execPath,
    [
      join(ROOT, "src", "main.ts"),
      "serve",
      "--listen",
      "127.0.0.1:0",
      "--port-file",
      portFile,
      "--data-dir",
      join(folder, "data"),
      "--log-level",
      "error",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  try {
    const address = await waitForPort(server, portFile);
    const chosen = scenarios.length === 0 ? [] : ["--scenario", scenarios.join(",")];
    return await runBench([
      "--target",
      `ledge=grpc://${address}`,
      "--server-pid",
      `ledge=${server.pid}`,
      ...SHORT,
      ...chosen,
      "--json",
      path,
      "--html",
      path.replace(/json$/, "html"),
    ]);
  } finally {
    server.kill("SIGTERM");
    await new Promise((resolve) => server.once("exit", resolve));
    rmSync(folder, { recursive: true, force: true });
    process.stdout.write(`\nResults: ${path}\n`);
  }
}

async function waitForPort(server: ChildProcess, portFile: string): Promise<string> {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (server.exitCode !== null) throw new Error(`the server ended with ${server.exitCode}; its message is above`);
    try {
      return readFileSync(portFile, "utf8").split("\n")[0]!;
    } catch {
      // Written once the server accepts connections.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error("the server did not start within 30 s");
}
