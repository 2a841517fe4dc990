// One sandbox from fork to settled: started with the launcher in it, given its command, killed, known to be dead.
//
//   spawn ──► pid inside ──► launcher waits (limits set, handle held) ──► launch() ──► exit ──► settled
//                 │                                                            │
//                 └────────────────── kill() is right at any time ◄────────────┘
//
// Our own builder makes it where it can, bwrap where it cannot. Invariant: bwrap's exit is not the end. Its monitor returns while processes inside may still write, so `settle` waits
// for the init of the pid namespace, which ends last of all (executor measurements 5.2). What the limits are and when to
// kill is runner/.

import { closeSync, openSync } from "node:fs";
import { encodeArguments } from "./bwrap-arguments.ts";
import { BuilderChild } from "./builder-child.ts";
import { startBwrap } from "./bwrap-child.ts";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import { encodeLaunchBlock, type LaunchCommand } from "./launcher-block.ts";
import { LaunchStage } from "./launcher-image.ts";
import type { NativeCalls, ReapedProcess } from "./native-calls.ts";
import { groupExists, killQuietly, ProcessHandle } from "./process-table.ts";
import type { OnInit, SandboxChild } from "./sandbox-child.ts";
import { encodeSetup } from "./setup-block.ts";
import { setupProgram } from "./setup-program.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface SandboxProcessOptions {
  readonly bwrapPath: string;
  readonly options: readonly string[];
  /** An open file with launcherImage() in it; borrowed, and the same one for every sandbox. */
  readonly launcherFd: number;
  /** Host path of the filter, when `options` name one. */
  readonly seccompPath: string | undefined;
  readonly identity: SlotIdentity | undefined;
  /** Borrowed. */
  readonly stdinFd: number;
  readonly outputFds: readonly [number, number];
  readonly ownerKey: string;
  readonly native: NativeCalls | undefined;
  /** undefined: bwrap makes the sandbox. */
  readonly builder: SandboxBuilder | undefined;
}

export interface SandboxBuilder {
  /** An open file with builderImage() in it; borrowed. */
  readonly builderFd: number;
  /** As in the file at `seccompPath`. */
  readonly filter: Buffer | undefined;
}

