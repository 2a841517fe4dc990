// One runner process seen from the server: started, spoken to over its socket, and mourned when it ends.
//
// Invariant: `ended` resolves exactly once, after every pending run was told. Starting another one is runner-client.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";
import { selfArguments } from "../base/self.ts";
import { PRIVATE_MOUNTS_COMMAND } from "../sandbox/reachable-root.ts";
import type { PreparedView, RunResult, RunSpec } from "./runner.ts";
import {
  encodeFrame,
  FrameDecoder,
  RUNNER_SOCKET_FD,
  type RunnerCondition,
  type RunnerConfiguration,
  type RunnerMessage,
  type ServerMessage,
} from "./runner-protocol.ts";

/** Sweeping and probing take 50 ms; a machine that swaps may take seconds. */
const START_TIMEOUT_MS = 60_000;
/** The runner gives its actions 10 s to die; then it is killed itself, and they with it. */
const CLOSE_TIMEOUT_MS = 15_000;

export class RunnerConnection {
  /** Resolves with how the process ended. Never rejects. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #socket: Socket | undefined;
  readonly #decoder = new FrameDecoder<RunnerMessage>();
  readonly #pending = new Map<number, { resolve: (result: RunResult) => void; lost: () => void }>();
  #nextRunId = 1;
  #onCondition: ((condition: RunnerCondition) => void) | undefined;

  constructor(configuration: RunnerConfiguration) {
    const command = [process.execPath, ...selfArguments("runner")];
    const [program = "", ...rest] = configuration.ownMounts ? [...PRIVATE_MOUNTS_COMMAND, ...command] : command;
    this.#child = spawn(program, rest, {
      // A session of its own: the terminal's Ctrl-C is for the server, which ends us in its own time.
      detached: true,
      env: runnerEnvironment(),
      stdio: ["ignore", "ignore", "inherit", "pipe"],
    });
    const stream = this.#child.stdio[RUNNER_SOCKET_FD];
    this.#socket = stream instanceof Socket ? stream : undefined;
    this.#socket?.on("error", () => undefined); // the end of the process says more
    this.#socket?.on("data", (chunk: Buffer) => this.#receive(chunk));
    this.ended = this.#watchEnd();
    this.#send({ type: "start", configuration });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resolves when the runner has looked at this machine; rejects when it ended or said nothing for too long. */
  async condition(): Promise<RunnerCondition> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#onCondition = resolve;
        void this.ended.then((how) => reject(new Error(`The runner process ended at its start: ${how}`)));
        timer = setTimeout(() => reject(new Error("The runner process does not answer")), START_TIMEOUT_MS);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Resolves with undefined when the process ended before the run did. */
  async run(spec: RunSpec, signal: AbortSignal): Promise<RunResult | undefined> {
    const runId = this.#nextRunId++;
    const onAbort = () => this.#send({ type: "cancel", runId });
    try {
      return await new Promise<RunResult | undefined>((resolve) => {
        this.#pending.set(runId, { resolve, lost: () => resolve(undefined) });
        this.#send({ type: "run", runId, spec });
        signal.addEventListener("abort", onAbort, { once: true });
        if (signal.aborted) onAbort();
      });
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#pending.delete(runId);
    }
  }

  prepare(view: PreparedView): void {
    this.#send({ type: "prepare", view });
  }

  /** Ends the process: it kills its actions first. */
  async close(): Promise<void> {
    this.#socket?.end();
    const timer = setTimeout(() => this.kill(), CLOSE_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) {
        if (message.type === "condition") this.#onCondition?.(message.condition);
        else this.#pending.get(message.runId)?.resolve(message.result);
      }
    } catch {
      this.kill(); // a broken frame: nothing it says can be trusted any more
    }
  }

  #send(message: ServerMessage): void {
    if (this.#socket?.writable === true) this.#socket.write(encodeFrame(message));
  }

  #watchEnd(): Promise<string> {
    return new Promise((resolve) => {
      const finish = (how: string) => {
        this.#socket?.destroy();
        for (const { lost } of this.#pending.values()) lost();
        resolve(how);
      };
      this.#child.once("error", (error) => finish(error.message));
      this.#child.once("exit", (code, signal) => finish(signal === null ? `exit code ${code}` : `signal ${signal}`));
    });
  }
}

/**
 * Without what is meant for Node: NODE_EXTRA_CA_CERTS and NODE_USE_SYSTEM_CA read files in a thread of Node's own while
 * the runner closes the descriptors it inherited, and one closed under that thread ends in a second close of whatever
 * has its number by then (seen: libuv's poll descriptor, and the runner aborted).
 */
function runnerEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("NODE_")));
}
