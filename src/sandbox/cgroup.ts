// Control groups for runs with a memory limit: version 2 where a subtree was delegated to us, version 1 as root.
//
// Whether this machine lets us is found out by doing it once. Everything is optional: without a controller the runner
// falls back to looking at the processes ten times a second (runner/limit-watch.ts). Groups of an earlier runner are
// removed at the start. Layout: <our own group>/ledge-<key>/<run>. Source: cgroups(7), Documentation/admin-guide/cgroup-v2
// and cgroup-v1/memory of Linux; executor measurements 5.3 (0.13 ms per run).

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** The group of one run. */
export interface Cgroup {
  /** Moves a process, which must not have started anything yet. */
  add(pid: number): void;
  /** How many processes the kernel killed because of the memory limit. */
  oomKills(): number;
  peakMemoryBytes(): number | undefined;
  /** Everything in it is dead; removes it. */
  remove(): void;
}

export interface CgroupController {
  readonly version: 1 | 2;
  create(runId: string, limits: { readonly memoryBytes: number }): Cgroup;
  /** Removes our directory. */
  close(): void;
}

/** File names of the two versions. */
const FILES = {
  1: { limit: "memory.limit_in_bytes", swap: "memory.memsw.limit_in_bytes", peak: "memory.max_usage_in_bytes" },
  2: { limit: "memory.max", swap: "memory.swap.max", peak: "memory.peak" },
} as const;

export interface CgroupPlace {
  readonly version: 1 | 2;
  /** Directory of the group we may make groups in. */
  readonly directory: string;
}

/** Returns a controller that was tried out, or undefined. `serverPid` is the other process that may be in our group. */
export function openCgroups(ownerKey: string, serverPid: number = process.ppid): CgroupController | undefined {
  for (const place of findPlaces()) {
    try {
      const controller = openCgroupsAt(place, ownerKey, serverPid);
      controller.create("probe", { memoryBytes: 64 * 1024 * 1024 }).remove();
      return controller;
    } catch {
      // not ours to write here: the next place, or none
    }
  }
  return undefined;
}

/** Makes our directory in `place`. Throws when that is not ours to do. */
export function openCgroupsAt(place: CgroupPlace, ownerKey: string, serverPid: number): CgroupController {
  return new MemoryCgroups(place, ownerKey, serverPid);
}

/** Our own groups, from /proc: a version 2 one with a memory controller first. */
export function findPlaces(
  mountinfo = readOrEmpty("/proc/self/mountinfo"),
  ownGroups = readOrEmpty("/proc/self/cgroup"),
): CgroupPlace[] {
  const places: CgroupPlace[] = [];
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root = "/", mountPoint = ""] = left.split(" ");
    const [type, , options = ""] = right.split(" ");
    const isV1 = type === "cgroup" && options.split(",").includes("memory");
    if (!isV1 && type !== "cgroup2") continue;
    const own = ownGroupPath(ownGroups, isV1 ? "memory" : "");
    if (own === undefined || !own.startsWith(root === "/" ? "/" : root)) continue;
    const directory = resolve(mountPoint, `.${root === "/" ? own : own.slice(root.length)}`);
    places.push({ version: isV1 ? 1 : 2, directory });
  }
  return places.toSorted((a, b) => b.version - a.version);
}

function ownGroupPath(ownGroups: string, controller: string): string | undefined {
  for (const line of ownGroups.split("\n")) {
    const [, controllers = "-", ...path] = line.split(":");
    if (controllers.split(",").includes(controller)) return path.join(":");
  }
  return undefined;
}

class MemoryCgroups implements CgroupController {
  readonly version: 1 | 2;
  readonly #directory: string;

  constructor(place: CgroupPlace, ownerKey: string, serverPid: number) {
    this.version = place.version;
    if (place.version === 2) delegateMemory(place.directory, serverPid);
    this.#directory = join(place.directory, `ledge-${ownerKey}`);
    removeGroups(this.#directory);
    mkdirSync(this.#directory);
    if (place.version === 2) writeFileSync(join(this.#directory, "cgroup.subtree_control"), "+memory");
    else writeFileSync(join(this.#directory, "memory.use_hierarchy"), "1");
  }

  create(runId: string, limits: { readonly memoryBytes: number }): Cgroup {
    const group = join(this.#directory, runId.replaceAll(/[^\w-]/g, "_"));
    const files = FILES[this.version];
    mkdirSync(group);
    writeFileSync(join(group, files.limit), String(limits.memoryBytes));
    const swapPath = join(group, files.swap);
    // Version 1 counts memory and swap together. Both are absent in kernels without swap accounting.
    if (existsSync(swapPath)) writeFileSync(swapPath, this.version === 1 ? String(limits.memoryBytes) : "0");
    const groupKill = join(group, "memory.oom.group");
    if (existsSync(groupKill)) writeFileSync(groupKill, "1");
    const oomFile = join(group, this.version === 1 ? "memory.oom_control" : "memory.events");
    return {
      add: (pid) => writeFileSync(join(group, "cgroup.procs"), String(pid)),
      oomKills: () => Number(/^oom_kill (\d+)/m.exec(readOrEmpty(oomFile))?.[1] ?? 0),
      peakMemoryBytes: () => Number.parseInt(readOrEmpty(join(group, files.peak)), 10) || undefined,
      remove: () => removeGroups(group),
    };
  }

  close(): void {
    removeGroups(this.#directory);
  }
}

/**
 * Turns on the memory controller for groups below `directory`. Version 2 forbids that while processes are in the group
 * itself, so the server and we move one level down; with anybody else in it the group is not ours, and this throws.
 */
function delegateMemory(directory: string, serverPid: number): void {
  const controllers = readFileSync(join(directory, "cgroup.controllers"), "utf8").split(/\s+/);
  if (!controllers.includes("memory")) throw new Error("There is no memory controller here");
  const enabled = readFileSync(join(directory, "cgroup.subtree_control"), "utf8").split(/\s+/);
  if (enabled.includes("memory")) return;
  const pids = readFileSync(join(directory, "cgroup.procs"), "utf8").trim().split("\n").filter(Boolean).map(Number);
  const ours = new Set([process.pid, serverPid]);
  if (!pids.every((pid) => ours.has(pid))) throw new Error("Other processes share our control group");
  const serverGroup = join(directory, "server");
  mkdirSync(serverGroup, { recursive: true });
  for (const pid of pids) writeFileSync(join(serverGroup, "cgroup.procs"), String(pid));
  writeFileSync(join(directory, "cgroup.subtree_control"), "+memory");
}

/** Removes a group and those in it; one that still holds a process stays. */
function removeGroups(directory: string): void {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroups(join(directory, entry.name));
  }
  try {
    rmdirSync(directory);
  } catch {
    // busy: a process that would not die is in it; the next start tries again
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
