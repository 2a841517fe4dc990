// The few system calls Node has no name for, reached through node:ffi where it works.
//
// Everything here is optional: `loadNativeCalls()` returns undefined when FFI is absent or forbidden, and every caller
// has a way without it (slower, or less exact; the caller says which). Only the runner process calls this.
// Source: Linux x86-64 and arm64 ABI (identical layout of struct rusage on both), executor measurements 5.2 to 5.4.

import { constants, writeSync } from "node:fs";
import { bindNativeSpawn, type NativeSpawn } from "./native-spawn.ts";

export interface NativeCalls extends NativeSpawn {
  /** A real pipe (Node's own "pipes" are sockets, which `echo > /dev/stdout` cannot open); both ends close on exec. */
  pipe(): Pipe;
  /** The same, where neither end ever waits. */
  nonBlockingPipe(): Pipe;
  /** An anonymous file with that content, to be read from its start; closes on exec. */
  memoryFile(content: Uint8Array): number;
  /** Orphans of our descendants become our children, so that their end can be waited for. False when refused. */
  becomeSubreaper(): boolean;
  /** Reaps `pid` when it has ended. "not-a-child" when there is no such child of ours. */
  reap(pid: number): ReapedProcess | "running" | "not-a-child";
  /** Reaps every child of ours in that process group that has ended. */
  reapGroup(processGroup: number): void;
}

export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

export interface ReapedProcess {
  /** What ended it; 0 when it exited. */
  readonly signal: number;
  readonly userMs: number;
  readonly systemMs: number;
  /** Of the largest single process. */
  readonly peakMemoryBytes: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
}

const PR_SET_CHILD_SUBREAPER = 36;
const O_CLOEXEC = 0o2000000;
const MFD_CLOEXEC = 1;
const WNOHANG = 1;
const WALL = 0x40000000; // also children that were cloned without SIGCHLD
const RUSAGE_BYTES = 144;
const BLOCK_BYTES = 512; // the unit of ru_inblock and ru_oublock

/** Returns the calls, or undefined when this Node cannot make them. */
export function loadNativeCalls(): NativeCalls | undefined {
  try {
    return bindNativeCalls();
  } catch {
    return undefined; // no FFI here: the callers' fallbacks take over
  }
}

function bindNativeCalls(): NativeCalls | undefined {
  const ffi = withoutExperimentalWarning(() => process.getBuiltinModule("node:ffi"));
  if (ffi === undefined) return undefined;
  const { functions } = ffi.dlopen("libc.so.6", {
    pipe2: { arguments: ["pointer", "int32"], return: "int32" },
    memfd_create: { arguments: ["pointer", "uint32"], return: "int32" },
    prctl: { arguments: ["int32", "uint64", "uint64", "uint64", "uint64"], return: "int32" },
    wait4: { arguments: ["int32", "pointer", "int32", "pointer"], return: "int32" },
  });
  const openPipe = (flags: number): Pipe => {
    const fds = Buffer.alloc(8);
    if (functions.pipe2(fds, flags) !== 0) throw new Error("pipe2 failed: too many open files?");
    return { readFd: fds.readInt32LE(0), writeFd: fds.readInt32LE(4) };
  };
  const spawn = bindNativeSpawn(ffi);
  if (spawn === undefined) return undefined;
  return {
    ...spawn,
    pipe: () => openPipe(O_CLOEXEC),
    nonBlockingPipe: () => openPipe(O_CLOEXEC | constants.O_NONBLOCK),
    memoryFile(content) {
      const fd = functions.memfd_create(Buffer.from("ledge\0"), MFD_CLOEXEC);
      if (fd < 0) throw new Error("memfd_create failed: too many open files?");
      writeSync(fd, content, 0, content.length, 0);
      return fd;
    },
    becomeSubreaper: () => functions.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) === 0,
    reap(pid) {
      const status = Buffer.alloc(4);
      const usage = Buffer.alloc(RUSAGE_BYTES);
      const reaped = functions.wait4(pid, status, WNOHANG | WALL, usage);
      if (reaped === 0) return "running";
      return reaped === pid ? decodeUsage(usage, status.readInt32LE(0) & 0x7f) : "not-a-child";
    },
    reapGroup(processGroup) {
      while (functions.wait4(-processGroup, null, WNOHANG | WALL, null) > 0);
    },
  };
}

function decodeUsage(usage: Buffer, signal: number): ReapedProcess {
  const word = (index: number) => Number(usage.readBigInt64LE(index * 8));
  return {
    signal,
    userMs: word(0) * 1000 + word(1) / 1000,
    systemMs: word(2) * 1000 + word(3) / 1000,
    peakMemoryBytes: word(4) * 1024,
    readBytes: word(11) * BLOCK_BYTES,
    writtenBytes: word(12) * BLOCK_BYTES,
  };
}

/** Loading node:ffi prints a warning meant for developers, into the operator's log; it says nothing they could act on. */
function withoutExperimentalWarning<T>(load: () => T): T {
  const emitWarning = process.emitWarning.bind(process);
  process.emitWarning = () => undefined;
  try {
    return load();
  } finally {
    process.emitWarning = emitWarning;
  }
}
