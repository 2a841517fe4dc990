// Materialized subtrees, by the digest of their Directory: made once, mounted read-only into many sandboxes.
//
// Invariant: a tree in the cache is complete and never changes; nobody but the server can write it, and sandboxes see
// it through read-only mounts only, which also protect it from actions of the server's own user. It stays while an
// action uses it. Everything in it can be made again, so the cache is emptied at start. Source: executor.md 3.4.

import type { DirectoryCache } from "./directory-cache.ts";
import type { Pin } from "../cas/blob-store.ts";
import { digestKey, type Digest } from "../digest/digest.ts";
import { planInputRoot, replicaKey, type InputPlan } from "./input-plan.ts";
import { assertPresent, readInputTree, type RecentTrees } from "./input-tree.ts";
import { materializePlan, type MaterializeSource } from "./materialize-plan.ts";

export interface CachedTree {
  readonly path: string;
  readonly entryCount: number;
  /** How often each content (replicaKey) occurs in it; another part of the same root must not have any of them. */
  readonly contents: ReadonlyMap<string, number>;
  release(): void;
}

export interface TreeSource extends MaterializeSource {
  readonly directoryCache: DirectoryCache;
  readonly recentTrees: RecentTrees;
}

export interface TreeCacheOptions {
  readonly directory: string;
  /** Files and directories of all trees together: each is an inode or a name on the disk. */
  readonly maxEntries: number;
}

interface Entry {
  readonly path: string;
  readonly tree: Promise<Omit<CachedTree, "release"> | undefined>;
  entryCount: number;
  uses: number;
}

/** Below it a mount (0.13 ms and more with each further one) costs more than the links. */
const MIN_ENTRIES = 40;
/** Digests of subtrees that cannot be cached; forgetting one costs reading it again. */
const MAX_UNSUITABLE = 16_384;

export class TreeCache {
  readonly #options: TreeCacheOptions;
  /** In order of last use. */
  readonly #entries = new Map<string, Entry>();
  readonly #unsuitable = new Set<string>();
  #entryCount = 0;
  #nextTree = 1;

  /** `directory` exists and is empty. */
  constructor(options: TreeCacheOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#entries.size;
  }

  /**
   * Returns the tree of that Directory, making it when it is absent; undefined when it is too small, has a directory
   * marked as writable, or blobs of it are missing (whoever reads the whole root reports them all).
   */
  async acquire(digest: Digest, source: TreeSource): Promise<CachedTree | undefined> {
    const key = digestKey(digest);
    if (this.#unsuitable.has(key)) return undefined;
    const entry = this.#entries.get(key) ?? this.#begin(digest, source);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.uses++;
    const release = () => {
      entry.uses--;
      this.#shrink(source);
    };
    try {
      const tree = await entry.tree;
      if (tree !== undefined) return { ...tree, release };
      this.#rememberUnsuitable(key);
    } catch {
      // Safe: without this tree its files are staged one by one, and what is wrong with them shows there.
    }
    if (this.#entries.get(key) === entry) {
      this.#entries.delete(key);
      this.#remove([entry.path], source); // half of it may be there
    }
    release();
    return undefined;
  }

  #begin(digest: Digest, source: TreeSource): Entry {
    const path = `${this.#options.directory}/${this.#nextTree++}`;
    const entry: Entry = { path, tree: this.#make(digest, path, source), entryCount: 0, uses: 0 };
    entry.tree.then(
      (tree) => {
        entry.entryCount = tree?.entryCount ?? 0;
        this.#entryCount += entry.entryCount;
      },
      () => undefined, // acquire() handles it
    );
    return entry;
  }

  async #make(digest: Digest, path: string, source: TreeSource) {
    const { store, directoryCache: cache, recentTrees: trees } = source;
    let pin: Pin | undefined;
    try {
      const tree = await readInputTree(digest, { store, cache, trees });
      const plan = planInputRoot(tree);
      if (!isSuitable(plan)) return undefined;
      pin = store.pin(plan.files.map((file) => file.digest));
      await assertPresent(tree, store);
      await materializePlan(plan, source, {
        root: path,
        ownDirectories: [],
        rootExists: false,
        owner: undefined,
        mayShareFiles: true,
        outputParents: [],
        isStamped: false,
      });
      const contents = new Map<string, number>();
      for (const file of plan.files) {
        const key = replicaKey(file);
        contents.set(key, (contents.get(key) ?? 0) + 1);
      }
      return { path, entryCount: countEntries(plan), contents };
    } finally {
      pin?.release();
    }
  }

  #shrink(source: TreeSource): void {
    const doomed: string[] = [];
    for (const [key, entry] of this.#entries) {
      if (this.#entryCount <= this.#options.maxEntries) break;
      if (entry.uses > 0) continue;
      this.#entries.delete(key);
      this.#entryCount -= entry.entryCount;
      doomed.push(entry.path);
    }
    if (doomed.length > 0) this.#remove(doomed, source);
  }

  #remove(paths: readonly string[], source: TreeSource): void {
    // Nobody waits for it, and what could not be removed is swept at the next start.
    source.threads.run("removeTrees", paths).catch(() => undefined);
  }

  #rememberUnsuitable(key: string): void {
    if (this.#unsuitable.size >= MAX_UNSUITABLE) this.#unsuitable.clear();
    this.#unsuitable.add(key);
  }
}

/** A mount is read-only as a whole. */
function isSuitable(plan: InputPlan): boolean {
  return countEntries(plan) >= MIN_ENTRIES && !plan.hasWritableMarker;
}

function countEntries(plan: InputPlan): number {
  return plan.directories.length + plan.files.length + plan.symlinks.length;
}
