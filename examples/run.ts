// `npm run example`: builds examples/cc in ledge with Bazel, forgets everything Bazel knows, and builds it again.
//
// Uses the server on the default address, or the one named by LEDGE_EXAMPLE_ADDRESS (HOST:PORT); starts one from these
// sources, with a data directory that it removes, when nobody answers there. Leaves nothing behind: Bazel has a
// temporary output base, and its server is shut down.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assertNodeVersion } from "../src/base/node-version.ts";
import { localCount, parseProcesses } from "./process-summary.ts";

const repository = join(import.meta.dirname, "..");
const defaultAddress = "127.0.0.1:8980";

/** What examples/cc/.bazelrc points Bazel to, with the Debian package that brings it. */
const needed: readonly (readonly [path: string, debianPackage: string])[] = [
  ["/usr/bin/g++", "g++"],
  ["/usr/bin/bazel", "bazel-bootstrap"],
  ["/usr/share/bazel/tools/skylib", "bazel-skylib"],
  ["/usr/share/bazel/tools/platforms", "bazel-platforms"],
  ["/usr/share/bazel/rules/java", "bazel-rules-java"],
  ["/usr/share/bazel/rules/proto", "bazel-rules-proto"],
];

interface BuildReport {
  readonly ranInLedge: number;
  readonly fromCache: number;
  readonly ranHere: number;
  readonly seconds: string;
}

assertNodeVersion();
process.exitCode = await main();

async function main(): Promise<number> {
  const missing = needed.filter(([path]) => !existsSync(path)).map(([, debianPackage]) => debianPackage);
  if (missing.length > 0) {
    console.error(`The example needs Debian's Bazel and a C++ compiler, and this machine lacks a part of them.`);
    console.error(`On Debian or Ubuntu: apt-get install ${missing.join(" ")}`);
    return 1;
  }
  const folder = await mkdtemp(join(tmpdir(), "ledge-example-"));
  try {
    await using server = await findOrStartServer(folder);
    return await buildTwice(server, folder);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  } finally {
    await bazel(folder, ["shutdown"]);
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

async function buildTwice(server: ExampleServer, folder: string): Promise<number> {
  console.log(`Server: grpc://${server.address} (${server.origin})`);
  const first = await build(server, folder);
  print("First build", first);
  await bazel(folder, ["clean"]);
  const second = await build(server, folder);
  print("After `bazel clean`", second);
  if (second.fromCache === 0 || second.ranInLedge + second.ranHere > 0) {
    console.error("The second build should have come from the cache alone; the server's log may say why it did not.");
    return 1;
  }
  console.log("Your own project: bazel build --remote_executor=grpc://HOST:PORT, as in examples/cc/.bazelrc");
  return 0;
}

async function build(server: ExampleServer, folder: string): Promise<BuildReport> {
  const startedAt = performance.now();
  const args = ["--config=ledge", `--remote_executor=grpc://${server.address}`, "--symlink_prefix=/"];
  const output = await bazel(folder, ["build", "--color=no", "--curses=no", ...args, "//:everything"]);
  if (output.exitCode !== 0) {
    throw new Error(`${output.text}\nThe build failed, see above. What this machine can do: node src/main.ts doctor`);
  }
  const processes = parseProcesses(output.text);
  return {
    ranInLedge: processes.get("remote") ?? 0,
    fromCache: processes.get("remote cache hit") ?? 0,
    ranHere: localCount(processes),
    seconds: ((performance.now() - startedAt) / 1000).toFixed(1),
  };
}

function print(title: string, report: BuildReport): void {
  const parts = [
    `${report.ranInLedge} actions ran in ledge`,
    `${report.fromCache} came from its cache`,
    `${report.ranHere} ran here`,
  ];
  console.log(`${title}: ${parts.join(", ")} (${report.seconds} s)`);
}

async function bazel(folder: string, args: readonly string[]): Promise<{ exitCode: number | null; text: string }> {
  const startup = [`--output_user_root=${folder}`, `--output_base=${join(folder, "base")}`, "--nohome_rc"];
  const child = spawn("bazel", [...startup, "--max_idle_secs=60", ...args], { cwd: join(repository, "examples/cc") });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const [exitCode] = (await once(child, "close")) as [number | null];
  return { exitCode, text };
}

interface ExampleServer extends AsyncDisposable {
  readonly address: string;
  readonly origin: string;
}

async function findOrStartServer(folder: string): Promise<ExampleServer> {
  const address = process.env["LEDGE_EXAMPLE_ADDRESS"] ?? defaultAddress;
  if (await answers(address)) {
    return { address, origin: "was running already", [Symbol.asyncDispose]: async () => undefined };
  }
  return startServer(folder);
}

async function answers(address: string): Promise<boolean> {
  try {
    return (await fetch(`http://${address}/status`, { signal: AbortSignal.timeout(2000) })).ok;
  } catch {
    return false; // nobody there, or somebody who is not ledge: a server of our own serves the example
  }
}

async function startServer(folder: string): Promise<ExampleServer> {
  await once(spawn(process.execPath, [join(repository, "protos/generate.ts")], { stdio: "ignore" }), "close");
  const portFile = join(folder, "address");
  const flags = ["--listen", "127.0.0.1:0", "--port-file", portFile, "--data-dir", join(folder, "data")];
  const child = spawn(process.execPath, [join(repository, "src/main.ts"), "serve", ...flags], { stdio: "pipe" });
  let log = "";
  child.stdout.on("data", (chunk: Buffer) => (log += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (log += chunk.toString()));
  const ended = once(child, "close");
  while (!existsSync(portFile)) {
    if (child.exitCode !== null) throw new Error(`The server did not start:\n${log}`);
    await sleep(50);
  }
  const [address = ""] = (await readFile(portFile, "utf8")).split("\n");
  return {
    address,
    origin: "started for this example, ends with it",
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
