// The bwrap process itself: started with its descriptors in their places, its status read, its end seen.
//
// Two ways with one behaviour: posix_spawn and bare pipes where node:ffi works (a third of the cost), else Node's own
// child process. What the status says and when everything inside is dead is sandbox-process.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, readSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import { LAUNCHER_FDS } from "./launcher-image.ts";
import type { NativeCalls } from "./native-calls.ts";
import { OWNER_VARIABLE } from "./process-table.ts";
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

export interface BwrapEnd {
  /** What ended bwrap from outside. */
  readonly signal: string | undefined;
  /** It could not even be started. */
  readonly error: Error | undefined;
}

export interface BwrapChild {
  /** undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Never rejects. `onStatus` has been called with everything by then. */
  readonly ended: Promise<BwrapEnd>;
  /** Gives the launcher its block. Once. */
  writeBlock(block: Buffer): void;
  /** What the launcher reported; complete once everything is dead. */
  readReport(): Buffer;
  close(): void;
}

export type OnStatus = (text: string) => void;

export function startBwrap(
  options: BwrapChildOptions,
  native: NativeCalls | undefined,
  onStatus: OnStatus,
): BwrapChild {
  return native === undefined ? new NodeBwrapChild(options, onStatus) : new NativeBwrapChild(options, native, onStatus);
}

function commandOf({ bwrapPath }: BwrapChildOptions): string[] {
  return [bwrapPath, "--args", String(BWRAP_FDS.args), "--", `/proc/self/fd/${LAUNCHER_FDS.image}`];
}

/** A pipe holds this much without anybody reading. */
const PIPE_BYTES = 65_536;
const REPORT_BYTES = 8;
/** A process is a zombie some µs after its descriptors have closed; one that does not become one is held by the kernel. */
const REAP_ATTEMPTS = 500;

class NativeBwrapChild implements BwrapChild {
  readonly pid: number;
  readonly ended: Promise<BwrapEnd>;
  readonly #native: NativeCalls;
  readonly #status: Socket;
  readonly #reportFd: number;
  #blockFd: number | undefined;
  #blockSocket: Socket | undefined;
  #closed = false;

  constructor(options: BwrapChildOptions, native: NativeCalls, onStatus: OnStatus) {
    this.#native = native;
    const argsFd = native.memoryFile(options.encodedOptions);
    const status = native.pipe();
    const block = native.pipe();
    const report = native.nonBlockingPipe();
    const ofTheChild = [argsFd, status.writeFd, block.readFd, report.writeFd];
    const seccomp = options.seccompFd === undefined ? [] : [options.seccompFd];
    try {
      this.pid = native.spawn({
        path: options.bwrapPath,
        arguments: commandOf(options),
        environment: [`${OWNER_VARIABLE}=${options.ownerKey}`],
        fds: [options.stdinFd, ...options.outputFds, ...ofTheChild, options.launcherFd, ...seccomp],
        identity: options.identity,
      });
    } catch (error) {
      for (const fd of [status.readFd, block.writeFd, report.readFd]) closeSync(fd);
      throw error;
    } finally {
      for (const fd of ofTheChild) closeSync(fd);
    }
    this.#blockFd = block.writeFd;
    this.#reportFd = report.readFd;
    this.#status = new Socket({ fd: status.readFd, readable: true, writable: false });
    this.ended = this.#watch(onStatus);
  }

  writeBlock(block: Buffer): void {
    const fd = this.#blockFd;
    if (fd === undefined) return;
    this.#blockFd = undefined;
    if (block.length > PIPE_BYTES) {
      this.#blockSocket = new Socket({ fd, readable: false, writable: true });
      this.#blockSocket.on("error", () => undefined); // the launcher is gone: its end says more
      this.#blockSocket.end(block);
      return;
    }
    try {
      writeSync(fd, block);
    } catch {
      // EPIPE: the launcher is gone, its end says more
    } finally {
      closeSync(fd);
    }
  }

  readReport(): Buffer {
    const report = Buffer.alloc(REPORT_BYTES);
    try {
      return report.subarray(0, readSync(this.#reportFd, report));
    } catch {
      return Buffer.alloc(0);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#status.destroy();
    this.#blockSocket?.destroy();
    if (this.#blockFd !== undefined) closeSync(this.#blockFd);
    closeSync(this.#reportFd);
  }

  /** The monitor alone holds the other end of the status pipe, so its end is the monitor's. */
  #watch(onStatus: OnStatus): Promise<BwrapEnd> {
    return new Promise((resolve) => {
      this.#status.setEncoding("latin1");
      this.#status.on("data", onStatus);
      this.#status.on("error", () => undefined);
      this.#status.once("close", () => void this.#reap().then(resolve));
    });
  }

  async #reap(): Promise<BwrapEnd> {
    for (let attempt = 0; attempt < REAP_ATTEMPTS; attempt++) {
      const reaped = this.#native.reap(this.pid);
      if (reaped === "not-a-child") break;
      if (reaped !== "running") return { signal: signalName(reaped.signal), error: undefined };
      if (attempt < 3) await new Promise((resolve) => setImmediate(resolve));
      else await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return { signal: undefined, error: undefined };
  }
}

function signalName(signal: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === signal)?.[0];
}

/** bwrap's streams end with it, unless something inside the kernel still holds them: then we go on without. */
const STREAM_END_TIMEOUT_MS = 1000;

class NodeBwrapChild implements BwrapChild {
  readonly ended: Promise<BwrapEnd>;
  readonly #child: ChildProcess;
  #report = Buffer.alloc(0);

  constructor(options: BwrapChildOptions, onStatus: OnStatus) {
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
    this.#stream(BWRAP_FDS.status)?.setEncoding("latin1").on("data", onStatus);
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

  readReport(): Buffer {
    return this.#report;
  }

  close(): void {
    for (const stream of this.#child.stdio) stream?.destroy();
  }

  #watch(): Promise<BwrapEnd> {
    return new Promise((resolve) => {
      const finish = (signal: string | null) => resolve({ signal: signal ?? undefined, error: undefined });
      this.#child.once("error", (error) => resolve({ signal: undefined, error }));
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
