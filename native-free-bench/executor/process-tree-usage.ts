// What processes and all they started used: CPU by who used it, resident memory, descriptors. From /proc.
//
// Ended children count with the process that waited for them, which for our runner are the sandboxes.

import { readdirSync, readFileSync } from "node:fs";

export interface TreeUsage {
  /** CPU milliseconds by name: of each process and thread that lives, and "ended children". */
  readonly cpuMs: ReadonlyMap<string, number>;
  readonly residentBytes: number;
  /** Of it, what is not a mapped file. */
  readonly anonymousBytes: number;
  readonly processes: number;
  /** In the mount namespace of the first process. */
  readonly mounts: number;
  readonly descriptors: number;
}

/** Ticks of /proc/PID/stat in a second: fixed in the kernel's interface. */
const TICKS_PER_SECOND = 100;

interface Stat {
  readonly name: string;
  readonly parentPid: number;
  readonly ownMs: number;
  readonly childrenMs: number;
}

export function readTreeUsage(rootPids: readonly number[]): TreeUsage {
  const cpuMs = new Map<string, number>();
  const add = (name: string, ms: number) => void cpuMs.set(name, (cpuMs.get(name) ?? 0) + ms);
  let residentBytes = 0;
  let anonymousBytes = 0;
  let descriptors = 0;
  const pids = withDescendants(rootPids);
  for (const [pid, stat] of pids) {
    const command = commandName(pid);
    add("ended children", stat.childrenMs);
    for (const [thread, ms] of threadTimes(pid)) add(`${command}: ${thread}`, ms);
    const status = readOrEmpty(`/proc/${pid}/status`);
    residentBytes += kibibytes(status, "VmRSS");
    anonymousBytes += kibibytes(status, "RssAnon");
    descriptors += listOrNothing(`/proc/${pid}/fd`).length;
  }
  const mounts = readOrEmpty(`/proc/${rootPids[0]}/mountinfo`).split("\n").length - 1;
  return { cpuMs, residentBytes, anonymousBytes, processes: pids.size, mounts, descriptors };
}

export function cpuDifference(before: TreeUsage, after: TreeUsage): Map<string, number> {
  const difference = new Map<string, number>();
  for (const [name, ms] of after.cpuMs) difference.set(name, ms - (before.cpuMs.get(name) ?? 0));
  return difference;
}

function withDescendants(rootPids: readonly number[]): Map<number, Stat> {
  const all = new Map<number, Stat>();
  for (const name of readdirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? readStat(`/proc/${name}/stat`) : undefined;
    if (stat !== undefined) all.set(Number(name), stat);
  }
  const found = new Map<number, Stat>();
  const pending = [...rootPids];
  for (let pid = pending.pop(); pid !== undefined; pid = pending.pop()) {
    const stat = all.get(pid);
    if (stat === undefined || found.has(pid)) continue;
    found.set(pid, stat);
    for (const [child, { parentPid }] of all) if (parentPid === pid) pending.push(child);
  }
  return found;
}

function readStat(path: string): Stat | undefined {
  const text = readOrEmpty(path);
  if (text === "") return undefined;
  // The name in parentheses may contain anything; fields are counted after it.
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  const ticks = (first: number, second: number) =>
    ((Number(fields[first]) + Number(fields[second])) * 1000) / TICKS_PER_SECOND;
  return {
    name: text.slice(text.indexOf("(") + 1, end),
    parentPid: Number(fields[1]),
    ownMs: ticks(11, 12),
    childrenMs: ticks(13, 14),
  };
}

/** "ledge runner" and "ledge serve" are one program: the first word that is no path and no flag tells them apart. */
function commandName(pid: number): string {
  const words = readOrEmpty(`/proc/${pid}/cmdline`).split("\0");
  const program = words[0]?.split("/").at(-1) ?? "";
  const subcommand = words.slice(1).find((word) => /^[a-z]+$/.test(word));
  return subcommand === undefined ? program : `${program} ${subcommand}`;
}

function* threadTimes(pid: number): Generator<[string, number]> {
  for (const tid of listOrNothing(`/proc/${pid}/task`)) {
    const stat = readStat(`/proc/${pid}/task/${tid}/stat`);
    if (stat === undefined) continue;
    yield [Number(tid) === pid ? "event loop" : stat.name, stat.ownMs];
  }
}

function kibibytes(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0) * 1024;
}

function listOrNothing(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return []; // it ended meanwhile
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it ended meanwhile
  }
}
