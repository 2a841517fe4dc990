// The two pipes between the runner and a launcher: its block goes in, its report comes out.

import { closeSync, readSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import type { NativeCalls, ReapedProcess } from "./native-calls.ts";

/** A pipe holds this much without anybody reading. */
const PIPE_BYTES = 65_536;
const REPORT_BYTES = 8;

export class LauncherPipes {
  /** The launcher's ends; close them with releaseChildFds() once it has them. */
  readonly childFds: { readonly block: number; readonly report: number };
  readonly #reportFd: number;
  #blockFd: number | undefined;
  #blockSocket: Socket | undefined;
  #closed = false;

  constructor(native: NativeCalls) {
    const block = native.pipe();
    const report = native.nonBlockingPipe();
    this.childFds = { block: block.readFd, report: report.writeFd };
    this.#blockFd = block.writeFd;
    this.#reportFd = report.readFd;
  }

  releaseChildFds(): void {
    closeSync(this.childFds.block);
    closeSync(this.childFds.report);
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

  withdrawBlock(): void {
    if (this.#blockFd !== undefined) closeSync(this.#blockFd);
    this.#blockFd = undefined;
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
    this.#blockSocket?.destroy();
    this.withdrawBlock();
    closeSync(this.#reportFd);
  }
}

/** A process is a zombie some µs after its descriptors have closed; one that does not become one is held by the kernel. */
const REAP_ATTEMPTS = 500;

/** Reaps a child of ours whose descriptors have closed; undefined when it is no child or does not end. */
export async function reapSoon(native: NativeCalls, pid: number): Promise<ReapedProcess | undefined> {
  for (let attempt = 0; attempt < REAP_ATTEMPTS; attempt++) {
    const reaped = native.reap(pid);
    if (reaped === "not-a-child") return undefined;
    if (reaped !== "running") return reaped;
    if (attempt < 3) await new Promise((resolve) => setImmediate(resolve));
    else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return undefined;
}
