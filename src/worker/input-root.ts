// Materializes an input root: reads its directories, lays it out, and creates it on disk.
//
// Invariant: an action never gets a file that it could change for others. Where actions have a user of their own, files
// are hard links to what only the server may write; elsewhere every action gets copies; what the client marked as
// read-only may be a mount of a cached tree. What is made from blobs keeps them pinned until the caller releases them.
// Reading is input-tree.ts, layout input-plan.ts, creating materialize-plan.ts.

import { invalidArgument } from "../base/status.ts";
import type { Digest } from "../digest/digest.ts";
import type { BuildDirectory } from "./build-directories.ts";
import type { DirectoryCache } from "./directory-cache.ts";
import { markExtended, type LaidOutDirectory } from "./directory-layout.ts";
import type { Owner } from "./file-operations.ts";
import { planInputRoot, type DirectorySupply } from "./input-plan.ts";
import { assertPresent, readInputTree, type InputTree, type RecentTrees } from "./input-tree.ts";
import { materializePlan, type MaterializeSource } from "./materialize-plan.ts";
import { pruneReadOnlySubtrees, type MountedSubtree } from "./read-only-subtrees.ts";
import type { TreeCache } from "./tree-cache.ts";

export interface InputRootSource extends MaterializeSource {
  readonly directoryCache: DirectoryCache;
  readonly recentTrees: RecentTrees;
  /** undefined: nothing can be mounted. */
  readonly treeCache: TreeCache | undefined;
  /** Actions have users of their own, so they may be given links to the server's files. */
  readonly sharesFiles: boolean;
}

export interface InputRootRequest {
  readonly digest: Digest;
  readonly directory: BuildDirectory;
  /** The root of `directory` exists, empty and owned by `owner`. */
  readonly isMade: boolean;
  readonly owner: Owner | undefined;
  readonly workingDirectory: readonly string[];
  readonly outputs: readonly (readonly string[])[];
  /** Directories that the sandbox needs beside those of the input root. */
  readonly mountPoints: readonly string[];
  /** Directories that need not be made. */
  readonly supply: DirectorySupply | undefined;
  /** Is called with digests before they are used; the caller unpins them after the action. */
  readonly pin: (digests: Iterable<Digest>) => void;
}

export interface InputRoot {
  /** Without the subtrees that are mounted. */
  readonly tree: InputTree;
  /** To be mounted read-only; released by the caller after the action. */
  readonly mounts: readonly MountedSubtree[];
  readonly layout: LaidOutDirectory;
}

/**
 * Creates `request.directory` with the input root in it. Throws FAILED_PRECONDITION naming every missing blob,
 * INVALID_ARGUMENT for trees that cannot be, RESOURCE_EXHAUSTED when the disk is full; what was created by then is the
 * caller's to discard.
 */
export async function materializeInputRoot(source: InputRootSource, request: InputRootRequest): Promise<InputRoot> {
  const { workingDirectory, outputs, directory, owner } = request;
  const pruned = await pruneReadOnlySubtrees(request.digest, [workingDirectory, ...outputs], source);
  try {
    const { store, directoryCache: cache, recentTrees: trees } = source;
    const tree = await readInputTree(pruned.rootDigest, { store, cache, trees }, pruned.directories);
    assertDirectory(tree, workingDirectory);
    const { supply } = request;
    const plan = planInputRoot(tree, {
      occurrences: countContents(pruned.mounts),
      supply,
      mayShareFiles: source.sharesFiles,
    });
    const outputParents = [...outputs.map((names) => names.slice(0, -1)), ...request.mountPoints.map((name) => [name])];
    markExtended(plan.layout, outputParents);
    request.pin(plan.files.map((file) => file.digest));
    await assertPresent(tree, store);
    await materializePlan(plan, source, {
      root: directory.rootPath,
      ownDirectories: request.isMade ? [] : [directory.path],
      rootExists: request.isMade,
      owner,
      mayShareFiles: source.sharesFiles,
      outputParents,
      isStamped: supply !== undefined,
    });
    return { tree, mounts: pruned.mounts, layout: plan.layout };
  } catch (error) {
    for (const mount of pruned.mounts) mount.tree.release();
    throw error;
  }
}

/** Throws INVALID_ARGUMENT when the input root has no such directory. */
function assertDirectory(tree: InputTree, names: readonly string[]): void {
  let directory = tree.directories.get(tree.rootDigest.hash);
  for (const name of names) {
    const child = directory?.directories.find((entry) => entry.name === name);
    if (child === undefined) {
      const path = JSON.stringify(names.join("/"));
      throw invalidArgument(
        `working_directory ${path} is not in the input root: ${JSON.stringify(name)} is no directory there`,
      );
    }
    directory = tree.directories.get(child.digest.hash);
  }
}

/** Contents of mounted subtrees have taken their first replicas. */
function countContents(mounts: readonly MountedSubtree[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { tree } of mounts) {
    for (const [key, count] of tree.contents) counts.set(key, (counts.get(key) ?? 0) + count);
  }
  return counts;
}
