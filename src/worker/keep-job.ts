// After an action: finds the input directories that it left as they were, and moves them out of its build directory.
//
// Synchronous, for file-thread.ts. The action and all it started are dead by now, so nothing changes between two looks;
// what is found is hostile: a directory may have been replaced by a symlink, so every step of a path is looked at
// before what is below it. Invariant: what is kept was unchanged with everything below it.

import { renameSync } from "node:fs";
import { lookAt, stampOf, ENTRY_CHECKS, type DirectoryStamp, type EntryCheck } from "./directory-stamp.ts";
import { errorCode } from "./file-operations.ts";

export interface KeepJob {
  /** The input root. */
  readonly root: string;
  /** Directories of it, parents before children; nothing that lies in a directory that is not among them. */
  readonly directories: readonly LeftDirectory[];
  /** Where what is kept goes, under numbers from `firstNumber` on. */
  readonly keptPath: string;
  readonly firstNumber: number;
  /** Changes after that time may have gone unseen. */
  readonly trustedUntilMs: number;
}

export interface LeftDirectory {
  readonly name: string;
  /** Position of its parent; -1: the root. */
  readonly parent: number;
  readonly stamp: DirectoryStamp;
  readonly check: EntryCheck;
  /** Stands for a digest, so it may be part of what is kept. */
  readonly isInput: boolean;
  /** May be kept on its own. */
  readonly isWorthIt: boolean;
}

export interface KeptPart {
  /** Position among the directories. */
  readonly position: number;
  readonly number: number;
  readonly stamp: DirectoryStamp;
}

export type KeptParts = readonly KeptPart[];

export function keepDirectories({ root, directories, keptPath, firstNumber, trustedUntilMs }: KeepJob): KeptParts {
  const paths: (string | undefined)[] = [];
  const isWhole: boolean[] = [];
  for (const { name, parent, stamp, check, isInput } of directories) {
    const above = parent === -1 ? root : paths[parent];
    const path = above === undefined ? undefined : `${above}/${name}`;
    const found = path === undefined ? "gone" : lookAt(path, stamp, check, trustedUntilMs);
    paths.push(found === "gone" ? undefined : path);
    isWhole.push(found === "unchanged" && isInput);
  }
  for (let i = directories.length - 1; i >= 0; i--) {
    const { parent } = directories[i]!;
    if (parent !== -1 && !isWhole[i]!) isWhole[parent] = false;
  }
  const kept: KeptPart[] = [];
  const isKept: boolean[] = [];
  for (const [position, { parent, stamp, isWorthIt }] of directories.entries()) {
    isKept[position] = parent !== -1 && isKept[parent]!;
    if (isKept[position] || !isWhole[position]! || !isWorthIt) continue;
    const number = firstNumber + kept.length;
    const path = `${keptPath}/${number}`;
    if (!move(paths[position]!, path)) continue;
    isKept[position] = true;
    kept.push({
      position,
      number,
      stamp: { ...stampOf(path, ENTRY_CHECKS.nothing), entries: stamp.entries },
    });
  }
  return kept;
}

/** False when the directory's own mode forbids it. */
function move(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    // Safe: it is made anew when it is needed.
    if (errorCode(error) === "EACCES" || errorCode(error) === "EPERM") return false;
    throw error;
  }
}