export class SandboxProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean>;
  readonly #child: SandboxChild;
  readonly #native: NativeCalls | undefined;
  #init: ProcessHandle | undefined;
  #exited = false;
  #killed = false;
  #usage: ReapedProcess | undefined;
  #resolveReady: (ready: boolean) => void = () => undefined;

  /** Throws when not even bwrap, or the builder, can be started. */
  constructor(options: SandboxProcessOptions) {
    this.#native = options.native;
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    this.#child = startChild(options, (pid) => this.#holdInit(pid));
    this.exit = this.#watchExit();
  }

  get initPid(): number | undefined {
    return this.#init?.pid;
  }

  get usage(): ReapedProcess | undefined {
    return this.#usage;
  }

  launch(command: LaunchCommand): void {
    this.#child.writeBlock(encodeLaunchBlock(command));
  }

  kill(): void {
    this.#killed = true;
    this.#init?.kill();
    // A first process that is not known yet, and in no group any more, ends when its launcher gets no command.
    this.#child.withdrawBlock();
    const { pid } = this.#child;
    // bwrap leads a process group of its own, which may hold helpers that started before the pid namespace did.
    if (!this.#exited && pid !== undefined) {
      killQuietly(-pid);
      killQuietly(pid);
    }
  }

  async settle(timeoutMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + timeoutMs;
    for (let attempt = 0; ; attempt++) {
      if (this.#init === undefined ? this.#groupIsGone() : this.#reap(this.#init)) return true;
      // bwrap told its init to die, but a fork bomb dies slowly: every later look comes with another kill.
      if (attempt > 3) this.#init?.kill();
      if (performance.now() > deadlineMs) return false;
      await pause(attempt);
    }
  }

  close(): void {
    this.#init?.close();
    this.#init = undefined;
    this.#child.close();
  }

  /**
   * A bwrap that dies while its child waits for the maps of the user namespace leaves that child waiting for ever: it has
   * not asked to die with its parent yet. It is still in bwrap's process group, whose number nobody else can get meanwhile.
   */
  #groupIsGone(): boolean {
    const { pid } = this.#child;
    if (pid === undefined) return true;
    killQuietly(-pid);
    this.#native?.reapGroup(pid);
    return !groupExists(pid);
  }

  #reap(init: ProcessHandle): boolean {
    const reaped = this.#native?.reap(init.pid);
    if (reaped === "running") return false;
    if (reaped === undefined || reaped === "not-a-child") return init.hasEnded();
    this.#usage = reaped;
    return true;
  }

  #holdInit(pid: number): void {
    if (this.#init !== undefined || this.#exited) return;
    try {
      this.#init = new ProcessHandle(pid);
      if (this.#killed) this.#init.kill();
      this.#resolveReady(true);
    } catch {
      this.#resolveReady(false); // gone already
    }
  }

  async #watchExit(): Promise<ProcessExit> {
    const { exitCode, signal, error, setupFailure } = await this.#child.ended;
    this.#exited = true;
    this.#resolveReady(false);
    if (error !== undefined) return { kind: "broken", message: error.message };
    if (setupFailure !== undefined) return { kind: "broken", message: setupFailure, setupFailed: true };
    const report = exitCode === 127 ? this.#child.readReport() : Buffer.alloc(0);
    if (report.length === 8) {
      const stage = report.readUInt32LE(0) === LaunchStage.EnterDirectory ? "enter-directory" : "execute";
      return { kind: "not-launched", failure: { stage, errno: report.readUInt32LE(4) } };
    }
    if (exitCode !== undefined) return { kind: "exited", exitCode };
    return { kind: "broken", message: this.#brokenMessage(signal) };
  }

  /** undefined: bwrap has said it on stderr. */
  #brokenMessage(signal: string | undefined): string | undefined {
    if (signal !== undefined) return `The sandbox was ended by ${signal} from outside`;
    return this.#child instanceof BuilderChild ? "The sandbox was ended from outside" : undefined;
  }
}

function startChild(options: SandboxProcessOptions, onInit: OnInit): SandboxChild {
  return startBuilder(options, onInit) ?? startBwrapChild(options, onInit);
}

/** undefined when only bwrap can make that sandbox. */
function startBuilder(options: SandboxProcessOptions, onInit: OnInit): SandboxChild | undefined {
  const { builder, native, identity = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 } } = options;
  if (builder === undefined || native === undefined || identity.uid === 0) return undefined;
  const calls = setupProgram(options.options, { identity, filter: builder.filter });
  const encodedCalls = calls === undefined ? undefined : encodeSetup(calls);
  if (calls === undefined || encodedCalls === undefined) return undefined;
  return new BuilderChild({ ...options, builderFd: builder.builderFd, calls, encodedCalls }, native, onInit);
}

function startBwrapChild(options: SandboxProcessOptions, onInit: OnInit): SandboxChild {
  // Opened for each: bwrap reads it from its current position to its end.
  const seccompFd = options.seccompPath === undefined ? undefined : openSync(options.seccompPath, "r");
  try {
    const encodedOptions = encodeArguments(options.options);
    return startBwrap({ ...options, encodedOptions, seccompFd }, options.native, onInit);
  } finally {
    if (seccompFd !== undefined) closeSync(seccompFd);
  }
}

/** First at once, then one to four milliseconds: most sandboxes are dead at the first or second look. */
function pause(attempt: number): Promise<void> {
  return new Promise((resolve) => {
    if (attempt < 2) setImmediate(resolve);
    else setTimeout(resolve, Math.min(attempt - 1, 4));
  });
}
