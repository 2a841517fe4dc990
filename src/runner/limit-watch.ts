// Holds one run to its limits on memory, processes and disk, by the best means this machine has.
//
// memory: a control group, where the kernel kills at the limit; otherwise the resident memory of the run's processes is
//   summed up ten times a second and the run killed. processes: RLIMIT_NPROC, which counts per user namespace since Linux
//   5.14, so the action sees EAGAIN. disk: no quota exists for directories, so RLIMIT_FSIZE stops a single file, and what
//   the run has written is summed up again and again, at most a twentieth of the time.
// Invariant: nothing is watched, and nothing costs, for limits a run does not have.

import { lstatSync, opendirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Cgroup, CgroupController } from "../sandbox/cgroup.ts";
import { type ProcessLimit, ResourceLimit } from "../sandbox/launcher-block.ts";
import { processTree } from "../sandbox/process-table.ts";
import type { RunOutcome, RunSpec } from "./runner.ts";

/** A fork bomb must end somewhere; no build is known to need as many threads. */
const DEFAULT_MAX_PIDS = 16_384;
/** Programs that close every possible descriptor at start take 1 µs for each; linkers open a few thousand. */
const OPEN_FILES = { soft: 4096, hard: 65_536 };
const MEMORY_POLL_MS = 100;
/** Disk is looked at after a second and then so often that looking takes a twentieth of the time. */
const DISK_POLL_MS = 1000;
const DISK_POLL_SHARE = 20;
const PAGE_BYTES = 4096;
/** 128 + SIGXFSZ: a process wrote beyond RLIMIT_FSIZE. */
const FILE_SIZE_EXIT_CODE = 153;

/** What the kernel holds each process of the run to. The same for everybody, whatever the server's own limits are. */
export function processLimits({ maxPids = DEFAULT_MAX_PIDS, diskBytes }: RunSpec["limits"]): ProcessLimit[] {
  return [
    { resource: ResourceLimit.Core, soft: 0, hard: 0 },
    { resource: ResourceLimit.OpenFiles, ...OPEN_FILES },
    { resource: ResourceLimit.Processes, soft: maxPids, hard: maxPids },
    ...(diskBytes === undefined ? [] : [{ resource: ResourceLimit.FileSize, soft: diskBytes, hard: diskBytes }]),
  ];
}

export interface LimitWatchOptions {
  readonly spec: RunSpec;
  readonly cgroups: CgroupController | undefined;
  /** Kills the run for that reason. */
  readonly onLimit: (outcome: RunOutcome) => void;
}

export class LimitWatch {
  readonly #options: LimitWatchOptions;
  #cgroup: Cgroup | undefined;
  #initPid: number | undefined;
  #startedAtMs = 0;
  #timers: NodeJS.Timeout[] = [];

  constructor(options: LimitWatchOptions) {
    this.#options = options;
  }

  /** Applies the limits to a process that has not started its command. */
  begin(initPid: number): void {
    this.#initPid = initPid;
    this.#startedAtMs = Date.now();
    const { memoryBytes, diskBytes } = this.#options.spec.limits;
    if (memoryBytes !== undefined) this.#limitMemory(memoryBytes);
    if (diskBytes !== undefined) this.#watchDisk(diskBytes, DISK_POLL_MS);
  }

