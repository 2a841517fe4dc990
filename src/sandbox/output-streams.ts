// stdout and stderr of one process: pipes that the runner empties into two files, with one limit for both.
//
// Invariant: the files hold exactly what the process wrote, in order, up to the limit and never a byte more; reaching
// the limit is reported, never silent. Real pipes owned by the process's user, because anything else breaks
// `echo > /dev/stdout` (executor measurements 5.1). Where pipes cannot be made the process gets the files themselves;
// then a program that truncates /dev/stdout loses its earlier output, and the limit is checked ten times a second.

import { closeSync, constants, fchownSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import type { NativeCalls } from "./native-calls.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface OutputStreamsOptions {
  readonly stdoutPath: string;
  readonly stderrPath: string;
  readonly maxBytes: number;
  readonly owner: SlotIdentity | undefined;
  readonly native: NativeCalls | undefined;
  /** Called once, when the process wrote more than `maxBytes`. */
  readonly onLimit: () => void;
  /** Called once, when the files could not be written (disk full); what follows is lost. */
  readonly onWriteError: (error: Error) => void;
}

export interface OutputStreams {
  /** Descriptors for the process's 1 and 2. */
  readonly childFds: readonly [number, number];
  /** The process has its copies; ours are closed, so that its end can be seen. */
  releaseChildFds(): void;
  /** Call when every writer is dead. Resolves when all that was written is in the files. */
  drain(): Promise<void>;
  /** The beginning of stderr, at most 4 KiB. */
  stderrHead(): string;
  /** Empties both files: what is in them came from the sandbox, not from the action. */
  discard(): void;
  /** Appends a line of ours to stderr, beyond the limit if need be. */
  appendToStderr(line: string): void;
  close(): void;
}

/** After all writers are dead a pipe ends at once; this is for a machine that is out of breath. */
const DRAIN_TIMEOUT_MS = 5000;
const FILE_POLL_MS = 100;
const HEAD_BYTES = 4096;

export function openOutputStreams(options: OutputStreamsOptions): OutputStreams {
  const stdoutFd = createFile(options.stdoutPath);
  try {
    const stderrFd = createFile(options.stderrPath);
    try {
      const { native } = options;
      return native === undefined
        ? new FileStreams(stdoutFd, stderrFd, options)
        : new PipedStreams(stdoutFd, stderrFd, options, native);
    } catch (error) {
      closeSync(stderrFd);
      throw error;
    }
  } catch (error) {
    closeSync(stdoutFd);
    throw error;
  }
}

/** Read and write for its owner, appending; it must not exist, so nobody can have planted a link there. */
function createFile(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o644);
}

/** What both ways share: the files. */
abstract class FilePair {
  protected readonly stdoutFd: number;
  protected readonly stderrFd: number;

  constructor(stdoutFd: number, stderrFd: number) {
    this.stdoutFd = stdoutFd;
    this.stderrFd = stderrFd;
  }

  stderrHead(): string {
    const head = Buffer.alloc(HEAD_BYTES);
    return head.toString("utf8", 0, readSync(this.stderrFd, head, 0, HEAD_BYTES, 0));
  }

  discard(): void {
    ftruncateSync(this.stdoutFd, 0);
    ftruncateSync(this.stderrFd, 0);
  }

  appendToStderr(line: string): void {
    writeSync(this.stderrFd, `${line}\n`);
  }

  protected closeFiles(): void {
    closeSync(this.stdoutFd);
    closeSync(this.stderrFd);
  }
}

class PipedStreams extends FilePair implements OutputStreams {
  readonly childFds: readonly [number, number];
  readonly #sockets: Socket[] = [];
  readonly #ends: Promise<void>[] = [];
  readonly #options: OutputStreamsOptions;
  #remainingBytes: number;
  /** The limit struck or a write failed: from here on everything is thrown away. */
  #stopped = false;
  #childFdsOpen = true;
  #closed = false;

  constructor(stdoutFd: number, stderrFd: number, options: OutputStreamsOptions, native: NativeCalls) {
    super(stdoutFd, stderrFd);
    this.#remainingBytes = options.maxBytes;
    this.#options = options;
    this.childFds = [this.#openPipe(stdoutFd, native), this.#openPipe(stderrFd, native)];
  }

  releaseChildFds(): void {
    if (!this.#childFdsOpen) return;
    this.#childFdsOpen = false;
    for (const fd of this.childFds) closeSync(fd);
  }

  async drain(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, DRAIN_TIMEOUT_MS);
    });
    await Promise.race([Promise.all(this.#ends), timeout]);
    clearTimeout(timer);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.releaseChildFds();
    for (const socket of this.#sockets) socket.destroy();
    this.closeFiles();
  }

  /** Returns the writing end of a pipe whose other end is copied into `fileFd`. */
  #openPipe(fileFd: number, native: NativeCalls): number {
    const { owner } = this.#options;
    const { readFd, writeFd } = native.pipe();
    // Opening /dev/stdout checks the pipe's owner, who is otherwise us.
    if (owner !== undefined) fchownSync(writeFd, owner.uid, owner.gid);
    const socket = new Socket({ fd: readFd, readable: true, writable: false });
    socket.on("data", (chunk: Buffer) => this.#copy(fileFd, chunk));
    this.#ends.push(
      new Promise((resolve) => {
        socket.on("error", () => resolve()); // whatever was written before has arrived
        socket.on("close", () => resolve());
      }),
    );
    this.#sockets.push(socket);
    return writeFd;
  }

  #copy(fileFd: number, chunk: Buffer): void {
    if (this.#closed || this.#stopped) return;
    const kept = chunk.subarray(0, this.#remainingBytes);
    this.#remainingBytes -= kept.length;
    try {
      for (let offset = 0; offset < kept.length;) offset += writeSync(fileFd, kept, offset);
    } catch (error) {
      this.#stopped = true;
      this.#options.onWriteError(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    if (kept.length < chunk.length) {
      this.#stopped = true;
      this.#options.onLimit();
    }
  }
}

class FileStreams extends FilePair implements OutputStreams {
  readonly childFds: readonly [number, number];
  readonly #maxBytes: number;
  readonly #onLimit: () => void;
  readonly #timer: NodeJS.Timeout;
  #limited = false;
  #closed = false;

  constructor(stdoutFd: number, stderrFd: number, options: OutputStreamsOptions) {
    super(stdoutFd, stderrFd);
    const { owner } = options;
    if (owner !== undefined) for (const fd of [stdoutFd, stderrFd]) fchownSync(fd, owner.uid, owner.gid);
    this.childFds = [stdoutFd, stderrFd];
    this.#maxBytes = options.maxBytes;
    this.#onLimit = options.onLimit;
    this.#timer = setInterval(() => this.#checkLimit(), FILE_POLL_MS);
  }

  releaseChildFds(): void {
    // they are the files themselves, read again at the end
  }

  async drain(): Promise<void> {
    this.#checkLimit();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.closeFiles();
  }

  #checkLimit(): void {
    const stdoutBytes = fstatSync(this.stdoutFd).size;
    const stderrBytes = fstatSync(this.stderrFd).size;
    if (this.#limited || stdoutBytes + stderrBytes <= this.#maxBytes) return;
    this.#limited = true;
    ftruncateSync(this.stdoutFd, Math.min(stdoutBytes, this.#maxBytes));
    ftruncateSync(this.stderrFd, Math.max(0, Math.min(stderrBytes, this.#maxBytes - stdoutBytes)));
    this.#onLimit();
  }
}
