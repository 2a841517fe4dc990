// The directories of an input root as they lie on disk: what each stands for, which replicas its files are, and what it
// looked like when it was made.
//
// Invariant: two laid-out directories with equal keys and equal replicas are the same on disk, so one may take the
// place of the other (kept-directories.ts). A directory that anything was added to has no key.

import { digestKey, type Digest } from "../digest/digest.ts";
import type { InputDirectory } from "./input-directory.ts";
import { ENTRY_CHECKS, type DirectoryStamp, type EntryCheck } from "./directory-stamp.ts";

export interface LaidOutDirectory {
  /** "" for the root. */
  name: string;
  /** undefined: not what any digest stands for. */
  key: string | undefined;
  readonly directory: InputDirectory;
  /** Of each file; undefined: all are the first. */
  readonly replicas: readonly number[] | undefined;
  readonly check: EntryCheck;
  /** Its mode lets the server move it elsewhere. */
  readonly isMovable: boolean;
  parent: LaidOutDirectory | undefined;
  /** In the order of their names, which is the order of the plan. */
  readonly children: LaidOutDirectory[];
  /** Files, directories and symlinks, itself and below. */
  entryCount: number;
  /** Of the files in it and below. */
  sizeBytes: number;
  /** In UTF-16 units, of what is below it, relative to it. */
  longestPath: number;
  stamp: DirectoryStamp | undefined;
}

/** Below it, making a directory anew costs as much as looking after it and moving it twice. */
export const MIN_KEPT_ENTRIES = 8;

/** `marker`: SubtreeReadOnly of the nearest ancestor that says; it decides who owns what. */
export function layoutKey(digest: Digest, marker: boolean | undefined): string | undefined {
  // Directories that lost a subtree to a mount have made-up hashes.
  if (digest.hash.includes(":")) return undefined;
  return marker === undefined ? digestKey(digest) : `${digestKey(digest)}:${marker ? "r" : "w"}`;
}

/** What below it must be looked at, beside the directories, to know that nothing was changed. */
export function entryCheck(directory: InputDirectory, options: { readonly isShared: boolean }): EntryCheck {
  if (!options.isShared && directory.files.length > 0) return ENTRY_CHECKS.everything;
  return directory.symlinks.length > 0 ? ENTRY_CHECKS.symlinks : ENTRY_CHECKS.nothing;
}

/** Parents before children; the directory itself first. */
export function* preorder(root: LaidOutDirectory): Generator<LaidOutDirectory> {
  const stack = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    yield node;
    for (let i = node.children.length - 1; i >= 0; i--) stack.push(node.children[i]!);
  }
}

/** Fills in what can only be known from the children up; `nodes` has parents before children. */
export function countLayout(nodes: readonly LaidOutDirectory[]): void {
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]!;
    const { files, symlinks } = node.directory;
    node.entryCount = 1 + files.length + symlinks.length;
    node.sizeBytes = 0;
    node.longestPath = 0;
    for (const { digest } of files) node.sizeBytes += digest.sizeBytes;
    for (const { name } of [...files, ...symlinks]) node.longestPath = Math.max(node.longestPath, name.length);
    for (const child of node.children) {
      node.entryCount += child.entryCount;
      node.sizeBytes += child.sizeBytes;
      node.longestPath = Math.max(node.longestPath, child.name.length + 1 + child.longestPath);
    }
  }
}

/** Parents of outputs are made whether the input root has them or not; what got a new entry is no input any more. */
export function markExtended(root: LaidOutDirectory, paths: readonly (readonly string[])[]): void {
  for (const names of paths) {
    let node = root;
    for (const name of names) {
      const child = node.children.find((candidate) => candidate.name === name);
      if (child === undefined) {
        node.key = undefined;
        break;
      }
      node = child;
    }
  }
}
