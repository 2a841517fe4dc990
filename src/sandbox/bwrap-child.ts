// The bwrap process itself: started with its descriptors in their places, its status read, its end seen.
//
// Two ways with one behaviour: posix_spawn and bare pipes where node:ffi works (a third of the cost), else Node's own
// child process. What the status says and when everything inside is dead is sandbox-process.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import { LAUNCHER_FDS } from "./launcher-image.ts";
import { LauncherPipes, reapSoon } from "./launcher-pipes.ts";
import type { NativeCalls } from "./native-calls.ts";
import { OWNER_VARIABLE } from "./process-table.ts";
import type { OnInit, SandboxChild, SandboxEnd } from "./sandbox-child.ts";
import type { SlotIdentity } from "./slot-identity.ts";

/** Where bwrap finds its own descriptors; 0 to 2 are the action's, LAUNCHER_FDS the launcher's. */
export const BWRAP_FDS = { args: 3, status: 4, seccomp: 8 } as const;

export interface BwrapChildOptions {
  readonly bwrapPath: string;
  /** As encodeArguments() makes them. */
  readonly encodedOptions: Buffer;
  readonly stdinFd: number;
  readonly outputFds: readonly [number, number];
  readonly launcherFd: number;
  readonly seccompFd: number | undefined;
  readonly identity: SlotIdentity | undefined;
  readonly ownerKey: string;
}

export function startBwrap(options: BwrapChildOptions, native: NativeCalls | undefined, onInit: OnInit): SandboxChild {
  return native === undefined ? new NodeBwrapChild(options, onInit) : new NativeBwrapChild(options, native, onInit);
}

function commandOf({ bwrapPath }: BwrapChildOptions): string[] {
  return [bwrapPath, "--args", String(BWRAP_FDS.args), "--", `/proc/self/fd/${LAUNCHER_FDS.image}`];
}

/** What bwrap says of itself: several JSON documents of one line each. */
class StatusReader {
  readonly #onInit: OnInit;
  #status = "";
  #told = false;

  constructor(onInit: OnInit) {
    this.#onInit = onInit;
  }

