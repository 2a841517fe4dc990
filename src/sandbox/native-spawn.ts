// Starts a process with posix_spawn, as another user if need be, through node:ffi.
//
// Why: Node forks, which copies the page tables of a runner of 80 MB and costs a millisecond of system time for each
// action; posix_spawn shares the memory until exec and takes a tenth of that (executor measurements 2.1). It cannot
// change the user, so this thread changes its own for the length of the call: Linux keeps credentials per thread, libc's
// wrappers would change all threads, and the bare system calls change only this one. The saved uid stays 0, which is the
// way back; exec replaces it in the child.

import { closeSync } from "node:fs";
import { constants } from "node:os";
import type { SlotIdentity } from "./slot-identity.ts";

export interface NativeSpawnOptions {
  readonly path: string;
  readonly arguments: readonly string[];
  readonly environment: readonly string[];
  /** Descriptors of ours in the order of the child's 0, 1, 2, …; others close. */
  readonly fds: readonly number[];
  /** undefined: as ourselves. */
  readonly identity: SlotIdentity | undefined;
}

export interface NativeSpawn {
  /** Returns the pid. Throws an error with `code` when the process could not be started. */
  spawn(options: NativeSpawnOptions): number;
}

type Ffi = typeof import("node:ffi");

/** System call numbers that libc's wrappers would apply to every thread. */
const CREDENTIAL_CALLS = {
  x64: { setgroups: 116, setresuid: 117, setresgid: 119 },
  arm64: { setgroups: 159, setresuid: 147, setresgid: 149 },
} as const;

/** Larger than both structures are in any libc (80 and 336 bytes in glibc). */
const STRUCTURE_BYTES = 512;
const SIGSET_BYTES = 128;
const SET_SIGNAL_DEFAULTS = 0x04;
const SET_SIGNAL_MASK = 0x08;
const SET_SESSION = 0x80;
const F_DUPFD_CLOEXEC = 1030;
/** Above every descriptor a child gets, so that no dup2 overwrites the source of a later one. */
const LOWEST_SOURCE_FD = 32;

/** Returns undefined where the credentials of a thread cannot be changed by number. */
export function bindNativeSpawn(ffi: Ffi): NativeSpawn | undefined {
  const calls = process.arch === "x64" || process.arch === "arm64" ? CREDENTIAL_CALLS[process.arch] : undefined;
  if (calls === undefined) return undefined;
  const pointer = "pointer" as const;
  const int32 = "int32" as const;
  const { functions: libc } = ffi.dlopen("libc.so.6", {
    posix_spawn: { arguments: [pointer, pointer, pointer, pointer, pointer, pointer], return: int32 },
    posix_spawn_file_actions_init: { arguments: [pointer], return: int32 },
    posix_spawn_file_actions_adddup2: { arguments: [pointer, int32, int32], return: int32 },
    posix_spawn_file_actions_destroy: { arguments: [pointer], return: int32 },
    posix_spawnattr_init: { arguments: [pointer], return: int32 },
    posix_spawnattr_setflags: { arguments: [pointer, "int16"], return: int32 },
    posix_spawnattr_setsigdefault: { arguments: [pointer, pointer], return: int32 },
    posix_spawnattr_setsigmask: { arguments: [pointer, pointer], return: int32 },
    fcntl: { arguments: [int32, int32, int32], return: int32 },
    syscall: { arguments: ["int64", "int64", "int64", "int64"], return: "int64" },
  });
  const attributes = Buffer.alloc(STRUCTURE_BYTES);
  libc.posix_spawnattr_init(attributes);
  libc.posix_spawnattr_setflags(attributes, SET_SIGNAL_DEFAULTS | SET_SIGNAL_MASK | SET_SESSION);
  // Node ignores SIGPIPE, and an ignored signal stays ignored across exec.
  libc.posix_spawnattr_setsigdefault(attributes, Buffer.alloc(SIGSET_BYTES, 0xff));
  libc.posix_spawnattr_setsigmask(attributes, Buffer.alloc(SIGSET_BYTES));

  const credentialCall = (number: number, ...[a, b, c]: [number, number, number]) => {
    if (libc.syscall(BigInt(number), BigInt(a), BigInt(b), BigInt(c)) !== 0n) throw spawnError("EPERM");
  };
  const becomeAnother = ({ uid, gid }: SlotIdentity) => {
    credentialCall(calls.setgroups, 0, 0, 0);
    credentialCall(calls.setresgid, gid, gid, 0);
    credentialCall(calls.setresuid, uid, uid, 0);
  };
  const becomeRootAgain = () => {
    credentialCall(calls.setresuid, 0, 0, 0);
    credentialCall(calls.setresgid, 0, 0, 0);
  };

  return {
    spawn({ path, arguments: words, environment, fds, identity }) {
      const actions = Buffer.alloc(STRUCTURE_BYTES);
      const raised: number[] = [];
      libc.posix_spawn_file_actions_init(actions);
      try {
        for (const [target, fd] of fds.entries()) {
          const source = fd >= LOWEST_SOURCE_FD ? fd : libc.fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_SOURCE_FD);
          if (source < 0) throw spawnError("EMFILE");
          if (source !== fd) raised.push(source);
          libc.posix_spawn_file_actions_adddup2(actions, source, target);
        }
        const program = cString(path);
        const argv = new StringList(ffi, words);
        const envp = new StringList(ffi, environment);
        const pid = Buffer.alloc(4);
        if (identity !== undefined) becomeAnother(identity);
        let error: number;
        try {
          error = libc.posix_spawn(pid, program, actions, attributes, argv.pointers, envp.pointers);
        } finally {
          if (identity !== undefined) becomeRootAgain();
        }
        if (error !== 0) throw spawnError(errnoName(error));
        return pid.readInt32LE(0);
      } finally {
        libc.posix_spawn_file_actions_destroy(actions);
        for (const fd of raised) closeSync(fd);
      }
    },
  };
}

/** A NULL-terminated array of C strings, alive as long as this object is. */
class StringList {
  readonly pointers: Buffer;
  readonly #strings: Buffer[];

  constructor(ffi: Ffi, strings: readonly string[]) {
    this.#strings = strings.map(cString);
    this.pointers = Buffer.alloc((strings.length + 1) * 8);
    for (const [index, string] of this.#strings.entries()) {
      this.pointers.writeBigUInt64LE(ffi.getRawPointer(string), index * 8);
    }
  }
}

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, "utf8");
}

function errnoName(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
}

function spawnError(code: string): Error {
  return Object.assign(new Error(`spawn ${code}`), { code });
}
