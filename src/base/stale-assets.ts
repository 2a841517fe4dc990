// Removes what other versions of the executable extracted and nobody uses any more.
//
// Invariant: a folder goes only when it is named like ours, was not started from for a day, and no process that we can
// see has an add-on of it mapped. It is renamed first, so that whoever looks finds it whole or not at all. A server that
// we cannot see (in another container with the same home) finds its folder gone and extracts again: embedded-assets.ts.

import { randomUUID } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync } from "node:fs";
import { join } from "node:path";

/** A version in use is started more often than this; and one that is being extracted is younger. */
export const UNUSED_MS = 24 * 60 * 60_000;

/** Folders are named by a hash; what is being removed has an ending as well. */
const FOLDER_NAME = /^[0-9a-f]{32}(\.[0-9a-f-]{36}\.old)?$/;

/** Marks the folder `name` in `parent` as used now, and removes those that are not. Never throws: it can wait. */
export function removeStaleFolders(parent: string, name: string, nowMs: number): void {
  try {
    utimesSync(join(parent, name), nowMs / 1000, nowMs / 1000);
    const stale = readdirSync(parent).filter((each) => each !== name && isStale(parent, each, nowMs));
    if (stale.length === 0) return;
    const mapped = mappedFiles();
    for (const each of stale) if (!mapped.includes(`/${each}/`)) remove(parent, each);
  } catch {
    // A read-only or vanished folder is no reason not to start; the next start tries again.
  }
}

function isStale(parent: string, name: string, nowMs: number): boolean {
  if (!FOLDER_NAME.test(name)) return false;
  const stat = lstatSync(join(parent, name), { throwIfNoEntry: false });
  return stat?.isDirectory() === true && nowMs - stat.mtimeMs > UNUSED_MS;
}

function remove(parent: string, name: string): void {
  const doomed = name.endsWith(".old") ? name : `${name}.${randomUUID()}.old`;
  if (doomed !== name) renameSync(join(parent, name), join(parent, doomed));
  rmSync(join(parent, doomed), { recursive: true, force: true });
}

/** What the processes of this machine have mapped, as far as we may know. Tens of ms; only when there is a candidate. */
function mappedFiles(): string {
  const maps: string[] = [];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      maps.push(readFileSync(`/proc/${pid}/maps`, "latin1"));
    } catch {
      // Ended meanwhile, or somebody else's: others cannot enter our folder.
    }
  }
  return maps.join("");
}
