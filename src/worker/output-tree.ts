// An output directory as messages: Directory by Directory from the leaves up, then the Tree, byte for byte.
//
// Invariant: the Tree is canonical and topologically sorted: identical directories once, the root first, parents before
// children, and its bytes are the already serialized Directory messages, so the digest of the root is that of what the
// Tree holds. Source: wire/reapi.md 5.1 and 5.5.

import { toWireDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { Directory, type NodePropertiesInit } from "../proto/remote_execution.ts";
import { compareUtf8 } from "./input-directory.ts";
import type { RequestedOutputs } from "./action-command.ts";
import type { ScannedEntry, ScannedNode, Times } from "./output-scan.ts";

export interface EncodedDirectory {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

/** The distinct directories of an output, root first, every one before its children. */
export type EncodedDirectories = readonly EncodedDirectory[];

export interface TreeContext {
  readonly fn: DigestFunction;
  readonly digestOf: (fn: DigestFunction, data: Uint8Array) => Digest;
  /** The digest of a file that was found at this path below the build directory's root. */
  readonly fileDigest: (path: string) => Digest;
  readonly nodeProperties: RequestedOutputs["nodeProperties"];
}

type DirectoryNode = Extract<ScannedNode, { kind: "directory" }>;

/** Encodes the directory found at `path`. The scan bounded its depth, so recursion is safe. */
export function encodeDirectories(path: string, root: DirectoryNode, context: TreeContext): EncodedDirectories {
  // Children are finished before their parents; the first to be finished of several equal ones is kept, which puts it
  // before each of its parents. Reversed, every parent comes before its children.
  const finished = new Map<string, EncodedDirectory>();
  const encode = (at: string, node: DirectoryNode): Digest => {
    const message = directoryMessage(at, node, context, encode);
    const bytes = Directory.encode(message);
    const digest = context.digestOf(context.fn, bytes);
    if (!finished.has(digest.hash)) finished.set(digest.hash, { digest, bytes });
    return digest;
  };
  encode(path, root);
  return [...finished.values()].toReversed();
}

function directoryMessage(
  path: string,
  node: DirectoryNode,
  context: TreeContext,
  encode: (path: string, node: DirectoryNode) => Digest,
) {
  const at = (name: string) => (path === "" ? name : `${path}/${name}`);
  const properties = (times: Times) => nodeProperties(times, context.nodeProperties);
  const entries = node.entries.toSorted((a, b) => compareUtf8(a.name, b.name));
  return {
    files: ofKind(entries, "file").map(({ name, node: file }) => ({
      name,
      digest: toWireDigest(context.fileDigest(at(name))),
      isExecutable: isExecutable(file),
      nodeProperties: properties(file),
    })),
    directories: ofKind(entries, "directory").map(({ name, node: child }) => ({
      name,
      digest: toWireDigest(encode(at(name), child)),
    })),
    symlinks: ofKind(entries, "symlink").map(({ name, node: symlink }) => ({
      name,
      target: symlink.target,
      nodeProperties: properties(symlink),
    })),
    nodeProperties: properties(node),
  };
}

function ofKind<Kind extends ScannedNode["kind"]>(entries: readonly ScannedEntry[], kind: Kind) {
  return entries.filter(
    (entry): entry is { name: string; node: Extract<ScannedNode, { kind: Kind }> } => entry.node.kind === kind,
  );
}

/** The owner's bit, as Bazel and the others read it. */
export function isExecutable(times: Times): boolean {
  return (times.mode & 0o100) !== 0;
}

/** undefined when nothing was asked for, so that equal contents give equal messages. */
export function nodeProperties(
  times: Times,
  wanted: RequestedOutputs["nodeProperties"],
): NodePropertiesInit | undefined {
  if (!wanted.mtime && !wanted.unixMode) return undefined;
  return {
    mtime: wanted.mtime ? { seconds: times.mtimeSeconds, nanos: times.mtimeNanos } : undefined,
    unixMode: wanted.unixMode ? times.mode : undefined,
  };
}

const TAG_ROOT = 0x0a;
const TAG_CHILD = 0x12;

/** The bytes of the Tree: records of root and children in order, nothing else. */
export function encodeTree(directories: EncodedDirectories): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [position, { bytes }] of directories.entries()) {
    parts.push(recordHeader(position === 0 ? TAG_ROOT : TAG_CHILD, bytes.length), bytes);
  }
  return Buffer.concat(parts);
}

function recordHeader(tag: number, length: number): Uint8Array {
  const bytes = [tag];
  let rest = length;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}
