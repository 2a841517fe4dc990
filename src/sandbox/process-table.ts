// Finds and ends processes through /proc: sandboxes that an earlier runner left behind, and the end of one process.
//
// Every bwrap is started with OWNER_VARIABLE in its own environment (the action never sees it), whose value stands for the
// runner's build root. That mark survives the death of everybody who knew the pid, and a sandbox dies with its bwrap.

import { createHash } from "node:crypto";
import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";

export const OWNER_VARIABLE = "LEDGE_SANDBOX_OWNER";

/** The mark of the runner of that build root. An action can read it in /proc/1/environ, so it says nothing. */
export function ownerKeyOf(buildRootPath: string): string {
  return createHash("sha256").update(buildRootPath).digest("hex").slice(0, 32);
}

/** A process whose end can be seen without being its parent and without fear of its pid being used again. */
export class ProcessHandle {
  readonly pid: number;
  readonly #statFd: number;

  /** Throws when there is no such process. */
  constructor(pid: number) {
    this.pid = pid;
    this.#statFd = openSync(`/proc/${pid}/stat`, "r");
  }

  /** True once it is gone or a zombie; the init of a pid namespace becomes one only after everybody else in it. */
  hasEnded(): boolean {
    const buffer = Buffer.alloc(512);
    try {
      const text = buffer.toString("latin1", 0, readSync(this.#statFd, buffer, 0, buffer.length, 0));
      const state = text.charAt(text.lastIndexOf(")") + 2);
      return state === "Z" || state === "X";
    } catch {
      return true; // ESRCH: reaped
    }
  }

  kill(): void {
    if (!this.hasEnded()) killQuietly(this.pid);
  }

  close(): void {
    closeSync(this.#statFd);
  }
}

/** Sends SIGKILL; a process that is already gone is what was wanted. A negative pid names a process group. */
export function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // gone already
  }
}

/** True while a process, or a zombie nobody has waited for, is in the process group. */
export function groupExists(processGroup: number): boolean {
  try {
    process.kill(-processGroup, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** Returns the pids of all processes that were started with `variable` set to `value`, zombies excluded. */
export function findMarkedProcesses(variable: string, value: string): number[] {
  const mark = `${variable}=${value}`;
  return allPids().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(mark);
    } catch {
      return false; // gone meanwhile, or another user's
    }
  });
}

/** Kills what carries `ownerKey` and returns when it is gone. Throws naming the pids that would not die. */
export async function sweepOwnedProcesses(ownerKey: string, timeoutMs = 10_000): Promise<number> {
  const first = findMarkedProcesses(OWNER_VARIABLE, ownerKey);
  const deadlineMs = performance.now() + timeoutMs;
  let left = first;
  while (left.length > 0) {
    for (const pid of left) killQuietly(pid);
    if (performance.now() > deadlineMs) {
      throw new Error(`Processes ${left.join(", ")} of an earlier runner do not end after SIGKILL`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
    left = findMarkedProcesses(OWNER_VARIABLE, ownerKey);
  }
  return first.length;
}

/** Returns the pids of all processes of the real user `uid`, zombies excluded. */
export function findProcessesOfUser(uid: number): number[] {
  return allPids().filter((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "latin1");
      return new RegExp(`^Uid:\\s+${uid}\\s`, "m").test(status) && !/^State:\s+[ZX]/m.test(status);
    } catch {
      return false;
    }
  });
}

function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Returns `pid` and all its descendants, as far as they are still there. */
export function processTree(pid: number): number[] {
  const found = [pid];
  for (const parent of found) {
    try {
      const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "latin1");
      for (const child of children.split(" ")) if (child !== "") found.push(Number(child));
    } catch {
      // gone meanwhile
    }
  }
  return found;
}
