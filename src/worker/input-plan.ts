// What to create on disk for an input root: flat lists of directories, files and symlinks, in an order that works.
//
// Invariant: two paths of one input root never share an inode, nor a modification time in whole seconds. Occurrence k of
// the same content (and executable bit) is replica k, modified k seconds after the base: clang merges headers by inode,
// GCC's #pragma once by content and time, tar writes the second of two hard links as a link. Equal roots get equal
// times. Source: executor.md 3.3.

import { BLOB_FILE_MTIME_SECONDS } from "../cas/blob-store.ts";
import type { Digest } from "../digest/digest.ts";
import { countLayout, entryCheck, layoutKey, preorder, type LaidOutDirectory } from "./directory-layout.ts";
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

export interface PlannedMove {
  /** Where the directory lies, absolute. */
  readonly from: string;
  readonly path: string;
}

/** Directories that are on the disk already (kept-directories.ts). */
export interface DirectorySupply {
  /** Those that stand for `key`. */
  find(key: string): readonly LaidOutDirectory[];
  /** Takes it out of the supply and says where it lies. */
  take(directory: LaidOutDirectory): string;
}

export interface PlanOptions {
  /** Contents that the root has elsewhere (in mounted subtrees), by replicaKey; is continued. */
  readonly occurrences?: Map<string, number>;
  readonly supply?: DirectorySupply | undefined;
  /** Files are links that the action cannot change. */
  readonly mayShareFiles?: boolean;
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
  /** Whole directories from the supply; nothing of them is in the lists above. */
  readonly moves: readonly PlannedMove[];
  /** The root with everything below it, moved directories included. */
  readonly layout: LaidOutDirectory;
}

/** More copies of one content than this in one root are private files: each would be an inode in the cache. */
export const MAX_REPLICAS = 8;

/** UTF-8 bytes of a UTF-16 unit, at most. */
const BYTES_PER_UNIT = 3;

interface PendingDirectory {
  readonly path: string;
  readonly digest: Digest;
  /** SubtreeReadOnly of the nearest ancestor that says. */
  readonly marker: boolean | undefined;
  readonly parent: LaidOutDirectory | undefined;
}

/** Lays out `tree`. Throws INVALID_ARGUMENT for paths that no system call takes. */
export function planInputRoot(tree: InputTree, options: PlanOptions = {}): InputPlan {
  const { occurrences = new Map<string, number>(), supply, mayShareFiles = true } = options;
  const directories: string[] = [];
  const readOnlyDirectories = new Set<string>();
  let hasWritableMarker = false;
  const files: PlannedFile[] = [];
  const symlinks: PlannedSymlink[] = [];
  const directoryProperties: PlannedTimes[] = [];
  const moves: PlannedMove[] = [];
  const laidOut: LaidOutDirectory[] = [];
  const stack: PendingDirectory[] = [{ path: "", digest: tree.rootDigest, marker: undefined, parent: undefined }];
  while (stack.length > 0) {
    const { path, digest, marker: inherited, parent } = stack.pop()!;
    const directory = tree.directories.get(digest.hash)!;
    // The nearest marked ancestor decides.
    const marker = directory.properties?.subtreeReadOnly ?? inherited;
    const key = layoutKey(digest, marker);
    const kept = key === undefined || path === "" ? undefined : findKept(path, key, supply, occurrences);
    if (kept !== undefined) {
      moves.push({ from: supply!.take(kept), path });
      kept.name = baseName(path);
      attach(kept, parent);
      continue;
    }
    const prefix = path === "" ? "" : `${path}/`;
    assertFits(path, directory);
    directories.push(path);
    if (marker === true) readOnlyDirectories.add(path);
    // Said to be writable, not merely not said to be read-only.
    const isWritable = marker === false;
    hasWritableMarker ||= isWritable;
    const firstFile = files.length;
    for (const file of directory.files) files.push(planFile(prefix, file, occurrences, isWritable));
    for (const { name, target } of directory.symlinks) symlinks.push({ path: prefix + name, target });
    if (directory.properties !== undefined) {
      const { mtimeSeconds, unixMode } = directory.properties;
      if (mtimeSeconds !== undefined || unixMode !== undefined) {
        directoryProperties.push({ path, mtimeSeconds, mode: unixMode });
      }
    }
    const node = layOut({ name: baseName(path), key, directory, marker, mayShareFiles }, files.slice(firstFile));
    attach(node, parent);
    laidOut.push(node);
    for (let i = directory.directories.length - 1; i >= 0; i--) {
      const child = directory.directories[i]!;
      stack.push({ path: prefix + child.name, digest: child.digest, marker, parent: node });
    }
  }
  countLayout(laidOut);
  return {
    directories,
    readOnlyDirectories,
    hasWritableMarker,
    files,
    symlinks,
    directoryProperties: directoryProperties.toReversed(),
    moves,
    layout: laidOut[0]!,
  };
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function attach(node: LaidOutDirectory, parent: LaidOutDirectory | undefined): void {
  node.parent = parent;
  parent?.children.push(node);
}

function layOut(
  {
    name,
    key,
    directory,
    marker,
    mayShareFiles,
  }: Pick<LaidOutDirectory, "name" | "key" | "directory"> & {
    readonly marker: boolean | undefined;
    readonly mayShareFiles: boolean;
  },
  files: readonly PlannedFile[],
): LaidOutDirectory {
  const isShared = mayShareFiles && files.every((file) => file.own === undefined && file.replica < MAX_REPLICAS);
  const mode = directory.properties?.unixMode ?? 0o755;
  return {
    name,
    key,
    directory,
    replicas: files.some(({ replica }) => replica > 0) ? files.map(({ replica }) => replica) : undefined,
    check: entryCheck(directory, { isShared }),
    isMovable: marker !== true && (mode & 0o300) === 0o300,
    parent: undefined,
    children: [],
    entryCount: 0,
    sizeBytes: 0,
    longestPath: 0,
    stamp: undefined,
  };
}

/** A directory of the supply that is what would be made here; counts its files when there is one. */
function findKept(
  path: string,
  key: string,
  supply: DirectorySupply | undefined,
  occurrences: Map<string, number>,
): LaidOutDirectory | undefined {
  const found = supply?.find(key);
  // Paths near the limit are checked one by one, which needs the directories.
  const fits = (kept: LaidOutDirectory) => (path.length + 1 + kept.longestPath) * BYTES_PER_UNIT <= MAX_PATH_BYTES;
  return found?.find((kept) => fits(kept) && hasNextReplicas(kept, occurrences));
}

function hasNextReplicas(kept: LaidOutDirectory, occurrences: Map<string, number>): boolean {
  const counted: string[] = [];
  for (const { directory, replicas } of preorder(kept)) {
    for (const [index, file] of directory.files.entries()) {
      const key = replicaKey(file);
      const count = occurrences.get(key) ?? 0;
      if (count !== (replicas?.[index] ?? 0)) {
        for (const before of counted) occurrences.set(before, occurrences.get(before)! - 1);
        return false;
      }
      occurrences.set(key, count + 1);
      counted.push(key);
    }
  }
  return true;
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
  // A name has at most 255 bytes.
  if (path.length * BYTES_PER_UNIT + 256 <= MAX_PATH_BYTES) return;
  for (const list of [directory.files, directory.directories, directory.symlinks]) {
    for (const { name } of list) assertPathLength(path === "" ? name : `${path}/${name}`, "Input root");
  }
}