  /** Stops watching. Returns the outcome when a limit explains `exitCode` although nobody was told. */
  end(exitCode: number | undefined): RunOutcome | undefined {
    for (const timer of this.#timers) clearTimeout(timer);
    const { memoryBytes, diskBytes } = this.#options.spec.limits;
    if (memoryBytes !== undefined && (this.#cgroup?.oomKills() ?? 0) > 0) return memoryOutcome(memoryBytes);
    if (diskBytes !== undefined && exitCode === FILE_SIZE_EXIT_CODE) return diskOutcome(diskBytes);
    return undefined;
  }

  get peakMemoryBytes(): number | undefined {
    return this.#cgroup?.peakMemoryBytes();
  }

  /** Call when everything in it is dead. */
  close(): void {
    this.#cgroup?.remove();
  }

  #limitMemory(memoryBytes: number): void {
    try {
      this.#cgroup = this.#options.cgroups?.create(this.#options.spec.id, { memoryBytes });
      if (this.#cgroup !== undefined) this.#moveInto(this.#cgroup);
    } catch {
      this.#cgroup?.remove();
      this.#cgroup = undefined; // the group was taken from us: watch instead
    }
    const timer = setInterval(() => {
      const isOver = this.#cgroup === undefined ? this.#residentBytes() > memoryBytes : this.#cgroup.oomKills() > 0;
      if (isOver) this.#options.onLimit(memoryOutcome(memoryBytes));
    }, MEMORY_POLL_MS);
    this.#timers.push(timer);
  }

  /** The init first: what it forks from then on is in the group, and what it forked before is found afterwards. */
  #moveInto(cgroup: Cgroup): void {
    const moved = new Set<number>();
    for (let found = true; found;) {
      found = false;
      for (const pid of this.#processes()) {
        if (moved.has(pid)) continue;
        moved.add(pid);
        cgroup.add(pid);
        found = true;
      }
    }
  }

  #watchDisk(diskBytes: number, delayMs: number): void {
    const timer = setTimeout(() => {
      const beginMs = performance.now();
      const { inputRootPath, temporaryPath } = this.#options.spec;
      const paths = temporaryPath === undefined ? [inputRootPath] : [inputRootPath, temporaryPath];
      const writtenBytes = paths.reduce((sum, path) => sum + changedBytes(path, this.#startedAtMs), 0);
      if (writtenBytes > diskBytes) return this.#options.onLimit(diskOutcome(diskBytes));
      const tookMs = performance.now() - beginMs;
      return this.#watchDisk(diskBytes, Math.max(DISK_POLL_MS, tookMs * DISK_POLL_SHARE));
    }, delayMs);
    this.#timers.push(timer);
  }

  #processes(): number[] {
    return this.#initPid === undefined ? [] : processTree(this.#initPid);
  }

  /** Private and shared-anonymous pages; files in the page cache are not the run's. */
  #residentBytes(): number {
    let pages = 0;
    for (const pid of this.#processes()) {
      try {
        const [, resident = 0, shared = 0] = readFileSync(`/proc/${pid}/statm`, "latin1").split(" ").map(Number);
        pages += resident - shared;
      } catch {
        // gone meanwhile
      }
    }
    return pages * PAGE_BYTES;
  }
}

/** Bytes in use by what was made or changed since `sinceMs`; hard-linked inputs are older. */
function changedBytes(directory: string, sinceMs: number): number {
  let bytes = 0;
  try {
    const entries = opendirSync(directory);
    try {
      for (let entry = entries.readSync(); entry !== null; entry = entries.readSync()) {
        const path = join(directory, entry.name);
        if (entry.isDirectory()) bytes += changedBytes(path, sinceMs);
        else if (entry.isFile()) bytes += changedFileBytes(path, sinceMs);
      }
    } finally {
      entries.closeSync();
    }
  } catch {
    // removed while we looked, or closed to us: what we can see counts
  }
  return bytes;
}

function changedFileBytes(path: string, sinceMs: number): number {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats === undefined || stats.ctimeMs < sinceMs ? 0 : stats.blocks * 512;
}

function memoryOutcome(memoryBytes: number): RunOutcome {
  return {
    kind: "limit",
    limit: "memory",
    message: `ledge: killed: the action used more than ${memoryBytes} bytes of memory`,
  };
}

function diskOutcome(diskBytes: number): RunOutcome {
  return {
    kind: "limit",
    limit: "disk",
    message: `The action wrote more than ${diskBytes} bytes to disk and was killed`,
  };
}
