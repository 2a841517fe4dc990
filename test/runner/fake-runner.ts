// A Runner that starts no process: programs are functions, so tests of the worker need neither bwrap nor a host.
//
// It keeps the seam's promises (test/runner/runner-contract.ts runs on it too): output files are created, limits and
// cancellation end a run, and nothing of a run goes on once it has resolved.

import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HostUser, Runner, RunOutcome, RunResult, RunSpec } from "../../src/runner/runner.ts";

export interface FakeProcess {
  readonly spec: RunSpec;
  /** Host path of the working directory. */
  readonly workingDirectoryPath: string;
  /** Aborted when the run is killed; a program that waits must end then. */
  readonly killed: AbortSignal;
  readonly writeStdout: (text: string) => void;
  readonly writeStderr: (text: string) => void;
}

/** Returns the exit code. */
export type FakeProgram = (process: FakeProcess) => number | Promise<number>;

export class FakeRunner implements Runner {
  /** Every spec that was run, in order. */
  readonly specs: RunSpec[] = [];
  readonly #programs = new Map<string, FakeProgram>();
  readonly #running = new Map<number, { kill: (reason: RunOutcome) => void; done: Promise<unknown> }>();
  #closed = false;

  /** Programs by the first argument of a command. */
  constructor(programs: Readonly<Record<string, FakeProgram>> = {}) {
    for (const [name, program] of Object.entries(programs)) this.#programs.set(name, program);
  }

  define(name: string, program: FakeProgram): void {
    this.#programs.set(name, program);
  }

  ownerOf(_slot: number): HostUser | undefined {
    return undefined;
  }

  async run(spec: RunSpec, { signal }: { readonly signal: AbortSignal }): Promise<RunResult> {
    this.specs.push(spec);
    const startedAtMs = Date.now();
    const outcome = await this.#outcome(spec, signal);
    return { outcome, startedAtMs, endedAtMs: Date.now(), usage: {} };
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { kill } of this.#running.values()) kill({ kind: "cancelled" });
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  async #outcome(spec: RunSpec, signal: AbortSignal): Promise<RunOutcome> {
    const [command = ""] = spec.arguments;
    const program = this.#programs.get(command);
    const workingDirectoryPath = join(spec.inputRootPath, spec.workingDirectory);
    if (signal.aborted || this.#closed) return { kind: "cancelled" };
    if (this.#running.has(spec.slot)) return { kind: "sandbox-failed", message: `Slot ${spec.slot} is already in use` };
    writeFileSync(spec.stdoutPath, "", { flag: "wx" });
    writeFileSync(spec.stderrPath, "", { flag: "wx" });
    if (program === undefined) {
      return { kind: "not-started", message: `Cannot start the command ${JSON.stringify(command)}: no such program` };
    }
    if (!existsSync(workingDirectoryPath) || !statSync(workingDirectoryPath).isDirectory()) {
      const quoted = JSON.stringify(spec.workingDirectory);
      return { kind: "not-started", message: `Cannot enter the working directory ${quoted}: it does not exist` };
    }
    if (spec.temporaryPath !== undefined) mkdirSync(spec.temporaryPath, { recursive: true });
    return this.#runProgram(spec, program, workingDirectoryPath, signal);
  }

  async #runProgram(
    spec: RunSpec,
    program: FakeProgram,
    workingDirectoryPath: string,
    signal: AbortSignal,
  ): Promise<RunOutcome> {
    const abort = new AbortController();
    let reason: RunOutcome | undefined;
    const kill = (why: RunOutcome) => {
      reason ??= why;
      abort.abort();
    };
    const onAbort = () => kill({ kind: "cancelled" });
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => kill({ kind: "timeout" }), Math.min(spec.limits.timeoutMs, 2 ** 31 - 1));
    const streams = limitedStreams(spec, kill);
    const exitCode = Promise.resolve(program({ spec, workingDirectoryPath, killed: abort.signal, ...streams }));
    this.#running.set(spec.slot, { kill, done: exitCode });
    try {
      const code = await exitCode;
      return reason ?? { kind: "exited", exitCode: code };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#running.delete(spec.slot);
    }
  }
}

function limitedStreams(
  spec: RunSpec,
  kill: (reason: RunOutcome) => void,
): Pick<FakeProcess, "writeStdout" | "writeStderr"> {
  let remainingBytes = spec.limits.maxLogBytes;
  const writeTo = (path: string) => (text: string) => {
    const bytes = Buffer.from(text, "utf8");
    writeFileSync(path, bytes.subarray(0, remainingBytes), { flag: "a" });
    remainingBytes = Math.max(0, remainingBytes - bytes.length);
    if (remainingBytes === 0 && bytes.length > 0) {
      kill({ kind: "limit", limit: "log-bytes", message: `more than ${spec.limits.maxLogBytes} bytes of output` });
    }
  };
  return { writeStdout: writeTo(spec.stdoutPath), writeStderr: writeTo(spec.stderrPath) };
}
