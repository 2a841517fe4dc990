// One bwrap from fork to settled: started with the launcher in it, given its command, killed, known to be dead.
//
//   spawn ──► "child-pid" ──► launcher waits (limits set, handle held) ──► launch() ──► exit ──► settled
//                 │                                                            │
//                 └────────────────── kill() is right at any time ◄────────────┘
//
// Invariant: bwrap's exit is not the end. Its monitor returns while processes inside may still write, so `settle` waits
// for the init of the pid namespace, which ends last of all (executor measurements 5.2). What the limits are and when to
// kill is runner/.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { encodeArguments } from "./bwrap-arguments.ts";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import { encodeLaunchBlock, type LaunchCommand } from "./launcher-block.ts";
import { LAUNCHER_FDS, LaunchStage } from "./launcher-image.ts";
import type { NativeCalls, ReapedProcess } from "./native-calls.ts";
import { killQuietly, OWNER_VARIABLE, ProcessHandle } from "./process-table.ts";
import type { SlotIdentity } from "./slot-identity.ts";

/** Where bwrap finds its own descriptors; 0 to 2 are the action's, LAUNCHER_FDS the launcher's. */
export const BWRAP_FDS = { args: 3, status: 4, seccomp: 8 } as const;

export interface SandboxProcessOptions {
  readonly bwrapPath: string;
  readonly options: readonly string[];
  /** Host path of launcherImage(). */
  readonly launcherPath: string;
  /** Host path of the filter, when `options` name one. */
  readonly seccompPath: string | undefined;
  readonly identity: SlotIdentity | undefined;
  readonly outputFds: readonly [number, number];
  readonly ownerKey: string;
  readonly native: NativeCalls | undefined;
}

/** bwrap's streams end with it, unless something inside the kernel still holds them: then we go on without. */
const STREAM_END_TIMEOUT_MS = 1000;

