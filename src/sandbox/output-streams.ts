// stdout and stderr of one process: pipes that the runner empties into two files, with one limit for both.
//
// Invariant: the files hold exactly what the process wrote, in order, up to the limit and never a byte more; reaching
// the limit is reported, never silent. Real pipes owned by the process's user, because anything else breaks
// `echo > /dev/stdout` (executor measurements 5.1). Where pipes cannot be made the process gets the files themselves;
// then a program that truncates /dev/stdout loses its earlier output, and the limit is checked ten times a second.

import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { Socket } from "node:net";
import type { NativeCalls } from "./native-calls.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface OutputFiles {
  readonly stdoutPath: string;
  readonly stderrPath: string;
  /** Of both together. */
  readonly maxBytes: number;
  /** Called once, when the process wrote more than `maxBytes`. */
  readonly onLimit: () => void;
  /** Called once, when the files could not be written (disk full); what follows is lost. */
  readonly onWriteError: (error: Error) => void;
}

export interface OutputStreams {
  /** Descriptors for the process's 1 and 2. */
  readonly childFds: readonly [number, number];
  /**
   * Lets the output flow into the files. Once; throws when a file exists or cannot be made. Pipes make a file when there
   * is something to write: most actions say nothing, and two files cost more than an answer.
   */
  begin(files: OutputFiles): void;
  /** The process has its copies; ours are closed, so that its end can be seen. */
  releaseChildFds(): void;
  /** Call when every writer is dead. Resolves when all that was written is in the files. */
  drain(): Promise<void>;
  /** What is in both files; after drain(). */
  readonly sizeBytes: number;
  /** The beginning of stderr, at most 4 KiB. */
  stderrHead(): string;
  /** Appends a line of ours to stderr, beyond the limit if need be. */
  appendToStderr(line: string): void;
  close(): void;
}

/** After all writers are dead a pipe ends at once; this is for a machine that is out of breath. */
const DRAIN_TIMEOUT_MS = 5000;
const FILE_POLL_MS = 100;
const HEAD_BYTES = 4096;

/** Pipes owned by `owner`, which exist before the files do. */
export function openOutputPipes(native: NativeCalls, owner: SlotIdentity | undefined): OutputStreams {
  return new PipedStreams(native, owner);
}

/** The files themselves, for a machine where we cannot make pipes; `begin` must come before `childFds` are used. */
export function openOutputFiles(owner: SlotIdentity | undefined): OutputStreams {
  return new FileStreams(owner);
}

/** Read and write for its owner, appending; it must not exist, so nobody can have planted a link there. */
function createFile(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o644);
}

/** What both ways share: the files. */
abstract class FilePair {
  protected stdoutFd = -1;
  protected stderrFd = -1;

  stderrHead(): string {
    if (this.stderrFd < 0) return "";
    const head = Buffer.alloc(HEAD_BYTES);
    return head.toString("utf8", 0, readSync(this.stderrFd, head, 0, HEAD_BYTES, 0));
  }

  protected closeFiles(): void {
    for (const fd of [this.stdoutFd, this.stderrFd]) if (fd >= 0) closeSync(fd);
    this.stdoutFd = -1;
    this.stderrFd = -1;
  }
}

const STDOUT = 1;
const STDERR = 2;

class PipedStreams extends FilePair implements OutputStreams {
  readonly childFds: readonly [number, number];
  readonly #sockets: readonly [Socket, Socket];
  #files: OutputFiles | undefined;
  #ends: Promise<void>[] = [];
  #remainingBytes = 0;
  #writtenBytes = 0;
  /** The limit struck or a write failed: from here on everything is thrown away. */
  #stopped = false;
  #childFdsOpen = true;
  #closed = false;

  constructor(native: NativeCalls, owner: SlotIdentity | undefined) {
    super();
    const stdout = openPipe(native, owner);
    const stderr = openPipe(native, owner);
    this.childFds = [stdout.writeFd, stderr.writeFd];
    this.#sockets = [stdout.socket, stderr.socket];
  }

  begin(files: OutputFiles): void {
    for (const path of [files.stdoutPath, files.stderrPath]) {
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw new Error(`EEXIST: ${path} exists already`);
    }
    this.#files = files;
    this.#remainingBytes = files.maxBytes;
    const [stdout, stderr] = this.#sockets;
    this.#ends = [this.#flow(stdout, STDOUT), this.#flow(stderr, STDERR)];
  }

