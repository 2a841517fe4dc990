// One bwrap from fork to settled: started with the launcher in it, given its command, killed, known to be dead.
//
//   spawn ──► "child-pid" ──► launcher waits (limits set, handle held) ──► launch() ──► exit ──► settled
//                 │                                                            │
//                 └────────────────── kill() is right at any time ◄────────────┘
//
// Invariant: bwrap's exit is not the end. Its monitor returns while processes inside may still write, so `settle` waits
// for the init of the pid namespace, which ends last of all (executor measurements 5.2). What the limits are and when to
// kill is runner/.

import { closeSync, openSync } from "node:fs";
import { encodeArguments } from "./bwrap-arguments.ts";
import { type BwrapChild, startBwrap } from "./bwrap-child.ts";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import { encodeLaunchBlock, type LaunchCommand } from "./launcher-block.ts";
import { LaunchStage } from "./launcher-image.ts";
import type { NativeCalls, ReapedProcess } from "./native-calls.ts";
import { groupExists, killQuietly, ProcessHandle } from "./process-table.ts";
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
}

export class SandboxProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean>;
  readonly #child: BwrapChild;
  readonly #native: NativeCalls | undefined;
  #init: ProcessHandle | undefined;
  #status = "";
  #exited = false;
  #killed = false;
  #usage: ReapedProcess | undefined;
  #resolveReady: (ready: boolean) => void = () => undefined;

  /** Throws when not even bwrap can be started. */
  constructor(options: SandboxProcessOptions) {
    this.#native = options.native;
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    this.#child = openAndStart(options, (text) => this.#receiveStatus(text));
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

  #receiveStatus(text: string): void {
    this.#status = (this.#status + text).slice(-4096);
    const pid = /"child-pid":\s*(\d+)/.exec(this.#status)?.[1];
    if (pid === undefined || this.#init !== undefined || this.#exited) return;
    try {
      this.#init = new ProcessHandle(Number(pid));
      if (this.#killed) this.#init.kill();
      this.#resolveReady(true);
    } catch {
      this.#resolveReady(false); // gone already
    }
  }

  async #watchExit(): Promise<ProcessExit> {
    const { signal, error } = await this.#child.ended;
    this.#exited = true;
    this.#resolveReady(false);
    if (error !== undefined) return { kind: "broken", message: error.message };
    const exitCode = /"exit-code":\s*(\d+)/.exec(this.#status)?.[1];
    const report = exitCode === "127" ? this.#child.readReport() : Buffer.alloc(0);
    if (report.length === 8) {
      const stage = report.readUInt32LE(0) === LaunchStage.EnterDirectory ? "enter-directory" : "execute";
      return { kind: "not-launched", failure: { stage, errno: report.readUInt32LE(4) } };
    }
    if (exitCode !== undefined) return { kind: "exited", exitCode: Number(exitCode) };
    return {
      kind: "broken",
      message: signal === undefined ? undefined : `The sandbox was ended by ${signal} from outside`,
    };
  }
}

function openAndStart(options: SandboxProcessOptions, onStatus: (text: string) => void): BwrapChild {
  // Opened for each: bwrap reads it from its current position to its end.
  const seccompFd = options.seccompPath === undefined ? undefined : openSync(options.seccompPath, "r");
  try {
    const encodedOptions = encodeArguments(options.options);
    return startBwrap({ ...options, encodedOptions, seccompFd }, options.native, onStatus);
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