  push(text: string): void {
    this.#status = (this.#status + text).slice(-4096);
    const pid = /"child-pid":\s*(\d+)/.exec(this.#status)?.[1];
    if (pid === undefined || this.#told) return;
    this.#told = true;
    this.#onInit(Number(pid));
  }

  get exitCode(): number | undefined {
    const exitCode = /"exit-code":\s*(\d+)/.exec(this.#status)?.[1];
    return exitCode === undefined ? undefined : Number(exitCode);
  }
}

class NativeBwrapChild implements SandboxChild {
  readonly pid: number;
  readonly ended: Promise<SandboxEnd>;
  readonly #native: NativeCalls;
  readonly #pipes: LauncherPipes;
  readonly #status: Socket;
  readonly #reader: StatusReader;

  constructor(options: BwrapChildOptions, native: NativeCalls, onInit: OnInit) {
    this.#native = native;
    this.#reader = new StatusReader(onInit);
    const argsFd = native.memoryFile(options.encodedOptions);
    const status = native.pipe();
    this.#pipes = new LauncherPipes(native);
    const { block, report } = this.#pipes.childFds;
    const seccomp = options.seccompFd === undefined ? [] : [options.seccompFd];
    try {
      this.pid = native.spawn({
        path: options.bwrapPath,
        arguments: commandOf(options),
        environment: [`${OWNER_VARIABLE}=${options.ownerKey}`],
        // In the order of BWRAP_FDS and LAUNCHER_FDS.
        fds: [
          options.stdinFd,
          ...options.outputFds,
          argsFd,
          status.writeFd,
          block,
          report,
          options.launcherFd,
          ...seccomp,
        ],
        identity: options.identity,
      });
    } catch (error) {
      closeSync(status.readFd);
      this.#pipes.close();
      throw error;
    } finally {
      for (const fd of [argsFd, status.writeFd]) closeSync(fd);
      this.#pipes.releaseChildFds();
    }
    this.#status = new Socket({ fd: status.readFd, readable: true, writable: false });
    this.ended = this.#watch();
  }

  writeBlock(block: Buffer): void {
    this.#pipes.writeBlock(block);
  }

  withdrawBlock(): void {
    this.#pipes.withdrawBlock();
  }

  readReport(): Buffer {
    return this.#pipes.readReport();
  }

  close(): void {
    this.#status.destroy();
    this.#pipes.close();
  }

  /** The monitor alone holds the other end of the status pipe, so its end is the monitor's. */
  #watch(): Promise<SandboxEnd> {
    return new Promise((resolve) => {
      this.#status.setEncoding("latin1");
      this.#status.on("data", (text: string) => this.#reader.push(text));
      this.#status.on("error", () => undefined);
      this.#status.once("close", () => void this.#reap().then(resolve));
    });
  }

  async #reap(): Promise<SandboxEnd> {
    const reaped = await reapSoon(this.#native, this.pid);
    const signal = reaped === undefined ? undefined : signalName(reaped.signal);
    return { exitCode: this.#reader.exitCode, signal, error: undefined };
  }
}

function signalName(signal: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === signal)?.[0];
}

/** bwrap's streams end with it, unless something inside the kernel still holds them: then we go on without. */
const STREAM_END_TIMEOUT_MS = 1000;

class NodeBwrapChild implements SandboxChild {
  readonly ended: Promise<SandboxEnd>;
  readonly #child: ChildProcess;
  readonly #reader: StatusReader;
  #report = Buffer.alloc(0);

  constructor(options: BwrapChildOptions, onInit: OnInit) {
    this.#reader = new StatusReader(onInit);
    const [program = "", ...rest] = commandOf(options);
    const { identity, launcherFd, seccompFd } = options;
    const seccomp = seccompFd === undefined ? [] : [seccompFd];
    this.#child = spawn(program, rest, {
      cwd: "/",
      detached: true,
      env: { [OWNER_VARIABLE]: options.ownerKey },
      ...(identity === undefined ? {} : { uid: identity.uid, gid: identity.gid }),
      // In the order of BWRAP_FDS and LAUNCHER_FDS.
      stdio: [options.stdinFd, ...options.outputFds, "pipe", "pipe", "pipe", "pipe", launcherFd, ...seccomp],
    });
    for (const fd of [BWRAP_FDS.args, BWRAP_FDS.status, LAUNCHER_FDS.block, LAUNCHER_FDS.report]) {
      this.#stream(fd)?.on("error", () => undefined); // its end says more
    }
    this.#stream(BWRAP_FDS.args)?.end(options.encodedOptions);
    this.#stream(BWRAP_FDS.status)
      ?.setEncoding("latin1")
      .on("data", (text: string) => this.#reader.push(text));
    this.#stream(LAUNCHER_FDS.report)?.on("data", (chunk: Buffer) => {
      this.#report = Buffer.concat([this.#report, chunk]);
    });
    this.ended = this.#watch();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  writeBlock(block: Buffer): void {
    this.#stream(LAUNCHER_FDS.block)?.end(block);
  }

  withdrawBlock(): void {
    this.#stream(LAUNCHER_FDS.block)?.end();
  }

  readReport(): Buffer {
    return this.#report;
  }

  close(): void {
    for (const stream of this.#child.stdio) stream?.destroy();
  }

  #watch(): Promise<SandboxEnd> {
    return new Promise((resolve) => {
      const finish = (signal: string | null) =>
        resolve({ exitCode: this.#reader.exitCode, signal: signal ?? undefined, error: undefined });
      this.#child.once("error", (error) => resolve({ exitCode: undefined, signal: undefined, error }));
      this.#child.once("exit", (_code, signal) => {
        setTimeout(() => finish(signal), STREAM_END_TIMEOUT_MS).unref();
      });
      // "close" comes after all streams have ended, so status and report have been read.
      this.#child.once("close", (_code, signal) => finish(signal));
    });
  }

  #stream(fd: number): Duplex | undefined {
    const stream = this.#child.stdio[fd];
    return stream instanceof Socket ? stream : undefined;
  }
}
