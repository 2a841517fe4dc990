// Measures dist/ledge with real clients and prints a table: `node test/clients/measure.ts`, some minutes on two cores.
//
// Questions: how soon after its start does it answer (empty, and with 100,000 blobs); how large is it on disk and in
// memory; what does Bazel's wall time become; how many trivial actions run per second. Left out: load beyond one client
// at a time, which is native-free-bench's subject. Nothing here is asserted; a test would be wrong on another machine.

import { readFile, stat, writeFile } from "node:fs/promises";
import { connect } from "node:http2";
import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { spawn } from "node:child_process";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel, everything, exampleWorkspace, type BazelResult } from "../support/bazel.ts";
import { LedgeServer, ledgeCommand } from "../support/ledge-server.ts";
import { runPythonScript } from "../support/python-script.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

const storedBlobs = 100_000;
const trivialActions = 1000;

const [program = ""] = await ledgeCommand();
print("size of the executable", `${mebibytes((await stat(program)).size)} MiB`);
await measureStarts();
await measureExample();
await measureTrivialActions();

function print(question: string, answer: string): void {
  console.log(`${question.padEnd(64)} ${answer}`);
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}

async function measureStarts(): Promise<void> {
  await using folder = await TemporaryFolder.create("measure-start");
  const dataDir = join(folder.path, "data");
  print("start to first answered RPC, empty", await startTimes(dataDir));
  {
    await using server = await LedgeServer.start({ dataDir, flags: ["--max-size", "10GiB"] });
    print("resident memory, idle and empty", await residentMemory(server.pid));
    const filled = await runPythonScript("fill", server.address, String(storedBlobs), "2048");
    if (filled.exitCode !== 0) throw new Error(filled.stderr);
    print(`storing ${storedBlobs} blobs of 2 KiB, one client`, `${(filled.elapsedMs / 1000).toFixed(1)} s`);
    await server.stop();
    await server.restart();
    print(`resident memory, idle with ${storedBlobs} blobs`, await residentMemory(server.pid));
    await server.stop();
  }
  print(`start to first answered RPC, ${storedBlobs} blobs`, await startTimes(dataDir));
}

/** Median and spread of seven starts; the first one, which may extract files, is listed apart. */
async function startTimes(dataDir: string): Promise<string> {
  const times: number[] = [];
  for (let i = 0; i < 8; i++) times.push(await startTimeMs(dataDir));
  const [first = 0, ...others] = times;
  const sorted = others.toSorted((a, b) => a - b);
  const [least = 0, median = 0, most = 0] = [sorted[0], sorted[3], sorted[6]];
  return `${median.toFixed(0)} ms (${least.toFixed(0)} to ${most.toFixed(0)}; first start ${first.toFixed(0)})`;
}

async function startTimeMs(dataDir: string): Promise<number> {
  const port = await freePort();
  const [command = "", ...args] = await ledgeCommand();
  const startedAt = performance.now();
  const child = spawn(command, [...args, "serve", "--listen", `127.0.0.1:${port}`, "--data-dir", dataDir], {
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  while (!(await getCapabilities(port))) continue;
  const elapsedMs = performance.now() - startedAt;
  child.kill("SIGTERM");
  await ended;
  return elapsedMs;
}

/** One GetCapabilities with an empty request over a connection of its own; false when nobody answers. */
async function getCapabilities(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const session = connect(`http://127.0.0.1:${port}`);
  session.on("error", () => resolve(false));
  const stream = session.request({
    ":method": "POST",
    ":path": "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => resolve(false));
  stream.on("trailers", (trailers) => resolve(trailers["grpc-status"] === "0"));
  stream.resume();
  stream.end(Buffer.alloc(5));
  const answered = await promise;
  session.destroy();
  return answered;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}

async function residentMemory(pid: number): Promise<string> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const resident = Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? "0");
  const anonymous = Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? "0");
  return `${mebibytes(resident * 1024)} MiB, of which anonymous ${mebibytes(anonymous * 1024)}`;
}

async function measureExample(): Promise<void> {
  await using server = await LedgeServer.start();
  await using bazel = await Bazel.create(exampleWorkspace);
  const remote = ["--config=ledge", `--remote_executor=grpc://${server.address}`];
  await bazel.expectSuccess("build", "--nobuild", ...remote, everything); // analysis and toolchain detection, unmeasured
  const local: string[] = [];
  const cold: string[] = [];
  const cached: string[] = [];
  for (let i = 0; i < 3; i++) {
    local.push(await cleanBuild(bazel, everything));
    cold.push(await cleanBuild(bazel, ...remote, `--remote_instance_name=round${i}`, everything));
    cached.push(await cleanBuild(bazel, ...remote, `--remote_instance_name=round${i}`, everything));
  }
  print("examples/cc, Bazel's own sandbox, three runs", local.join("; "));
  print("examples/cc, remote execution, cold", cold.join("; "));
  print("examples/cc, remote execution, cached", cached.join("; "));
  print("resident memory after the Bazel runs", await residentMemory(server.pid));
}

async function cleanBuild(bazel: Bazel, ...args: readonly string[]): Promise<string> {
  await bazel.expectSuccess("clean");
  const result = await bazel.expectSuccess("build", ...args);
  return `${elapsedSeconds(result)} s (${[...result.processes].map(([kind, n]) => `${n} ${kind}`).join(", ")})`;
}

/** What Bazel says itself, without the start of its client. */
function elapsedSeconds(result: BazelResult): number {
  return Number(/Elapsed time: ([\d.]+)s/.exec(result.text)?.[1] ?? "0");
}

async function measureTrivialActions(): Promise<void> {
  await using folder = await TemporaryFolder.create("measure-actions");
  await writeFile(join(folder.path, "WORKSPACE"), "");
  await writeFile(join(folder.path, ".bazelrc"), "build --nosandbox_debug\n");
  const rule = `genrule(name = "g%d" % i, outs = ["%d.txt" % i], cmd = "echo %d > $@" % i)`;
  await writeFile(join(folder.path, "BUILD"), `[${rule} for i in range(${trivialActions})]\n`);
  await using server = await LedgeServer.start();
  await using bazel = await Bazel.create(folder.path);
  const remote = [`--remote_executor=grpc://${server.address}`, "--jobs=64"];
  await bazel.expectSuccess("build", "--nobuild", ...remote, "//:all");
  for (const [name, args] of [
    ["remote execution, cold", remote],
    ["remote execution, cached", remote],
    ["Bazel's own sandbox", []],
  ] as const) {
    await bazel.expectSuccess("clean");
    const result = await bazel.expectSuccess("build", ...args, "//:all");
    const seconds = elapsedSeconds(result);
    const actions = (result.processes.get("remote") ?? 0) + (result.processes.get("remote cache hit") ?? 0);
    const rate = ((actions + localCount(result.processes)) / seconds).toFixed(0);
    print(`${trivialActions} trivial genrules, ${name}`, `${rate} actions/s (${seconds} s)`);
  }
}
