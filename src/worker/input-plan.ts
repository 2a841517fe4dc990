// What to create on disk for an input root: flat lists of directories, files and symlinks, in an order that works.
//
// Invariant: two paths of one input root never share an inode, nor a modification time in whole seconds. Occurrence k of
// the same content (and executable bit) is replica k, modified k seconds after the base: clang merges headers by inode,
// GCC's #pragma once by content and time, tar writes the second of two hard links as a link. Equal roots get equal
// times. Source: executor.md 3.3.

import { BLOB_FILE_MTIME_SECONDS } from "../cas/blob-store.ts";
import type { Digest } from "../digest/digest.ts";
import type { InputDirectory, InputFile } from "./input-directory.ts";
import type { InputTree } from "./input-tree.ts";
import { assertPathLength, MAX_PATH_BYTES } from "./output-paths.ts";

/** The first replica of a content may be the store's own file. */
export const BASE_MTIME_SECONDS = BLOB_FILE_MTIME_SECONDS;

export interface PlannedFile {
  readonly path: string;
  readonly digest: Digest;
  readonly isExecutable: boolean;
  /** 0 for the first occurrence of this content in the root. */
  readonly replica: number;
  /** Set when the client gave times or permissions: such a file is never shared. */
  readonly own: { readonly mtimeSeconds: number; readonly mode: number } | undefined;
}

export interface PlannedSymlink {
  readonly path: string;
  readonly target: string;
}

export interface PlannedTimes {
  readonly path: string;
  readonly mtimeSeconds: number | undefined;
  readonly mode: number | undefined;
}

export interface InputPlan {
  /** Parents before children; the root itself, "", comes first. */
  readonly directories: readonly string[];
  /** Those of them that the action may not change (BuildStream's SubtreeReadOnly). */
  readonly readOnlyDirectories: ReadonlySet<string>;
  /** Some directory is marked as writable. */
  readonly hasWritableMarker: boolean;
  readonly files: readonly PlannedFile[];
  readonly symlinks: readonly PlannedSymlink[];
  /** Directories with properties of their own, children before parents; "" is the root. */
  readonly directoryProperties: readonly PlannedTimes[];
}

interface PendingDirectory {
  readonly path: string;
  readonly hash: string;
  /** SubtreeReadOnly of the nearest ancestor that says. */
  readonly marker: boolean | undefined;
}

/**
 * Lays out `tree`. `occurrences` counts contents that the root has elsewhere (in mounted subtrees) and is continued.
 * Throws INVALID_ARGUMENT for paths that no system call takes.
 */
export function planInputRoot(tree: InputTree, occurrences = new Map<string, number>()): InputPlan {
  const directories: string[] = [];
  const readOnlyDirectories = new Set<string>();
  let hasWritableMarker = false;
  const files: PlannedFile[] = [];
  const symlinks: PlannedSymlink[] = [];
  const directoryProperties: PlannedTimes[] = [];
  const stack: PendingDirectory[] = [{ path: "", hash: tree.rootDigest.hash, marker: undefined }];
  while (stack.length > 0) {
    const { path, hash, marker: inherited } = stack.pop()!;
    const directory = tree.directories.get(hash)!;
    // The nearest marked ancestor decides.
    const marker = directory.properties?.subtreeReadOnly ?? inherited;
    const prefix = path === "" ? "" : `${path}/`;
    assertFits(path, directory);
    directories.push(path);
    if (marker === true) readOnlyDirectories.add(path);
    // Said to be writable, not merely not said to be read-only.
    const isWritable = marker === false;
    hasWritableMarker ||= isWritable;
    for (const file of directory.files) files.push(planFile(prefix, file, occurrences, isWritable));
    for (const { name, target } of directory.symlinks) symlinks.push({ path: prefix + name, target });
    if (directory.properties !== undefined) {
      const { mtimeSeconds, unixMode } = directory.properties;
      if (mtimeSeconds !== undefined || unixMode !== undefined) {
        directoryProperties.push({ path, mtimeSeconds, mode: unixMode });
      }
    }
    for (let i = directory.directories.length - 1; i >= 0; i--) {
      const child = directory.directories[i]!;
      stack.push({ path: prefix + child.name, hash: child.digest.hash, marker });
    }
  }
  return {
    directories,
    readOnlyDirectories,
    hasWritableMarker,
    files,
    symlinks,
    directoryProperties: directoryProperties.toReversed(),
  };
}

/** Files may share an inode if and only if they have the same key. */
export function replicaKey({
  digest,
  isExecutable,
}: {
  readonly digest: Digest;
  readonly isExecutable: boolean;
}): string {
  return isExecutable ? `${digest.hash}x` : digest.hash;
}

function planFile(prefix: string, file: InputFile, occurrences: Map<string, number>, isWritable: boolean): PlannedFile {
  const { name, digest, isExecutable, properties } = file;
  const key = replicaKey(file);
  const replica = occurrences.get(key) ?? 0;
  occurrences.set(key, replica + 1);
  const isOwn = isWritable || properties?.mtimeSeconds !== undefined || properties?.unixMode !== undefined;
  const own = isOwn
    ? {
        mtimeSeconds: properties?.mtimeSeconds ?? BASE_MTIME_SECONDS + replica,
        mode: properties?.unixMode ?? (isExecutable ? 0o755 : 0o644),
      }
    : undefined;
  return { path: prefix + name, digest, isExecutable, replica, own };
}

/** Checks the longest path below `path` once instead of every one. */
function assertFits(path: string, directory: InputDirectory): void {
  // A name has at most 255 bytes, a UTF-16 unit at most 3.
  if (path.length * 3 + 256 <= MAX_PATH_BYTES) return;
  for (const list of [directory.files, directory.directories, directory.symlinks]) {
    for (const { name } of list) assertPathLength(path === "" ? name : `${path}/${name}`, "Input root");
  }
}
