// Reads the Directories of an input root: every distinct one once, from the cache or the CAS, level by level.
//
// Invariant: what is missing is collected, directories and files alike, and reported together: a client uploads once
// instead of discovering its losses one by one. Reading is iterative, so depth costs no stack. A tree is a pure function
// of its root's digest, so trees that were read lately are remembered; what is in the CAS is asked for each action anew.

import { invalidArgument } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { DigestBatch } from "../digest/digest-batch.ts";
import { digestKey, isEmptyDigest, type Digest } from "../digest/digest.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import type { DirectoryCache } from "./directory-cache.ts";
import { EMPTY_DIRECTORY, type InputDirectory } from "./input-directory.ts";

/** The directories of one input root by hash; all have the digest function of the root. */
export interface InputTree {
  readonly rootDigest: Digest;
  readonly directories: ReadonlyMap<string, InputDirectory>;
  /** Every distinct digest of the tree, of directories and files. */
  readonly digests: DigestBatch;
}

/** Reads of the CAS at once; directories come one small blob at a time. */
const READS_AT_ONCE = 32;
/** One Directory of 100,000 entries has some 11 MB; larger than this is a mistake or an attack. */
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;
/** Entries of the expanded tree; the largest known source trees have a third of it. */
export const MAX_INPUT_ENTRIES = 1_000_000;

export interface InputTreeSource {
  readonly store: BlobStore;
  readonly cache: DirectoryCache;
  readonly trees: RecentTrees;
}

/** Directories of the tree that are known already and differ from what their digest stands for: parts are left out. */
export type KnownDirectories = ReadonlyMap<string, InputDirectory>;

/** Digests of all remembered trees together: 40 bytes each, and the decoded directories they belong to. */
const MAX_RECENT_DIGESTS = 50_000;

/** Trees read lately, by the digest of their root. */
export class RecentTrees {
  /** In order of last use. */
  readonly #trees = new Map<string, InputTree>();
  #digestCount = 0;

  find(rootDigest: Digest): InputTree | undefined {
    const key = digestKey(rootDigest);
    const tree = this.#trees.get(key);
    if (tree === undefined) return undefined;
    this.#trees.delete(key);
    this.#trees.set(key, tree);
    return tree;
  }

