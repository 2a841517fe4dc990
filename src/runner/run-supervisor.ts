// Supervises one run from its spec to its result: start, limits, the reason for its end, settle, output.
//
// Invariant: the first reason to kill wins (timeout, cancelled, limit), and the result is given only when everything is
// dead and every byte of output is in its file. A sandbox that will not die makes the slot unusable, not the server.

import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../base/clock.ts";
import type { CgroupController } from "../sandbox/cgroup.ts";
import type { IsolatedProcess, ProcessExit } from "../sandbox/isolated-process.ts";
import type { OutputStreams } from "../sandbox/output-streams.ts";
import { findSpecFault } from "../sandbox/sandbox-spec.ts";
import { explainLaunchFailure, explainSandboxFailure, type LaunchFailure, mayPass } from "../sandbox/start-failure.ts";
import { LimitWatch, processLimits } from "./limit-watch.ts";
import type { ResourceUsage, RunOutcome, RunResult, RunSpec } from "./runner.ts";

/** An isolated process that has no command yet, and what its output flows through. */
export interface ReadyIsolation {
  readonly process: IsolatedProcess;
  readonly streams: OutputStreams;
}

export interface SupervisorContext {
  readonly clock: Clock;
  readonly cgroups: CgroupController | undefined;
  /** Gives a new one at each call; lets `begin` open its streams before anything can be written to them. */
  readonly isolate: (begin: (streams: OutputStreams) => void) => ReadyIsolation;
  /** The action's working directory as the isolated process sees it. */
  readonly workingDirectory: string;
}

/** Namespaces and mounts take 3 ms; this is for a mount source on a server that hangs. */
const SETUP_TIMEOUT_MS = 30_000;
/** A fork bomb of 200 processes takes 0.3 s to die on two cores. */
export const SETTLE_TIMEOUT_MS = 10_000;
/** "Text file busy" means that somebody forked while the program was being written, for less than a millisecond. */
const MAX_START_ATTEMPTS = 4;

export interface SupervisedResult {
  readonly result: RunResult;
  /** false: something of it is still alive; its slot must not be used again. */
  readonly settled: boolean;
}

/** Runs `spec` to its end. Never rejects for anything the action or the machine did. */
export async function superviseRun(
  spec: RunSpec,
  signal: AbortSignal,
  context: SupervisorContext,
): Promise<SupervisedResult> {
  const fault = findSpecFault(spec);
  if (fault !== undefined) return atOnce({ kind: "not-started", message: fault }, context.clock);
  for (let attempt = 1; ; attempt++) {
    if (signal.aborted) return atOnce({ kind: "cancelled" }, context.clock);
    let run: SupervisedRun;
    try {
      run = new SupervisedRun(spec, context);
    } catch (error) {
      return atOnce({ kind: "sandbox-failed", message: describe(error) }, context.clock);
    }
    const supervised = await run.finish(signal);
    if (!run.mayRetry || attempt === MAX_START_ATTEMPTS) return supervised;
    for (const path of [spec.stdoutPath, spec.stderrPath]) rmSync(path, { force: true });
    await sleep(attempt * 5);
  }
}

class SupervisedRun {
  /** Nothing of the action ran, and the reason passes by itself. */
  mayRetry = false;
  readonly #spec: RunSpec;
  readonly #context: SupervisorContext;
  readonly #streams: OutputStreams;
  readonly #process: IsolatedProcess;
  readonly #limits: LimitWatch;
  /** Why it was killed; the first reason stays. */
  #reason: RunOutcome | undefined;

