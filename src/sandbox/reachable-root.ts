// Makes the build directories reachable for the users of the slots, wherever the operator put the data directory.
//
// As root the data directory often lies below /root, which nobody else may enter, and changing that is not ours to do.
// The runner then starts in a mount namespace of its own and shows the build root a second time, below a directory that
// everybody may enter. The namespace ends with the runner, so nothing is left behind.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

/** Directories that every Linux has and no build needs; the first one that is empty is covered. */
const CANDIDATES = ["/media", "/mnt", "/srv"];

/** Prefix of the command line that gives a process a mount namespace of its own (util-linux). */
export const PRIVATE_MOUNTS_COMMAND = ["unshare", "--mount", "--propagation", "slave", "--"] as const;

/** True when another user of this host can walk to `path`. */
export function isReachableForOthers(path: string): boolean {
  for (let current = dirname(path); ; current = dirname(current)) {
    const stats = statSync(current, { throwIfNoEntry: false });
    if (stats !== undefined && (stats.mode & 0o001) === 0) return false;
    if (current === dirname(current)) return true;
  }
}

/** Shows `path` at a reachable place and returns that place. Only in a private mount namespace. Throws when refused. */
export function showReachable(path: string): string {
  const candidate = CANDIDATES.find((directory) => isEmptyDirectory(directory));
  if (candidate === undefined) {
    throw new Error(`Every one of ${CANDIDATES.join(", ")} is absent or in use`);
  }
  mount(["-t", "tmpfs", "-o", "mode=0755,size=64k", "ledge", candidate]);
  const place = join(candidate, "ledge");
  mkdirSync(place, { mode: 0o755 });
  mount(["--rbind", path, place]);
  return place;
}

function mount(options: readonly string[]): void {
  const result = spawnSync("mount", options, { encoding: "utf8" });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`mount ${options.join(" ")}: ${result.stderr.trim()}`);
}

function isEmptyDirectory(path: string): boolean {
  try {
    return readdirSync(path).length === 0;
  } catch {
    return false;
  }
}