  add(tree: InputTree): void {
    const key = digestKey(tree.rootDigest);
    const { count } = tree.digests;
    if (count > MAX_RECENT_DIGESTS / 2 || this.#trees.has(key)) return;
    this.#trees.set(key, tree);
    this.#digestCount += count;
    for (const [oldKey, old] of this.#trees) {
      if (this.#digestCount <= MAX_RECENT_DIGESTS) return;
      this.#trees.delete(oldKey);
      this.#digestCount -= old.digests.count;
    }
  }
}

/**
 * Reads the tree. Throws FAILED_PRECONDITION naming everything missing when a directory is, INVALID_ARGUMENT for
 * directories that are not canonical. Whether its files are present is assertPresent()'s to say.
 */
export async function readInputTree(
  rootDigest: Digest,
  source: InputTreeSource,
  known: KnownDirectories = new Map(),
): Promise<InputTree> {
  const remembered = known.size === 0 ? source.trees.find(rootDigest) : undefined;
  if (remembered !== undefined) return remembered;
  const directories = new Map<string, InputDirectory>();
  const digests = new DigestBatch();
  digests.clear(rootDigest.fn);
  const missing: Digest[] = [];
  const isNewDirectory = makeIsNew(missing);
  const isNewFile = makeIsNew(missing);
  isNewDirectory(rootDigest);
  let level = [rootDigest];
  while (level.length > 0) {
    for (const digest of level) if (!known.has(digest.hash)) digests.add(digest);
    const loaded = await readDirectories(level, source, known);
    const next: Digest[] = [];
    for (const [position, digest] of level.entries()) {
      const directory = loaded[position];
      if (directory === undefined) {
        missing.push(digest);
        continue;
      }
      directories.set(digest.hash, directory);
      for (const { digest: file } of directory.files) if (isNewFile(file)) digests.add(file);
      for (const { digest: child } of directory.directories) if (isNewDirectory(child)) next.push(child);
    }
    level = next;
  }
  const tree = { rootDigest, directories, digests };
  if (missing.length > 0) await assertPresent(tree, source.store, missing);
  assertEntryCount(rootDigest, directories);
  if (known.size === 0) source.trees.add(tree);
  return tree;
}

/**
 * Makes sure that every blob of the tree is present, and touches it. Whoever needs some of them pins them first.
 * Throws FAILED_PRECONDITION naming everything missing, `missing` included.
 */
export async function assertPresent(
  { digests }: InputTree,
  store: BlobStore,
  missing: readonly Digest[] = [],
): Promise<void> {
  const absent = digests.count === 0 ? [] : await store.findMissing(digests);
  const all = [...missing, ...Array.from(absent, (position) => digests.digestAt(position))];
  if (all.length > 0) throw missingBlobs(all, "Input root");
}

/** One hash with two sizes: at most one of them exists, the other is missing by definition. */
function makeIsNew(missing: Digest[]): (digest: Digest) => boolean {
  const sizes = new Map<string, number>();
  return (digest) => {
    const knownSize = sizes.get(digest.hash);
    if (knownSize === undefined) sizes.set(digest.hash, digest.sizeBytes);
    else if (knownSize !== digest.sizeBytes) missing.push(digest);
    return knownSize === undefined;
  };
}

async function readDirectories(
  digests: readonly Digest[],
  source: InputTreeSource,
  known: KnownDirectories,
): Promise<(InputDirectory | undefined)[]> {
  const directories: (InputDirectory | undefined)[] = Array.from({ length: digests.length });
  const absent: number[] = [];
  for (const [position, digest] of digests.entries()) {
    const found = known.get(digest.hash) ?? source.cache.find(digest);
    directories[position] = isEmptyDigest(digest) ? EMPTY_DIRECTORY : found;
    if (directories[position] === undefined) absent.push(position);
  }
  for (let start = 0; start < absent.length; start += READS_AT_ONCE) {
    const positions = absent.slice(start, start + READS_AT_ONCE);
    const read = await Promise.all(positions.map((position) => readDirectory(digests[position]!, source)));
    for (const [index, position] of positions.entries()) directories[position] = read[index];
  }
  return directories;
}

/** One directory, from the cache or the CAS; undefined when it is missing. */
export async function readDirectory(
  digest: Digest,
  source: Omit<InputTreeSource, "trees">,
): Promise<InputDirectory | undefined> {
  if (isEmptyDigest(digest)) return EMPTY_DIRECTORY;
  const cached = source.cache.find(digest);
  if (cached !== undefined) return cached;
  if (digest.sizeBytes > MAX_DIRECTORY_BYTES) {
    throw invalidArgument(
      `Input directory "${digest.hash}/${digest.sizeBytes}" is larger than the ${MAX_DIRECTORY_BYTES} bytes accepted`,
    );
  }
  const bytes = await source.store.get(digest);
  return bytes === undefined ? undefined : source.cache.add(digest, bytes);
}

/**
 * Counts the entries of the expanded tree without expanding it: a few directories that each name the next one twice
 * stand for more files than any disk holds.
 */
function assertEntryCount(rootDigest: Digest, directories: ReadonlyMap<string, InputDirectory>): void {
  const counts = new Map<string, number>();
  const stack = [rootDigest.hash];
  while (stack.length > 0) {
    const hash = stack.at(-1)!;
    const directory = directories.get(hash)!;
    const pending = directory.directories.filter((child) => !counts.has(child.digest.hash));
    if (pending.length > 0 && !counts.has(hash)) {
      stack.push(...new Set(pending.map((child) => child.digest.hash)));
      continue;
    }
    stack.pop();
    let count = directory.files.length + directory.symlinks.length + directory.directories.length;
    for (const child of directory.directories) count += counts.get(child.digest.hash)!;
    if (count > MAX_INPUT_ENTRIES) {
      throw invalidArgument(`Input root has more than the ${MAX_INPUT_ENTRIES} entries accepted`);
    }
    counts.set(hash, count);
  }
}
