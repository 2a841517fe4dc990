// Servers in processes of their own, pinned to their core: ours from source, what it is compared with, and baselines.
//
// Invariant: a server is ready when it has said or written its port, and gone when the row that started it has ended.

import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Endpoint } from "./load-connection.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SERVER_CORE = "0";
const LOAD_CORE = "1";
const BOTH_CORES = "0,1";
const READY_MS = 30_000;

/** Servers that share the product's handlers and not its transport: see the script. */
export type ReferenceTransport = "node-http2" | "grpc-js";
const REFERENCE_SCRIPT = join(ROOT, "test", "grpc", "reference-server.ts");

export interface RunningServer extends Endpoint {
  readonly pid: number;
}

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

export interface LedgeOptions {
  readonly store: "memory" | "disk";
  readonly tls?: TlsFiles;
  readonly pinned?: boolean;
}

/** Starts servers, and ends all of them and removes their folders when disposed. */
export class ServerFleet {
  readonly #children: ChildProcess[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), "ledge-transport-"));
  readonly #bazelRemote: string | undefined;

  constructor(options: { readonly bazelRemote: string | undefined }) {
    this.#bazelRemote = options.bazelRemote;
  }

  get hasBazelRemote(): boolean {
    return this.#bazelRemote !== undefined;
  }

  /** `ledge serve`, in memory or with a store of its own on disk; on both cores when it is not pinned. */
  async startLedge(options: LedgeOptions): Promise<RunningServer> {
    const portFile = join(this.#folder, `port-${this.#children.length}`);
    const { store, tls, pinned = true } = options;
    const dataDir = store === "memory" ? ":memory:" : mkdtempSync(join(this.#folder, "ledge-"));
    const command = [process.execPath, join(ROOT, "src", "main.ts"), "serve", "--listen", "127.0.0.1:0"];
    command.push("--port-file", portFile, "--data-dir", dataDir, "--max-size", "1GiB", "--log-level", "error");
    if (tls !== undefined) command.push("--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-min-version", "1.3");
    const child = this.#spawn(onCore(pinned ? SERVER_CORE : BOTH_CORES, command));
    const address = await waitFor(() => {
      assertRunning(child, "ledge");
      return existsSync(portFile) ? readFileSync(portFile, "utf8").split("\n")[0] : undefined;
    });
    const port = Number(address.slice(address.lastIndexOf(":") + 1));
    return { host: "127.0.0.1", port, pid: child.pid!, certificate: tls && readFileSync(tls.cert) };
  }

  /** One of baseline-server.ts. */
  async startBaseline(role: "answers" | "send" | "receive", tls?: TlsFiles): Promise<RunningServer> {
    const script = join(import.meta.dirname, "baseline-server.ts");
    const command = [process.execPath, script, role, ...(tls === undefined ? [] : [tls.cert, tls.key])];
    return { ...(await this.#startSpeaking(command)), certificate: tls && readFileSync(tls.cert) };
  }

  /** Octets per second of SHA-256 on the servers' core, each time it is called. */
  async startHashing(): Promise<() => Promise<number>> {
    const script = join(import.meta.dirname, "baseline-server.ts");
    const child = this.#spawn(onCore(SERVER_CORE, [process.execPath, script, "hash"]), { stdin: "pipe" });
    const lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
    await lines.next();
    return async () => {
      child.stdin!.write("\n");
      return Number((await lines.next()).value);
    };
  }

  async startReference(transport: ReferenceTransport): Promise<RunningServer> {
    return await this.#startSpeaking([process.execPath, REFERENCE_SCRIPT, transport, this.#folder]);
  }

  /** May use both cores. */
  async startBazelRemote(): Promise<RunningServer> {
    const [grpc, http] = [await freePort(), await freePort()];
    const folder = mkdtempSync(join(this.#folder, "bazel-remote-"));
    const command = [this.#bazelRemote ?? "", "--dir", folder, "--max_size", "4", "--storage_mode", "uncompressed"];
    command.push("--grpc_address", `127.0.0.1:${grpc}`, "--http_address", `127.0.0.1:${http}`);
    command.push("--access_log_level", "none");
    // It logs its start at length, and has no flag against that.
    const child = this.#spawn(onCore(BOTH_CORES, command), { stderr: "ignore" });
    await waitFor(async () => {
      assertRunning(child, "bazel-remote");
      return (await answers(grpc)) ? "" : undefined;
    });
    return { host: "127.0.0.1", port: grpc, pid: child.pid! };
  }

  /** A throw-away certificate for 127.0.0.1; needs the openssl command. */
  makeCertificate(): TlsFiles {
    const [cert, key] = [join(this.#folder, "server.crt"), join(this.#folder, "server.key")];
    const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    args.push("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert);
    const { status, stderr } = spawnSync("openssl", args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`openssl could not make a certificate: ${stderr ?? "not installed"}`);
    return { cert, key };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await exited;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #startSpeaking(command: readonly string[]): Promise<RunningServer> {
    const child = this.#spawn(onCore(SERVER_CORE, command));
    const { value } = (await createInterface(child.stdout!)[Symbol.asyncIterator]().next()) as { value?: string };
    assertRunning(child, command.slice(1).join(" "));
    return { host: "127.0.0.1", port: Number(value), pid: child.pid! };
  }

  #spawn(
    command: readonly string[],
    { stdin = "ignore", stderr = "inherit" }: { stdin?: "pipe" | "ignore"; stderr?: "inherit" | "ignore" } = {},
  ): ChildProcess {
    const [program = "", ...args] = command;
    const child = spawn(program, args, { stdio: [stdin, "pipe", stderr] });
    child.on("error", (error) => process.stderr.write(`${program}: ${error.message}\n`));
    this.#children.push(child);
    return child;
  }
}

/** Moves this process, the load, to its core. */
export function pinLoad(): void {
  const { status } = spawnSync("taskset", ["--all-tasks", "--cpu-list", "--pid", LOAD_CORE, String(process.pid)]);
  if (status !== 0) throw new Error("taskset could not pin this process: two cores and util-linux are needed");
}

function onCore(core: string, command: readonly string[]): string[] {
  return ["taskset", "--cpu-list", core, ...command];
}

function assertRunning(child: ChildProcess, name: string): void {
  if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}; its message, if any, is above`);
}

async function waitFor(look: () => string | undefined | Promise<string | undefined>): Promise<string> {
  for (const endMs = performance.now() + READY_MS; performance.now() < endMs;) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`a server was not ready after ${READY_MS} ms`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
