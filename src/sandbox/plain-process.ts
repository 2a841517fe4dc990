// An action without a sandbox (`--sandbox=none`): a child in a session of its own, nothing more.
//
// What it still keeps: every process that carries the run's mark in its environment, is in its process group, or belongs
// to the slot's own user is killed before the run counts as ended. What it cannot keep: a program that clears its
// environment and leaves the session survives when actions have no user of their own. There is no gate: `ready` comes
// when it already runs.

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import type { ReapedProcess } from "./native-calls.ts";
import { findMarkedProcesses, findProcessesOfUser, killQuietly, OWNER_VARIABLE } from "./process-table.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface PlainProcessOptions {
  readonly command: readonly string[];
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Absolute host path; it exists. */
  readonly workingDirectoryPath: string;
  readonly identity: SlotIdentity | undefined;
  readonly outputFds: readonly [number, number];
  readonly ownerKey: string;
  /** Unique among running ones. */
  readonly runId: string;
}

const RUN_VARIABLE = "LEDGE_SANDBOX_RUN";

export class PlainProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean>;
  readonly usage: ReapedProcess | undefined = undefined;
  readonly #child: ChildProcess;
  readonly #options: PlainProcessOptions;

  constructor(options: PlainProcessOptions) {
    this.#options = options;
    const { identity, command } = options;
    const environment = Object.fromEntries(options.environment.map(({ name, value }) => [name, value]));
    this.#child = spawn(command[0] ?? "", command.slice(1), {
      cwd: options.workingDirectoryPath,
      detached: true,
      env: { ...environment, [OWNER_VARIABLE]: options.ownerKey, [RUN_VARIABLE]: options.runId },
      ...(identity === undefined ? {} : { uid: identity.uid, gid: identity.gid }),
      stdio: ["ignore", ...options.outputFds],
    });
    this.ready = Promise.resolve(this.#child.pid !== undefined);
    this.exit = new Promise((resolve) => {
      this.#child.once("error", (error) => resolve({ exitCode: undefined, signal: null, error }));
      this.#child.once("exit", (code, signal) => {
        const signalNumber = signal === null ? 0 : constants.signals[signal];
        resolve({ exitCode: code ?? 128 + signalNumber, signal, error: undefined });
      });
    });
  }

  get initPid(): number | undefined {
    return this.#child.pid;
  }

  release(): void {
    // no gate: it runs since it was forked
  }

  kill(): void {
    const pid = this.#child.pid;
    if (pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null) killQuietly(-pid);
    for (const straggler of this.#stragglers()) killQuietly(straggler);
  }

  async settle(timeoutMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + timeoutMs;
    while (this.#stragglers().length > 0) {
      if (performance.now() > deadlineMs) return false;
      this.kill();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return true;
  }

  close(): void {
    // the child holds nothing of ours
  }

  #stragglers(): number[] {
    const { identity, runId } = this.#options;
    const marked = findMarkedProcesses(RUN_VARIABLE, runId);
    return identity === undefined ? marked : [...marked, ...findProcessesOfUser(identity.uid)];
  }
}
