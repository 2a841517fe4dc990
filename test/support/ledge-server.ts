// Starts dist/ledge for a test: own data directory, port 0, log kept; stopped, killed and started again at will.
//
// Invariant: no server outlives the test process. LEDGE_TEST_FROM_SOURCE=1 runs the sources instead, for development;
// the test command never sets it.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runOrThrow } from "./child-output.ts";

const repository = join(import.meta.dirname, "../..");
const executable = join(repository, "dist/ledge");

export interface LedgeOptions {
  /** Flags after `serve`; --listen, --port-file and --data-dir are given already. */
  readonly flags?: readonly string[];
  /** An existing data directory, which the caller removes; without it the server has one of its own. */
  readonly dataDir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Words before the program, as in `unshare --pid --fork`. */
  readonly wrapper?: readonly string[];
}

export interface LedgeExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** The program and its first arguments; builds dist/ledge when it is absent. */
export async function ledgeCommand(): Promise<readonly string[]> {
  if (process.env["LEDGE_TEST_FROM_SOURCE"] === "1") return [process.execPath, join(repository, "src/main.ts")];
  if (!existsSync(executable)) await runOrThrow(process.execPath, ["build.ts"], { cwd: repository });
  return [executable];
}

export class LedgeServer implements AsyncDisposable {
  /** HOST:PORT; stays the same over restart(). */
  address = "127.0.0.1:0";
  readonly dataDir: string;
  readonly #folder: string;
  readonly #options: LedgeOptions;
  #log = "";
  #child: ChildProcess | undefined;
  #exit: Promise<LedgeExit> = Promise.resolve({ code: null, signal: null });

  private constructor(folder: string, options: LedgeOptions) {
    this.#folder = folder;
    this.#options = options;
    this.dataDir = options.dataDir ?? join(folder, "data");
  }

  /** Resolves once the server accepts connections; rejects with its log when it ends before that. */
  static async start(options: LedgeOptions = {}): Promise<LedgeServer> {
    const server = new LedgeServer(await mkdtemp(join(tmpdir(), "ledge-test-server-")), options);
    try {
      await server.restart();
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
    return server;
  }

  get port(): number {
    return Number(this.address.slice(this.address.lastIndexOf(":") + 1));
  }

  /** Everything the server wrote to stdout and stderr, over all its starts. */
  get log(): string {
    return this.#log;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error("The server is not running");
    return this.#child.pid;
  }

  /** Starts the stopped server on its data directory and the address it had; `flags` are added to the first ones. */
  async restart(flags: readonly string[] = []): Promise<void> {
    const portFile = join(this.#folder, "address");
    await rm(portFile, { force: true });
    const [program = "", ...args] = [...(this.#options.wrapper ?? []), ...(await ledgeCommand())];
    args.push("serve", "--listen", this.address, "--port-file", portFile, "--data-dir", this.dataDir);
    const child = spawn(program, [...args, ...(this.#options.flags ?? []), ...flags], {
      env: { ...process.env, ...this.#options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(child);
    this.#child = child;
    const collect = (chunk: Buffer): void => void (this.#log += chunk.toString());
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const exit = Promise.withResolvers<LedgeExit>();
    this.#exit = exit.promise;
    let ended = false;
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      ended = true;
      running.delete(child);
      exit.resolve({ code, signal });
    };
    child.on("error", (error) => {
      this.#log += `${error.message}\n`;
      end(null, null);
    });
    child.on("exit", end);
    // 30 s: far beyond any start that works, so only a server that hangs meets it.
    for (let waitedMs = 0; !existsSync(portFile); waitedMs += 10) {
      if (ended) throw new Error(`The server ended before it listened:\n${this.#log}`);
      if (waitedMs > 30_000) throw new Error(`The server does not write its port file:\n${this.#log}`);
      await sleep(10);
    }
    this.address = (await readFile(portFile, "utf8")).split("\n")[0]?.trim() ?? "";
  }

  /** SIGTERM, then the end. */
  async stop(): Promise<LedgeExit> {
    this.#child?.kill("SIGTERM");
    return this.#exit;
  }

  /** SIGKILL: the server gets no chance to clean up. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#exit;
  }

  /** Resolves when the process ended by itself. */
  exited(): Promise<LedgeExit> {
    return this.#exit;
  }

  async status(): Promise<Record<string, unknown>> {
    const response = await fetch(`http://${this.address}/status`);
    if (!response.ok) throw new Error(`GET /status: ${response.status} ${await response.text()}`);
    return (await response.json()) as Record<string, unknown>;
  }

  /** The number in `field` of /status. */
  async statusNumber(field: string): Promise<number> {
    const status = await this.status();
    const value = status[field];
    if (typeof value !== "number") throw new Error(`/status has no number "${field}": ${JSON.stringify(status)}`);
    return value;
  }

  /** Actions that ran in this server, over all its starts with this data directory or since the last one. */
  executedActions(): Promise<number> {
    return this.metric("ledge_actions_executed_total");
  }

  /** The sum of all series of `name` in /metrics; 0 when there is none. */
  async metric(name: string): Promise<number> {
    const response = await fetch(`http://${this.address}/metrics`);
    if (!response.ok) throw new Error(`GET /metrics: ${response.status} ${await response.text()}`);
    let sum = 0;
    for (const line of (await response.text()).split("\n")) {
      if (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) sum += Number(line.slice(line.lastIndexOf(" ")));
    }
    return sum;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined && running.has(this.#child)) await this.kill();
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