export class SandboxProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean>;
  readonly #child: ChildProcess;
  readonly #options: SandboxProcessOptions;
  #init: ProcessHandle | undefined;
  #status = "";
  #report = Buffer.alloc(0);
  #exited = false;
  #killed = false;
  #usage: ReapedProcess | undefined;

  constructor(options: SandboxProcessOptions) {
    this.#options = options;
    this.#child = spawnBwrap(options);
    for (const fd of [BWRAP_FDS.args, BWRAP_FDS.status, LAUNCHER_FDS.block, LAUNCHER_FDS.report]) {
      this.#stream(fd)?.on("error", () => undefined); // its exit says more
    }
    this.#stream(BWRAP_FDS.args)?.end(encodeArguments(options.options));
    this.#stream(LAUNCHER_FDS.report)?.on("data", (chunk: Buffer) => {
      this.#report = Buffer.concat([this.#report, chunk]);
    });
    this.ready = this.#watchStatus();
    this.exit = this.#watchExit();
  }

  get initPid(): number | undefined {
    return this.#init?.pid;
  }

  get usage(): ReapedProcess | undefined {
    return this.#usage;
  }

  launch(command: LaunchCommand): void {
    this.#stream(LAUNCHER_FDS.block)?.end(encodeLaunchBlock(command));
  }

  kill(): void {
    this.#killed = true;
    this.#init?.kill();
    const pid = this.#child.pid;
    // bwrap leads a process group of its own, which may hold helpers that started before the pid namespace did.
    if (!this.#exited && pid !== undefined) {
      killQuietly(-pid);
      killQuietly(pid);
    }
  }

  async settle(timeoutMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + timeoutMs;
    for (let attempt = 0; ; attempt++) {
      if (this.#init === undefined || this.#reap(this.#init)) return true;
      // bwrap told its init to die, but a fork bomb dies slowly: every later look comes with another kill.
      if (attempt > 3) this.#init.kill();
      if (performance.now() > deadlineMs) return false;
      await pause(attempt);
    }
  }

  close(): void {
    this.#init?.close();
    this.#init = undefined;
    for (const stream of this.#child.stdio) stream?.destroy();
  }

  #reap(init: ProcessHandle): boolean {
    const reaped = this.#options.native?.reap(init.pid);
    if (reaped === "running") return false;
    if (reaped === undefined || reaped === "not-a-child") return init.hasEnded();
    this.#usage = reaped;
    return true;
  }

  #watchStatus(): Promise<boolean> {
    return new Promise((resolve) => {
      const status = this.#stream(BWRAP_FDS.status);
      status?.setEncoding("latin1");
      status?.on("data", (text: string) => {
        this.#status = (this.#status + text).slice(-4096);
        const pid = /"child-pid":\s*(\d+)/.exec(this.#status)?.[1];
        if (pid === undefined || this.#init !== undefined || this.#exited) return;
        try {
          this.#init = new ProcessHandle(Number(pid));
          if (this.#killed) this.#init.kill();
          resolve(true);
        } catch {
          resolve(false); // gone already
        }
      });
      this.#child.once("close", () => resolve(false));
      this.#child.once("error", () => resolve(false));
    });
  }

  #watchExit(): Promise<ProcessExit> {
    return new Promise((resolve) => {
      this.#child.once("error", (error) => {
        this.#exited = true;
        resolve({ kind: "broken", message: error.message });
      });
      this.#child.once("exit", (_code, signal) => {
        this.#exited = true;
        setTimeout(() => resolve(this.#explainExit(signal)), STREAM_END_TIMEOUT_MS).unref();
      });
      // "close" comes after all streams have ended, so the exit code and the launcher's report have been read.
      this.#child.once("close", (_code, signal) => resolve(this.#explainExit(signal)));
    });
  }

  #explainExit(signal: NodeJS.Signals | null): ProcessExit {
    if (this.#report.length >= 8) {
      const stage = this.#report.readUInt32LE(0) === LaunchStage.EnterDirectory ? "enter-directory" : "execute";
      return { kind: "not-launched", failure: { stage, errno: this.#report.readUInt32LE(4) } };
    }
    const exitCode = /"exit-code":\s*(\d+)/.exec(this.#status)?.[1];
    if (exitCode !== undefined) return { kind: "exited", exitCode: Number(exitCode) };
    return { kind: "broken", message: signal === null ? undefined : `The sandbox was ended by ${signal} from outside` };
  }

  #stream(fd: number): Duplex | undefined {
    const stream = this.#child.stdio[fd];
    return stream instanceof Socket ? stream : undefined;
  }
}

function spawnBwrap(options: SandboxProcessOptions): ChildProcess {
  const { identity } = options;
  const opened: number[] = [];
  const open = (path: string) => {
    const fd = openSync(path, "r");
    opened.push(fd);
    return fd;
  };
  try {
    const launcherFd = open(options.launcherPath);
    const seccomp = options.seccompPath === undefined ? [] : [open(options.seccompPath)];
    const launcherInside = `/proc/self/fd/${LAUNCHER_FDS.image}`;
    return spawn(options.bwrapPath, ["--args", String(BWRAP_FDS.args), "--", launcherInside], {
      cwd: "/",
      detached: true,
      env: { [OWNER_VARIABLE]: options.ownerKey },
      ...(identity === undefined ? {} : { uid: identity.uid, gid: identity.gid }),
      // In the order of BWRAP_FDS and LAUNCHER_FDS.
      stdio: ["ignore", ...options.outputFds, "pipe", "pipe", "pipe", "pipe", launcherFd, ...seccomp],
    });
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/** First at once, then one to four milliseconds: most sandboxes are dead at the first or second look. */
function pause(attempt: number): Promise<void> {
  return new Promise((resolve) => {
    if (attempt < 2) setImmediate(resolve);
    else setTimeout(resolve, Math.min(attempt - 1, 4));
  });
}
