// An action without a sandbox (`--sandbox=none`): a child in a session of its own, nothing more.
//
// What it still keeps: every process that carries the run's mark in its environment, is in its process group, or belongs
// to the slot's own user is killed before the run counts as ended. What it cannot keep: a program that clears its
// environment and leaves the session survives when actions have no user of their own.

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import type { LaunchCommand } from "./launcher-block.ts";
import type { ReapedProcess } from "./native-calls.ts";
import type { OutputStreams } from "./output-streams.ts";
import { findMarkedProcesses, findProcessesOfUser, killQuietly, OWNER_VARIABLE } from "./process-table.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface PlainProcessOptions {
  readonly identity: SlotIdentity | undefined;
  readonly streams: OutputStreams;
  readonly ownerKey: string;
  /** Unique among running ones. */
  readonly runId: string;
}

const RUN_VARIABLE = "LEDGE_SANDBOX_RUN";

export class PlainProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean> = Promise.resolve(true);
  readonly usage: ReapedProcess | undefined = undefined;
  readonly #options: PlainProcessOptions;
  #child: ChildProcess | undefined;
  #resolveExit: (exit: ProcessExit) => void = () => undefined;

  constructor(options: PlainProcessOptions) {
    this.#options = options;
    this.exit = new Promise((resolve) => {
      this.#resolveExit = resolve;
    });
  }

  get initPid(): number | undefined {
    return this.#child?.pid;
  }

  /** `workingDirectory` is a path of the host here, and exists. */
  launch(command: LaunchCommand): void {
    const { identity, streams, ownerKey, runId } = this.#options;
    const [program = "", ...rest] = command.arguments;
    const environment = Object.fromEntries(command.environment.map(({ name, value }) => [name, value]));
    this.#child = spawn(program, rest, {
      cwd: command.workingDirectory,
      detached: true,
      env: { ...environment, [OWNER_VARIABLE]: ownerKey, [RUN_VARIABLE]: runId },
      ...(identity === undefined ? {} : { uid: identity.uid, gid: identity.gid }),
      stdio: ["ignore", ...streams.childFds],
    });
    this.#child.once("error", (error) => this.#resolveExit(forkFailure(error, program)));
    this.#child.once("exit", (code, signal) => {
      const signalNumber = signal === null ? 0 : constants.signals[signal];
      this.#resolveExit({ kind: "exited", exitCode: code ?? 128 + signalNumber });
    });
  }

  kill(): void {
    const child = this.#child;
    if (child === undefined) return this.#resolveExit({ kind: "broken", message: "It was killed before it began" });
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) killQuietly(-child.pid);
    for (const straggler of this.#stragglers()) killQuietly(straggler);
  }

  async settle(timeoutMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + timeoutMs;
    while (this.#stragglers().length > 0) {
      if (performance.now() > deadlineMs) return false;
      this.kill();
      await sleep(2);
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

/** The fork itself meets the mistakes that the launcher reports otherwise. */
function forkFailure(error: NodeJS.ErrnoException, program: string): ProcessExit {
  const errno = error.errno === undefined ? undefined : -error.errno;
  const { ENOENT, EACCES, E2BIG, ENOEXEC, ETXTBSY, ENOTDIR } = constants.errno;
  const ofTheProgram: readonly (number | undefined)[] = [ENOENT, EACCES, E2BIG, ENOEXEC, ETXTBSY, ENOTDIR];
  if (errno === undefined || error.syscall !== `spawn ${program}` || !ofTheProgram.includes(errno)) {
    return { kind: "broken", message: error.message };
  }
  return { kind: "not-launched", failure: { stage: "execute", errno } };
}
