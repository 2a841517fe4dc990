// What a disk may hold after the power went at some line of a recorded trace: what was synced, and any part of the rest.
//
// Stricter than file systems are: a name is on the disk only once its folder was synced, names and bytes that were not
// synced come in any order or not at all, bytes torn into sectors. A sector holds what it held after some of its writes,
// never a later one without an earlier one, as in a page cache.

import type { DiskOperation, DiskTrace } from "./disk-trace.ts";

const SECTOR_BYTES = 512;

/** How what was not synced is chosen: nothing of it, all, whole writes, or sectors. */
export const CRASH_MODES = ["nothing", "everything", "writes", "sectors"] as const;
export type CrashMode = (typeof CRASH_MODES)[number];

export interface Crash {
  /** The first line of the trace that did not happen. */
  readonly at: number;
  readonly mode: CrashMode;
  /** A number from 0 to below 1, each time another. */
  readonly random: () => number;
}

/** The files by their paths below the root; folders end with a slash and are empty. */
export function diskAfterCrash(trace: DiskTrace, crash: Crash): ReadonlyMap<string, Buffer> {
  const begun = trace.operations.filter(({ beganAt }) => beganAt < crash.at);
  const ended = new Map<number, number>();
  for (const operation of begun) {
    if (operation.type !== "sync" || operation.endedAt >= crash.at) continue;
    ended.set(operation.node, Math.max(ended.get(operation.node) ?? -1, operation.beganAt));
  }
  const isDurable = (operation: DiskOperation & { readonly node: number }) =>
    operation.endedAt < crash.at &&
    (operation.type === "sync-write" || operation.endedAt < (ended.get(operation.node) ?? -1));
  const disk = new Map<string, Buffer>();
  const visit = (folder: number, path: string): void => {
    for (const [name, target] of namesOf(folder)) {
      if (trace.folders.has(target)) {
        disk.set(`${path}${name}/`, Buffer.alloc(0));
        visit(target, `${path}${name}/`);
      } else disk.set(path + name, bytesOf(target));
    }
  };
  const namesOf = (folder: number): ReadonlyMap<string, number> => {
    const byName = new Map<string, (DiskOperation & { readonly type: "name" })[]>();
    for (const operation of begun) {
      if (operation.type !== "name" || operation.node !== folder) continue;
      const known = byName.get(operation.name);
      if (known === undefined) byName.set(operation.name, [operation]);
      else known.push(operation);
    }
    const names = new Map<string, number>();
    for (const [name, operations] of byName) {
      const least = operations.findLastIndex(isDurable) + 1;
      const kept = least + pickUpTo(operations.length - least, crash);
      const target = kept === 0 ? undefined : operations[kept - 1]?.target;
      if (target !== undefined) names.set(name, target);
    }
    return names;
  };
  const bytesOf = (node: number): Buffer => {
    const writes = begun.filter(isWriteTo(node));
    return tornBytes(writes, writes.map(isDurable), crash);
  };
  visit(trace.root, "");
  return disk;
}

type Write = DiskOperation & { readonly type: "write" | "sync-write" };

function isWriteTo(node: number): (operation: DiskOperation) => operation is Write {
  return (operation): operation is Write =>
    (operation.type === "write" || operation.type === "sync-write") && operation.node === node;
}

function tornBytes(writes: readonly Write[], areDurable: readonly boolean[], crash: Crash): Buffer {
  const bySector = new Map<number, number[]>();
  for (const [index, { position, bytes }] of writes.entries()) {
    for (let sector = Math.floor(position / SECTOR_BYTES); sector * SECTOR_BYTES < position + bytes.length; sector++) {
      const known = bySector.get(sector);
      if (known === undefined) bySector.set(sector, [index]);
      else known.push(index);
    }
  }
  const isKept = writes.map(() => pickUpTo(1, crash) === 1);
  const bytes = Buffer.alloc(Math.max(0, ...writes.map((write) => write.position + write.bytes.length)));
  let sizeBytes = 0;
  for (const [sector, indices] of bySector) {
    const least = indices.findLastIndex((index) => areDurable[index] === true) + 1;
    const kept =
      crash.mode === "sectors"
        ? least + pickUpTo(indices.length - least, crash)
        : Math.max(least, indices.findLastIndex((index) => isKept[index] === true) + 1);
    for (const index of indices.slice(0, kept)) {
      const write = writes[index] as Write;
      const from = Math.max(write.position, sector * SECTOR_BYTES);
      const to = Math.min(write.position + write.bytes.length, (sector + 1) * SECTOR_BYTES);
      write.bytes.copy(bytes, from, from - write.position, to - write.position);
      sizeBytes = Math.max(sizeBytes, to);
    }
  }
  // The size may be there before the bytes.
  return bytes.subarray(0, crash.mode === "sectors" && crash.random() < 0.3 ? bytes.length : sizeBytes);
}

function pickUpTo(count: number, { mode, random }: Crash): number {
  if (mode === "nothing") return 0;
  if (mode === "everything") return count;
  return Math.floor(random() * (count + 1));
}
