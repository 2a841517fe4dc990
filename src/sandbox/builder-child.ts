// A sandbox made by our own builder: started with its program, its first process known, its exit code read.
//
//   status pipe:  pid as text, PID_MESSAGE_BYTES ──► … ──► exit code, 4 bytes with EXIT_MARK ──► end
//
// The first process is our child, not the builder's, so the builder ends at once and is a zombie until the sandbox has
// ended: its process group cannot become anybody else's while we may kill it. The end of the pipe without an exit code
// means that the setup failed (the report says where) or that somebody killed the first process.
// An action can write into the pipe through /proc/1/fd: nothing but its own exit code can come of that.

import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { getSystemErrorMessage } from "node:util";
import { EXIT_MARK, SETUP_STAGE } from "./builder-image.ts";
import { LauncherPipes, reapSoon } from "./launcher-pipes.ts";
import type { NativeCalls } from "./native-calls.ts";
import { OWNER_VARIABLE } from "./process-table.ts";
import type { OnInit, SandboxChild, SandboxEnd } from "./sandbox-child.ts";
import type { SetupCall } from "./setup-block.ts";
import { LAUNCHER_FDS } from "./launcher-image.ts";
import { PID_MESSAGE_BYTES } from "./setup-program.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface BuilderChildOptions {
  /** An open file with builderImage() in it; borrowed. */
  readonly builderFd: number;
  readonly calls: readonly SetupCall[];
  /** `calls` as encodeSetup() makes them. */
  readonly encodedCalls: Buffer;
  readonly stdinFd: number;
  readonly outputFds: readonly [number, number];
  readonly identity: SlotIdentity | undefined;
  readonly ownerKey: string;
}

const EXIT_BYTES = 4;

export class BuilderChild implements SandboxChild {
  readonly pid: number;
  readonly ended: Promise<SandboxEnd>;
  readonly #native: NativeCalls;
  readonly #calls: readonly SetupCall[];
  readonly #pipes: LauncherPipes;
  readonly #status: Socket;
  readonly #onInit: OnInit;
  #told: Buffer = Buffer.alloc(0);
  #initTold = false;

  /** Throws when the builder cannot be started. */
  constructor(options: BuilderChildOptions, native: NativeCalls, onInit: OnInit) {
    this.#native = native;
    this.#calls = options.calls;
    this.#onInit = onInit;
    const programFd = native.memoryFile(options.encodedCalls);
    const status = native.pipe();
    this.#pipes = new LauncherPipes(native);
    const { block, report } = this.#pipes.childFds;
    try {
      this.pid = native.spawn({
        // Not by its path, which the user of the sandbox may be unable to reach.
        path: `/proc/self/fd/${LAUNCHER_FDS.image}`,
        arguments: ["ledge-sandbox"],
        environment: [`${OWNER_VARIABLE}=${options.ownerKey}`],
        // In the order of BUILDER_FDS and LAUNCHER_FDS.
        fds: [options.stdinFd, ...options.outputFds, programFd, status.writeFd, block, report, options.builderFd],
        identity: options.identity,
      });
    } catch (error) {
      closeSync(status.readFd);
      this.#pipes.close();
      throw error;
    } finally {
      for (const fd of [programFd, status.writeFd]) closeSync(fd);
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

  #watch(): Promise<SandboxEnd> {
    return new Promise((resolve) => {
      this.#status.on("data", (chunk: Buffer) => this.#receive(chunk));
      this.#status.on("error", () => undefined); // its end says more
      this.#status.once("close", () => void this.#end().then(resolve));
    });
  }

  #receive(chunk: Buffer): void {
    // The beginning and the latest words: what an action writes into it must not fill our memory.
    const all = Buffer.concat([this.#told, chunk]);
    this.#told = all.length <= 4096 ? all : Buffer.concat([all.subarray(0, PID_MESSAGE_BYTES), all.subarray(-64)]);
    if (this.#initTold || this.#told.length < PID_MESSAGE_BYTES) return;
    this.#initTold = true;
    this.#onInit(Number(this.#told.toString("latin1", 0, PID_MESSAGE_BYTES).replaceAll("\0", "")));
  }

  async #end(): Promise<SandboxEnd> {
    await reapSoon(this.#native, this.pid);
    const exitCode = this.#exitCode();
    const setupFailure = exitCode === undefined ? this.#setupFailure() : undefined;
    return { exitCode, signal: undefined, error: undefined, setupFailure };
  }

  #exitCode(): number | undefined {
    if (this.#told.length < PID_MESSAGE_BYTES + EXIT_BYTES) return undefined;
    const last = this.#told.subarray(-EXIT_BYTES);
    return last[EXIT_BYTES - 1] === EXIT_MARK ? last[0] : undefined;
  }

  #setupFailure(): string | undefined {
    const report = this.readReport();
    if (report.length !== 8 || report.readUInt32LE(0) < SETUP_STAGE) return undefined;
    const call = this.#calls[report.readUInt32LE(0) - SETUP_STAGE];
    return `Cannot ${call?.purpose ?? "make the sandbox"}: ${getSystemErrorMessage(-report.readUInt32LE(4))}`;
  }
}