  get sizeBytes(): number {
    return this.#writtenBytes;
  }

  appendToStderr(line: string): void {
    this.#write(STDERR, Buffer.from(`${line}\n`));
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

  /** Resolves when the last writer is gone. */
  #flow(socket: Socket, stream: typeof STDOUT | typeof STDERR): Promise<void> {
    return new Promise((resolve) => {
      socket.on("error", () => resolve()); // whatever was written before has arrived
      socket.on("close", () => resolve());
      socket.on("data", (chunk: Buffer) => this.#copy(stream, chunk));
    });
  }

  #copy(stream: typeof STDOUT | typeof STDERR, chunk: Buffer): void {
    if (this.#closed || this.#stopped) return;
    const kept = chunk.subarray(0, this.#remainingBytes);
    this.#remainingBytes -= kept.length;
    try {
      this.#write(stream, kept);
    } catch (error) {
      this.#stopped = true;
      this.#files?.onWriteError(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    if (kept.length < chunk.length) {
      this.#stopped = true;
      this.#files?.onLimit();
    }
  }

  #write(stream: typeof STDOUT | typeof STDERR, bytes: Buffer): void {
    if (bytes.length === 0 || this.#files === undefined) return;
    if (stream === STDOUT && this.stdoutFd < 0) this.stdoutFd = createFile(this.#files.stdoutPath);
    if (stream === STDERR && this.stderrFd < 0) this.stderrFd = createFile(this.#files.stderrPath);
    const fd = stream === STDOUT ? this.stdoutFd : this.stderrFd;
    for (let offset = 0; offset < bytes.length;) {
      const count = writeSync(fd, bytes, offset);
      offset += count;
      this.#writtenBytes += count;
    }
  }
}

/** Returns both ends; nothing is read before somebody listens. */
function openPipe(native: NativeCalls, owner: SlotIdentity | undefined): { writeFd: number; socket: Socket } {
  const { readFd, writeFd } = native.pipe();
  // Opening /dev/stdout checks the pipe's owner, who is otherwise us.
  if (owner !== undefined) fchownSync(writeFd, owner.uid, owner.gid);
  const socket = new Socket({ fd: readFd, readable: true, writable: false });
  socket.on("error", () => undefined);
  return { writeFd, socket };
}

class FileStreams extends FilePair implements OutputStreams {
  readonly #owner: SlotIdentity | undefined;
  #files: OutputFiles | undefined;
  #timer: NodeJS.Timeout | undefined;
  #limited = false;

  constructor(owner: SlotIdentity | undefined) {
    super();
    this.#owner = owner;
  }

  get childFds(): readonly [number, number] {
    return [this.stdoutFd, this.stderrFd];
  }

  get sizeBytes(): number {
    return fstatSync(this.stdoutFd).size + fstatSync(this.stderrFd).size;
  }

  appendToStderr(line: string): void {
    writeSync(this.stderrFd, `${line}\n`);
  }

  begin(files: OutputFiles): void {
    this.stdoutFd = createFile(files.stdoutPath);
    this.stderrFd = createFile(files.stderrPath);
    this.#files = files;
    const owner = this.#owner;
    if (owner !== undefined) for (const fd of this.childFds) fchownSync(fd, owner.uid, owner.gid);
    this.#timer = setInterval(() => this.#checkLimit(), FILE_POLL_MS);
  }

  releaseChildFds(): void {
    // they are the files themselves, read again at the end
  }

  async drain(): Promise<void> {
    this.#checkLimit();
    // Only now: what is cut while somebody writes is followed by more, and then the middle is missing.
    if (this.#limited && this.#files !== undefined) this.#cut(this.#files.maxBytes);
  }

  close(): void {
    clearInterval(this.#timer);
    this.closeFiles();
  }

  #checkLimit(): void {
    const files = this.#files;
    if (files === undefined || this.#limited) return;
    if (this.sizeBytes <= files.maxBytes) return;
    this.#limited = true;
    files.onLimit();
  }

  #cut(maxBytes: number): void {
    const stdoutBytes = Math.min(fstatSync(this.stdoutFd).size, maxBytes);
    ftruncateSync(this.stdoutFd, stdoutBytes);
    ftruncateSync(this.stderrFd, Math.min(fstatSync(this.stderrFd).size, maxBytes - stdoutBytes));
  }
}
