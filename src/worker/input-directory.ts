// One Directory message of an input root, decoded and checked: the canonical form, or INVALID_ARGUMENT.
//
// Invariant: names are single path segments, unique and sorted by their UTF-8 bytes, digests are well formed. So the
// files of a tree can be made in any order without one leading out of another. Source: wire/reapi.md 5.1.
// Unknown string properties on inputs are accepted: BuildStream marks directories with SubtreeReadOnly.

import { invalidArgument } from "../base/status.ts";
import { parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { Directory, type NodeProperties } from "../proto/remote_execution.ts";
import { decode } from "./action-command.ts";
import { assertNameLength, clip } from "./output-paths.ts";

export interface InputFile {
  readonly name: string;
  readonly digest: Digest;
  readonly isExecutable: boolean;
  readonly properties: InputProperties | undefined;
}

export interface InputSubdirectory {
  readonly name: string;
  readonly digest: Digest;
}

export interface InputSymlink {
  readonly name: string;
  readonly target: string;
  readonly properties: InputProperties | undefined;
}

/** Only what staging honours; undefined fields were not given. */
export interface InputProperties {
  readonly mtimeSeconds: number | undefined;
  /** Permission bits, 0 to 0o777. */
  readonly unixMode: number | undefined;
  /** BuildStream's SubtreeReadOnly. */
  readonly subtreeReadOnly: boolean | undefined;
}

export interface InputDirectory {
  readonly files: readonly InputFile[];
  readonly directories: readonly InputSubdirectory[];
  readonly symlinks: readonly InputSymlink[];
  readonly properties: InputProperties | undefined;
}

export const EMPTY_DIRECTORY: InputDirectory = { files: [], directories: [], symlinks: [], properties: undefined };

/** The kernel takes 4,095 bytes of symlink target. */
const MAX_TARGET_BYTES = 4095;
/** Setuid and setgid mean nothing inside a sandbox without new privileges, and would mean something outside. */
const PERMISSION_BITS = 0o777;

/** Decodes the Directory stored under `digest`. Throws INVALID_ARGUMENT naming the digest and the entry. */
export function parseInputDirectory(digest: Digest, bytes: Uint8Array): InputDirectory {
  const what = `Input directory "${digest.hash}/${digest.sizeBytes}"`;
  const message = decode(Directory, bytes, what);
  assertCanonical(message, what);
  return {
    files: message.files.map((file) => ({
      name: file.name,
      digest: parseChildDigest(digest.fn, file.digest, what, file.name),
      isExecutable: file.isExecutable,
      properties: parseProperties(file.nodeProperties),
    })),
    directories: message.directories.map((directory) => ({
      name: directory.name,
      digest: parseChildDigest(digest.fn, directory.digest, what, directory.name),
    })),
    symlinks: message.symlinks.map((symlink) => ({
      name: symlink.name,
      target: parseTarget(symlink.target, `${what}: symlink ${quoted(symlink.name)}`),
      properties: parseProperties(symlink.nodeProperties),
    })),
    properties: parseProperties(message.nodeProperties),
  };
}

function assertCanonical(message: Directory, what: string): void {
  const lists = [message.files, message.directories, message.symlinks];
  for (const list of lists) assertSorted(list, what);
  // Each list is unique by itself now; a name in two lists shows when all are put together.
  const used = lists.filter((list) => list.length > 0);
  if (used.length < 2) return;
  const names = new Set<string>();
  for (const list of used) {
    for (const { name } of list) {
      if (names.has(name)) throw invalidArgument(`${what} has the name ${quoted(name)} more than once`);
      names.add(name);
    }
  }
}

function assertSorted(nodes: readonly { readonly name: string }[], what: string): void {
  let previous: string | undefined;
  for (const { name } of nodes) {
    assertName(name, what);
    if (previous !== undefined) {
      const order = compareUtf8(previous, name);
      if (order === 0) throw invalidArgument(`${what} has the name ${quoted(name)} more than once`);
      if (order > 0) {
        throw invalidArgument(`${what} is not sorted: ${quoted(previous)} comes before ${quoted(name)}`);
      }
    }
    previous = name;
  }
}

function assertName(name: string, what: string): void {
  if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
    throw invalidArgument(`${what} has the name ${quoted(name)}: expected one path segment`);
  }
  assertNameLength(name, what);
}

function parseChildDigest(fn: DigestFunction, wire: WireDigest, what: string, name: string): Digest {
  return parseDigest(fn, wire, `${what}: digest of ${quoted(name)}`);
}

type WireDigest = { readonly hash: string; readonly sizeBytes: number } | undefined;

function parseTarget(target: string, what: string): string {
  if (target === "" || target.includes("\0") || Buffer.byteLength(target) > MAX_TARGET_BYTES) {
    throw invalidArgument(`${what} has the target ${quoted(target)}: expected 1 to ${MAX_TARGET_BYTES} bytes, no NUL`);
  }
  return target;
}

function parseProperties(properties: NodeProperties | undefined): InputProperties | undefined {
  if (properties === undefined) return undefined;
  const { mtime, unixMode } = properties;
  const readOnly = properties.properties.find((property) => property.name === "SubtreeReadOnly")?.value;
  return {
    mtimeSeconds: mtime === undefined ? undefined : mtime.seconds + mtime.nanos / 1e9,
    unixMode: unixMode === undefined ? undefined : unixMode & PERMISSION_BITS,
    subtreeReadOnly: readOnly === undefined ? undefined : readOnly === "true",
  };
}

function quoted(text: string): string {
  return JSON.stringify(clip(text));
}

/**
 * Orders strings by their UTF-8 bytes. UTF-16 code units have the same order except that surrogates (above U+FFFF)
 * sort before U+E000..U+FFFF; moving the surrogates behind them mends it.
 */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left !== right) return rank(left) - rank(right);
  }
  return a.length - b.length;
}

function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}