  constructor(spec: RunSpec, context: SupervisorContext) {
    this.#spec = spec;
    this.#context = context;
    ({ process: this.#process, streams: this.#streams } = context.isolate((streams) => this.#openFiles(streams)));
    const { cgroups } = context;
    this.#limits = new LimitWatch({ spec, cgroups, onLimit: (outcome) => this.#kill(outcome) });
  }

  async finish(signal: AbortSignal): Promise<SupervisedResult> {
    const onAbort = () => this.#kill({ kind: "cancelled" });
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      const ready = await this.#waitForReady();
      if (ready) this.#limits.begin(this.#process.initPid ?? 0);
      const startedAtMs = this.#context.clock.nowMs();
      if (ready) this.#launch();
      this.#streams.releaseChildFds();
      const exit = await this.#waitForExit();
      const endedAtMs = this.#context.clock.nowMs();
      // The first process has ended; what it left behind is killed here, whatever the reason.
      const settled = await this.#process.settle(SETTLE_TIMEOUT_MS);
      await this.#streams.drain();
      const outcome = settled ? this.#outcome(exit) : unsettledOutcome(this.#spec);
      if (outcome.kind === "limit" && outcome.limit === "memory") this.#streams.appendToStderr(outcome.message);
      const logBytes = this.#streams.sizeBytes;
      return { result: { outcome, startedAtMs, endedAtMs, usage: this.#usage(), logBytes }, settled };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#process.close();
      this.#streams.close();
      this.#limits.close();
    }
  }

  #openFiles(streams: OutputStreams): void {
    const { stdoutPath, stderrPath, limits } = this.#spec;
    streams.begin({
      stdoutPath,
      stderrPath,
      maxBytes: limits.maxLogBytes,
      onLimit: () => this.#kill(logLimitOutcome(limits.maxLogBytes)),
      onWriteError: (error) =>
        this.#kill({ kind: "sandbox-failed", message: `Cannot store the action's output: ${error.message}` }),
    });
  }

  async #waitForReady(): Promise<boolean> {
    const cancel = this.#context.clock.schedule(SETUP_TIMEOUT_MS, () =>
      this.#kill({
        kind: "sandbox-failed",
        message: `The sandbox was not set up after ${SETUP_TIMEOUT_MS / 1000} s; does a mount source hang?`,
      }),
    );
    const ready = await this.#process.ready;
    cancel();
    return ready;
  }

  #launch(): void {
    if (this.#reason !== undefined) return; // killed meanwhile
    const { arguments: words, environment, limits } = this.#spec;
    const { workingDirectory } = this.#context;
    this.#process.launch({ arguments: words, environment, workingDirectory, limits: processLimits(limits) });
  }

  async #waitForExit(): Promise<ProcessExit> {
    const cancel = this.#context.clock.schedule(this.#spec.limits.timeoutMs, () => this.#kill({ kind: "timeout" }));
    const exit = await this.#process.exit;
    cancel();
    return exit;
  }

  #kill(reason: RunOutcome): void {
    this.#reason ??= reason;
    this.#process.kill();
  }

  #outcome(exit: ProcessExit): RunOutcome {
    const limit = this.#limits.end(exit.kind === "exited" ? exit.exitCode : undefined);
    const reason = this.#reason ?? limit;
    if (reason !== undefined) return reason;
    if (exit.kind === "exited") return exit;
    if (exit.kind === "not-launched") return this.#launchFailure(exit.failure);
    this.mayRetry = exit.setupFailed === true; // with bwrap, which can more, or says why it cannot
    return { kind: "sandbox-failed", message: exit.message ?? explainSandboxFailure(this.#streams.stderrHead()) };
  }

  #launchFailure(failure: LaunchFailure): RunOutcome {
    const [command = ""] = this.#spec.arguments;
    this.mayRetry = mayPass(failure);
    return {
      kind: this.mayRetry ? "sandbox-failed" : "not-started",
      message: explainLaunchFailure(failure, command, this.#spec.workingDirectory),
    };
  }

  #usage(): ResourceUsage {
    const { signal: _, ...usage } = { ...this.#process.usage };
    const peakMemoryBytes = this.#limits.peakMemoryBytes;
    return { ...usage, ...(peakMemoryBytes === undefined ? {} : { peakMemoryBytes }) };
  }
}

function logLimitOutcome(maxLogBytes: number): RunOutcome {
  return {
    kind: "limit",
    limit: "log-bytes",
    message: `The action wrote more than ${maxLogBytes} bytes to stdout and stderr together and was killed; write large output to a file, or raise --max-log-bytes`,
  };
}

function unsettledOutcome(spec: RunSpec): RunOutcome {
  return {
    kind: "sandbox-failed",
    message: `Processes of the action in slot ${spec.slot} do not end ${SETTLE_TIMEOUT_MS / 1000} s after SIGKILL (a hung file system?); the slot is not used again`,
  };
}

function atOnce(outcome: RunOutcome, clock: Clock): SupervisedResult {
  const nowMs = clock.nowMs();
  return { result: { outcome, startedAtMs: nowMs, endedAtMs: nowMs, usage: {}, logBytes: 0 }, settled: true };
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
