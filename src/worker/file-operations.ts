// The file system work of an action, as synchronous functions over plain data: create an input root, remove a tree.
//
// They run in a thread of their own (file-thread.ts): synchronous calls there take a third to a sixth of what promises
// cost on the event loop (executor.md 3). Invariant: nothing here follows a symlink that an action could have made.
// Looking at outputs is output-scan.ts.

import {
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  lutimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { stampOf, type DirectoryStamp, type EntryCheck } from "./directory-stamp.ts";

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface NewFile {
  /** Relative to the root for input roots, absolute for cache entries. */
  readonly path: string;
  /** A file to copy, or the bytes. */
  readonly content: string | Uint8Array;
  readonly mode: number;
  readonly mtimeSeconds: number;
}

export interface MaterializeJob {
  readonly root: string;
  /** Who owns directories, symlinks and private files; the server's user when undefined. */
  readonly owner: Owner | undefined;
  /** Absolute, created first and never given away: what `root` lies in. */
  readonly ownDirectories: readonly string[];
  /** An empty directory that belongs to `owner`. */
  readonly rootExists: boolean;
  /** Relative to `root`, parents first; "" is the root itself. */
  readonly directories: readonly string[];
  /** Those of them that are never given away. */
  readonly readOnlyDirectories: ReadonlySet<string>;
  /** `movePaths[i]` is the directory that lay at `moveSources[i]`, with all that is in it. */
  readonly movePaths: readonly string[];
  readonly moveSources: readonly string[];
  /** `linkPaths[i]` becomes a hard link to `linkSources[i]`. */
  readonly linkPaths: readonly string[];
  readonly linkSources: readonly string[];
  /** Private files. */
  readonly files: readonly NewFile[];
  readonly symlinkPaths: readonly string[];
  readonly symlinkTargets: readonly string[];
  /** Directories that must exist in the end, as names: the parents of outputs. */
  readonly outputParents: readonly (readonly string[])[];
  readonly directoryProperties: readonly {
    readonly path: string;
    readonly mtimeSeconds: number | undefined;
    readonly mode: number | undefined;
  }[];
  /** Directories whose stamps are the answer, in order; `stampChecks[i]` says what of `stampPaths[i]` counts. */
  readonly stampPaths: readonly string[];
  readonly stampChecks: readonly EntryCheck[];
}

/**
 * Creates a part of an input root; large ones take several jobs, so that their bytes need not be in memory at once.
 * Throws what the system call throws; what was made until then is the caller's to remove.
 */
export function materialize(job: MaterializeJob): DirectoryStamp[] {
  const { root, owner } = job;
  for (const path of job.ownDirectories) mkdirSync(path, 0o755);
  for (const path of job.directories) {
    const isKept = job.readOnlyDirectories.has(path);
    if (path !== "") makeDirectory(`${root}/${path}`, isKept ? undefined : owner);
    else if (!job.rootExists) makeDirectory(root, isKept ? undefined : owner);
    else if (isKept && owner !== undefined) chownSync(root, process.getuid!(), process.getgid!());
  }
  for (let i = 0; i < job.movePaths.length; i++) renameSync(job.moveSources[i]!, `${root}/${job.movePaths[i]!}`);
  for (let i = 0; i < job.linkPaths.length; i++) linkOrCopy(job.linkSources[i]!, `${root}/${job.linkPaths[i]!}`);
  for (const file of job.files) {
    const path = `${root}/${file.path}`;
    writeNewFile({ ...file, path });
    if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
  }
  for (let i = 0; i < job.symlinkPaths.length; i++) {
    const path = `${root}/${job.symlinkPaths[i]!}`;
    symlinkSync(job.symlinkTargets[i]!, path);
    if (owner !== undefined) lchownSync(path, owner.uid, owner.gid);
  }
  makeDirectories(root, job.outputParents, owner);
  // Last, because creating an entry changes the time of its directory, and a mode may forbid creating any.
  for (const { path, mtimeSeconds, mode } of job.directoryProperties) {
    const directory = path === "" ? root : `${root}/${path}`;
    if (mode !== undefined) chmodSync(directory, mode);
    if (mtimeSeconds !== undefined) lutimesSync(directory, mtimeSeconds, mtimeSeconds);
  }
  return job.stampPaths.map((path, index) => stampOf(`${root}/${path}`, job.stampChecks[index]!));
}

function makeDirectory(path: string, owner: Owner | undefined): void {
  mkdirSync(path, 0o755);
  if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
}

/** ext4 has at most 65,000 names for one file; the name after that gets a copy. */
function linkOrCopy(source: string, path: string): void {
  try {
    linkSync(source, path);
  } catch (error) {
    if (errorCode(error) !== "EMLINK") throw error;
    const { mode, mtimeMs } = statSync(source);
    writeNewFile({ path, content: source, mode: mode & 0o777, mtimeSeconds: mtimeMs / 1000 });
  }
}

/** Creates a file that must not exist; content, mode and time are as given whatever the umask. */
export function writeNewFile(file: NewFile): void {
  const { path, content, mode, mtimeSeconds } = file;
  if (typeof content === "string") {
    copyFileSync(content, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  } else {
    writeFileSync(path, content, { flag: "wx", mode: 0o600 });
  }
  chmodSync(path, mode);
  lutimesSync(path, mtimeSeconds, mtimeSeconds);
}

export function writeFiles(files: readonly NewFile[]): void {
  for (const file of files) writeNewFile(file);
}

/** Creates `root/names` with every directory on the way that is absent. */
function makeDirectories(root: string, paths: readonly (readonly string[])[], owner: Owner | undefined): void {
  const isDirectory = new Map<string, boolean>();
  for (const names of paths) {
    let path = root;
    for (const name of names) {
      path += `/${name}`;
      let isFine = isDirectory.get(path);
      if (isFine === undefined) {
        isFine = ensureDirectory(path, owner);
        isDirectory.set(path, isFine);
      }
      if (!isFine) break;
    }
  }
}

/** False when an input is in the way: the action decides what becomes of it. */
function ensureDirectory(path: string, owner: Owner | undefined): boolean {
  try {
    makeDirectory(path, owner);
    return true;
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    return lstatSync(path).isDirectory();
  }
}

/**
 * Removes files or trees; absent ones are fine. Directories that forbid it are opened first. One that cannot be removed
 * does not keep the others; the first error is thrown in the end.
 */
export function removeTrees(paths: readonly string[]): void {
  const errors: unknown[] = [];
  for (const path of paths) {
    try {
      removeTree(path);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

function removeTree(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // Safe: a second attempt follows, whose error counts. Mode 000 directories stop everybody but root.
    openDirectories(path);
    rmSync(path, { recursive: true, force: true });
  }
}

/** Gives the owner all rights on every directory below `path`, iteratively. */
function openDirectories(path: string): void {
  const stack = [path];
  while (stack.length > 0) {
    const directory = stack.pop()!;
    if (!lstatSync(directory).isDirectory()) continue;
    chmodSync(directory, 0o700);
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) stack.push(join(directory, entry.name));
    }
  }
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
