// One bwrap from fork to settled: start it, hold it at the gate, let it go, kill it, know when everything in it is dead.
//
//   spawn ──► "child-pid" ──► gate (limits set, handle held) ──► release() ──► exit ──► settled
//                 │                                                 │
//                 └──────────── kill() is right at any time ◄───────┘
//
// Invariant: bwrap's exit is not the end. Its monitor returns while processes inside may still write, so `settle` waits
// for the init of the pid namespace, which ends last of all (executor measurements 5.2). What the limits are and when to
// kill is runner/.

import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { encodeArguments } from "./bwrap-arguments.ts";
import type { IsolatedProcess, ProcessExit } from "./isolated-process.ts";
import type { NativeCalls, ReapedProcess } from "./native-calls.ts";
import { killQuietly, OWNER_VARIABLE, ProcessHandle } from "./process-table.ts";
import type { SlotIdentity } from "./slot-identity.ts";

/** Where the descriptors lie in bwrap; 0 to 2 are the action's. */
export const BWRAP_FDS = { args: 3, status: 4, block: 5 } as const;

export interface SandboxProcessOptions {
  readonly bwrapPath: string;
  readonly options: readonly string[];
  readonly command: readonly string[];
  readonly identity: SlotIdentity | undefined;
  readonly outputFds: readonly [number, number];
  readonly ownerKey: string;
  readonly native: NativeCalls | undefined;
}

/** bwrap's status stream ends with it, unless something inside the kernel still holds it: then we go on without. */
const STATUS_END_TIMEOUT_MS = 1000;

export class SandboxProcess implements IsolatedProcess {
  readonly exit: Promise<ProcessExit>;
  readonly ready: Promise<boolean>;
  readonly #child: ChildProcess;
  readonly #native: NativeCalls | undefined;
  #init: ProcessHandle | undefined;
  #status = "";
  #exited = false;
  #killed = false;
  #usage: ReapedProcess | undefined;

  constructor(options: SandboxProcessOptions) {
    this.#native = options.native;
    const { identity } = options;
    this.#child = spawn(options.bwrapPath, ["--args", String(BWRAP_FDS.args), "--", ...options.command], {
      cwd: "/",
      detached: true,
      env: { [OWNER_VARIABLE]: options.ownerKey },
      ...(identity === undefined ? {} : { uid: identity.uid, gid: identity.gid }),
      stdio: ["ignore", ...options.outputFds, "pipe", "pipe", "pipe"],
    });
    for (const fd of Object.values(BWRAP_FDS)) this.#stream(fd)?.on("error", () => undefined); // its exit says more
    this.#stream(BWRAP_FDS.args)?.end(encodeArguments(options.options));
    this.ready = this.#watchStatus();
    this.exit = this.#watchExit();
  }

  get initPid(): number | undefined {
    return this.#init?.pid;
  }

  release(): void {
    this.#stream(BWRAP_FDS.block)?.end("x");
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

  get usage(): ReapedProcess | undefined {
    return this.#usage;
  }

  close(): void {
    this.#init?.close();
    this.#init = undefined;
    for (const fd of Object.values(BWRAP_FDS)) this.#stream(fd)?.destroy();
  }

  #reap(init: ProcessHandle): boolean {
    const reaped = this.#native?.reap(init.pid);
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
      const finish = (signal: NodeJS.Signals | null) => {
        const exitCode = /"exit-code":\s*(\d+)/.exec(this.#status)?.[1];
        resolve({ exitCode: exitCode === undefined ? undefined : Number(exitCode), signal, error: undefined });
      };
      this.#child.once("error", (error) => {
        this.#exited = true;
        resolve({ exitCode: undefined, signal: null, error });
      });
      this.#child.once("exit", (_code, signal) => {
        this.#exited = true;
        setTimeout(() => finish(signal), STATUS_END_TIMEOUT_MS).unref();
      });
      // "close" comes after the status stream has ended, so the exit code in it has been read.
      this.#child.once("close", (_code, signal) => finish(signal));
    });
  }

  #stream(fd: number): Duplex | undefined {
    const stream = this.#child.stdio[fd];
    return stream instanceof Socket ? stream : undefined;
  }
}

/** First at once, then one to four milliseconds: most sandboxes are dead at the first or second look. */
function pause(attempt: number): Promise<void> {
  return new Promise((resolve) => {
    if (attempt < 2) setImmediate(resolve);
    else setTimeout(resolve, Math.min(attempt - 1, 4));
  });
}
