// Tells whether a directory was changed since it was last looked at, by inode and change time.
//
// The kernel sets the change time at every change of content, names, mode, owner, links or times, and no system call of
// an action sets it to anything else. So a directory with the inode and change time of before has the entries of before;
// a file likewise its bytes. Invariant: "unchanged" is never said of what was changed: where the file system's clock
// ticks in milliseconds, a change right after a look could go unseen, so only what is older than a few ticks counts.
// Clocks may be set back, so times are compared for being the same, not for being newer. Files that an action cannot
// change (links to the server's own) need no look.

import { chmodSync, lstatSync, mkdirSync, readdirSync, rmdirSync, statfsSync } from "node:fs";

export interface DirectoryStamp {
  readonly inode: number;
  readonly changedMs: number;
  readonly entries: EntryTimes;
}

/** Of the entries that had to be looked at. */
export interface EntryTimes {
  /** The latest change; 0 when there is none. */
  readonly newestMs: number;
  /** Of all their change times, in the order of the directory. */
  readonly hash: number;
}

/** Which entries of a directory have change times that matter. */
export const ENTRY_CHECKS = { nothing: 0, symlinks: 1, everything: 2 } as const;
export type EntryCheck = (typeof ENTRY_CHECKS)[keyof typeof ENTRY_CHECKS];

/** ext2 to ext4, XFS, Btrfs; statfs(2). */
const EXACT_FILE_SYSTEMS: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e]);
/** Two ticks of the slowest clock that kernels have, and some. */
const COARSE_CLOCK_MS = 25;
/** The same for file systems that keep whole seconds. */
const SECONDS_CLOCK_MS = 2500;
const CLOCK_TRIES = 20;

export function stampOf(path: string, check: EntryCheck): DirectoryStamp {
  const { ino, ctimeMs } = lstatSync(path);
  return { inode: ino, changedMs: ctimeMs, entries: entryTimes(path, check) };
}

/** Whether `path` is what had `stamp`, and was not changed; only times up to `trustedUntilMs` prove anything. */
export function lookAt(
  path: string,
  stamp: DirectoryStamp,
  check: EntryCheck,
  trustedUntilMs: number,
): "gone" | "changed" | "unchanged" {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined || !stats.isDirectory() || stats.ino !== stamp.inode) return "gone";
  if (stats.ctimeMs !== stamp.changedMs || Math.max(stamp.changedMs, stamp.entries.newestMs) > trustedUntilMs) {
    return "changed";
  }
  return entryTimes(path, check).hash === stamp.entries.hash ? "unchanged" : "changed";
}

function entryTimes(path: string, check: EntryCheck): EntryTimes {
  let newestMs = 0;
  let hash = 0;
  if (check === ENTRY_CHECKS.nothing) return { newestMs, hash };
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory() || (check === ENTRY_CHECKS.symlinks && !entry.isSymbolicLink())) continue;
    const { ctimeMs } = lstatSync(`${path}/${entry.name}`);
    newestMs = Math.max(newestMs, ctimeMs);
    // Exact integers all along: microseconds below 2^43, a product below 2^53.
    hash = (hash * 2053 + (Math.round(ctimeMs * 1000) % HASH_LIMIT)) % HASH_LIMIT;
  }
  return { newestMs, hash };
}

/** A prime below 2^41. */
const HASH_LIMIT = 2_199_023_255_531;

/**
 * For how long after a look a change may leave the time as it was. 0 where a change after a look always gets a time of
 * its own (Linux 6.13 and newer on its usual file systems), which is tried in `directory`. Infinite on file systems that
 * are not known to note every change: tmpfs did not for what is written through a mapping.
 */
export function blindMs(directory: string): number {
  if (!EXACT_FILE_SYSTEMS.has(statfsSync(directory).type)) return Number.POSITIVE_INFINITY;
  const path = `${directory}/clock`;
  mkdirSync(path);
  try {
    let lastMs = lstatSync(path).ctimeMs;
    for (let attempt = 0; attempt < CLOCK_TRIES; attempt++) {
      chmodSync(path, attempt % 2 === 0 ? 0o700 : 0o755);
      const { ctimeMs } = lstatSync(path);
      if (ctimeMs === lastMs) return Number.isInteger(ctimeMs / 1000) ? SECONDS_CLOCK_MS : COARSE_CLOCK_MS;
      lastMs = ctimeMs;
    }
    return 0;
  } finally {
    rmdirSync(path);
  }
}
