// Chooses the subtrees of an input root that come as read-only mounts from the tree cache, and prunes them from the root.
//
// Only what the client marked with SubtreeReadOnly (BuildStream marks whole root file systems): elsewhere an action may
// write beside its inputs. Never a directory that is, contains or lies in an output or the working directory, and never
// two mounts with a content in common, which would then share an inode (input-plan.ts). Source: executor.md 3.4.

import { emptyDigest, type Digest } from "../digest/digest.ts";
import type { InputDirectory } from "./input-directory.ts";
import { readDirectory } from "./input-tree.ts";
import type { CachedTree, TreeCache, TreeSource } from "./tree-cache.ts";

export interface MountedSubtree {
  /** Relative to the input root. */
  readonly path: string;
  readonly tree: CachedTree;
}

export interface PrunedRoot {
  readonly rootDigest: Digest;
  /** Directories in place of those that lost a subtree, under made-up hashes; `rootDigest` may be one of them. */
  readonly directories: ReadonlyMap<string, InputDirectory>;
  readonly mounts: readonly MountedSubtree[];
}

export interface SubtreeSource extends TreeSource {
  readonly treeCache: TreeCache | undefined;
}

/** bwrap 0.8 re-reads all mounts for each one it makes: 10 cost 1.3 ms, 50 cost 9. */
const MAX_MOUNTS = 16;

/** `writablePaths` are the outputs and the working directory, as names. The caller releases the trees. */
export async function pruneReadOnlySubtrees(
  rootDigest: Digest,
  writablePaths: readonly (readonly string[])[],
  source: SubtreeSource,
): Promise<PrunedRoot> {
  const root = await readDirectory(rootDigest, { store: source.store, cache: source.directoryCache });
  const pruned: PrunedRoot = { rootDigest, directories: new Map(), mounts: [] };
  if (root?.properties?.subtreeReadOnly !== true || source.treeCache === undefined) return pruned;
  return new Pruning(source, writablePaths).prune(rootDigest, root);
}

class Pruning {
  readonly #source: SubtreeSource;
  readonly #writable: ReadonlySet<string>;
  readonly #ancestors: ReadonlySet<string>;
  readonly #directories = new Map<string, InputDirectory>();
  readonly #mounts: MountedSubtree[] = [];

  constructor(source: SubtreeSource, writablePaths: readonly (readonly string[])[]) {
    this.#source = source;
    this.#writable = new Set(writablePaths.map((names) => names.join("/")));
    this.#ancestors = new Set(
      writablePaths.flatMap((names) => names.map((_, length) => names.slice(0, length).join("/"))),
    );
  }

  async prune(rootDigest: Digest, root: InputDirectory): Promise<PrunedRoot> {
    // An output that is the root itself holds everything.
    if (this.#writable.has("")) return { rootDigest, directories: new Map(), mounts: [] };
    try {
      const digest = await this.#visit("", rootDigest, root);
      return { rootDigest: digest, directories: this.#directories, mounts: this.#mounts };
    } catch (error) {
      for (const { tree } of this.#mounts) tree.release();
      throw error;
    }
  }

  /** Returns the digest of what is left of the directory at `path`. */
  async #visit(path: string, digest: Digest, directory: InputDirectory): Promise<Digest> {
    const children: { name: string; digest: Digest }[] = [];
    let isChanged = false;
    for (const child of directory.directories) {
      const left = await this.#rest(path === "" ? child.name : `${path}/${child.name}`, child.digest);
      isChanged ||= left !== child.digest;
      children.push({ name: child.name, digest: left });
    }
    if (!isChanged) return digest;
    const made = { fn: digest.fn, hash: `pruned:${path}`, sizeBytes: 1 };
    this.#directories.set(made.hash, { ...directory, directories: children });
    return made;
  }

  async #rest(path: string, digest: Digest): Promise<Digest> {
    if (this.#writable.has(path)) return digest;
    const { store, directoryCache } = this.#source;
    const directory = await readDirectory(digest, { store, cache: directoryCache });
    if (directory === undefined || directory.properties?.subtreeReadOnly === false) return digest;
    if (!this.#ancestors.has(path) && (await this.#mount(path, digest))) return emptyDigest(digest.fn);
    // Parts of what cannot be mounted as a whole perhaps can.
    return this.#mounts.length < MAX_MOUNTS ? this.#visit(path, digest, directory) : digest;
  }

  async #mount(path: string, digest: Digest): Promise<boolean> {
    if (this.#mounts.length >= MAX_MOUNTS) return false;
    const tree = await this.#source.treeCache?.acquire(digest, this.#source);
    if (tree === undefined) return false;
    if (this.#mounts.some((mount) => haveCommonContent(mount.tree.contents, tree.contents))) {
      tree.release();
      return false;
    }
    this.#mounts.push({ path, tree });
    return true;
  }
}

function haveCommonContent(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  for (const key of small.keys()) if (large.has(key)) return true;
  return false;
}
