// A server started by a command with a store of its own, which outlives it: for rows that measure a start.
//
// Invariant: nothing is measured before a FindMissingBlobs was answered, and the process has ended when stop() resolves.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { Code } from "../../src/base/status.ts";
import { ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";
import { parseBenchTarget, type BenchTarget } from "../load/bench-target.ts";
import { prepare } from "../load/prepared-calls.ts";
import { RawConnection, type CallResult, type PreparedCall } from "../load/raw-connection.ts";

/** Long enough for a million files on a cold disk. */
const START_MS = 120_000;
const LOOK_EVERY_MS = 2;

export interface StoredServerOptions {
  readonly name: string;
  /** Words, of which `{dir}`, `{port}` and `{port2}` are replaced: the store, the gRPC port, another free port. */
  readonly command: readonly string[];
  readonly dir: string;
}

export class StoredServer {
  readonly name: string;
  readonly target: BenchTarget;
  readonly #command: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(name: string, command: readonly string[], target: BenchTarget) {
    this.name = name;
    this.#command = command;
    this.target = target;
  }

  static async start({ name, command, dir }: StoredServerOptions): Promise<StoredServer> {
    mkdirSync(dir, { recursive: true });
    const [port, port2] = [await freePort(), await freePort()];
    const words = command.map((word) =>
      word.replaceAll("{dir}", dir).replaceAll("{port}", String(port)).replaceAll("{port2}", String(port2)),
    );
    const target = parseBenchTarget({ grpc: `grpc://127.0.0.1:${port}`, http: undefined, caFile: undefined });
    const server = new StoredServer(name, words, target);
    await server.start();
    return server;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Private memory, without mapped files. */
  get anonymousBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, "latin1");
    return Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1] ?? 0) * 1024;
  }

  /** Returns the milliseconds until `isRight` liked an answer to `call`; without one, until any call was answered. */
  async start(call: PreparedCall = EMPTY_QUESTION, isRight: (answer: Buffer) => boolean = () => true): Promise<number> {
    const [program = "", ...args] = this.#command;
    const begunMs = performance.now();
    const child = spawn(program, args, { stdio: "ignore" });
    child.on("error", (error) => process.stderr.write(`${program}: ${error.message}\n`));
    this.#child = child;
    while (performance.now() - begunMs < START_MS) {
      if (child.exitCode !== null)
        throw new Error(`${this.name} ended with ${child.exitCode}: ${this.#command.join(" ")}`);
      const result = await this.#ask(call);
      if (result?.code === Code.OK && isRight(result.body ?? Buffer.alloc(0))) return performance.now() - begunMs;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
    throw new Error(`${this.name} did not answer rightly within ${START_MS} ms`);
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await exited;
  }

  async #ask(call: PreparedCall): Promise<CallResult | undefined> {
    let connection: RawConnection;
    try {
      connection = await RawConnection.open(this.target.grpc);
    } catch {
      return undefined; // not listening yet
    }
    try {
      return await connection.callOnce(call);
    } finally {
      connection.close();
    }
  }
}

const EMPTY_QUESTION = prepare(Cas.methods.FindMissingBlobs, { blobDigests: [] });

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
