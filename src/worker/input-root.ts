// Materializes an input root: reads its directories, lays it out, and creates it on disk.
//
// Invariant: an action never gets a file that it could change for others. Where actions have a user of their own, files
// are hard links to what only the server may write; elsewhere every action gets copies. Blobs stay pinned until the
// caller releases them. Reading is input-tree.ts, layout input-plan.ts, the system calls file-operations.ts.

import { invalidArgument } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import type { Digest } from "../digest/digest.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import type { BuildDirectory } from "./build-directories.ts";
import { readBlobContent } from "./blob-content.ts";
import type { DirectoryCache } from "./directory-cache.ts";
import type { FileCache } from "./file-cache.ts";
import type { MaterializeJob, NewFile, Owner } from "./file-operations.ts";
import type { FileThreads } from "./file-threads.ts";
import { BASE_MTIME_SECONDS, planInputRoot, type InputPlan, type PlannedFile } from "./input-plan.ts";
import { readInputTree, type InputTree } from "./input-tree.ts";

export interface InputRootSource {
  readonly store: BlobStore;
  readonly directoryCache: DirectoryCache;
  readonly threads: FileThreads;
  /** undefined: actions have our own user, so nothing may be shared with them. */
  readonly fileCache: FileCache | undefined;
}

export interface InputRootRequest {
  readonly digest: Digest;
  readonly directory: BuildDirectory;
  readonly owner: Owner | undefined;
  readonly workingDirectory: readonly string[];
  /** Directories that must exist before the action runs. */
  readonly outputParents: readonly (readonly string[])[];
  /** Is called with digests before they are used; the caller unpins them after the action. */
  readonly pin: (digests: Iterable<Digest>) => void;
}

/** Bytes of private files in memory at once. */
const BATCH_BYTES = 16 * 1024 * 1024;
/** More copies of one content than this in one root are private files: each would be an inode in the cache. */
const MAX_REPLICAS = 8;

/**
 * Creates `request.directory` with the input root in it. Throws FAILED_PRECONDITION naming every missing blob,
 * INVALID_ARGUMENT for trees that cannot be, RESOURCE_EXHAUSTED when the disk is full; what was created by then is the
 * caller's to discard.
 */
export async function materializeInputRoot(source: InputRootSource, request: InputRootRequest): Promise<InputTree> {
  const tree = await readInputTree(request.digest, { store: source.store, cache: source.directoryCache }, request.pin);
  assertDirectory(tree, request.workingDirectory);
  const plan = planInputRoot(tree);
  const { shared, own } = chooseSharing(plan, source);
  const links = await acquireLinks(shared, source);
  try {
    await createTree(plan, own, links, source, request);
  } finally {
    links.release();
  }
  return tree;
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

function chooseSharing(plan: InputPlan, source: InputRootSource): { shared: PlannedFile[]; own: PlannedFile[] } {
  const shared: PlannedFile[] = [];
  const own: PlannedFile[] = [];
  for (const file of plan.files) {
    const canShare = source.fileCache !== undefined && file.own === undefined && file.replica < MAX_REPLICAS;
    (canShare ? shared : own).push(file);
  }
  return { shared, own };
}

interface Links {
  readonly paths: readonly string[];
  readonly sources: readonly string[];
  release(): void;
}

async function acquireLinks(files: readonly PlannedFile[], source: InputRootSource): Promise<Links> {
  const paths: string[] = [];
  const sources: string[] = [];
  const cachedFiles: PlannedFile[] = [];
  for (const file of files) {
    // The store's own file serves as the first replica; large blobs are then not on the disk twice.
    const stored = file.isExecutable || file.replica > 0 ? undefined : source.store.filePath(file.digest);
    if (stored === undefined) {
      cachedFiles.push(file);
      continue;
    }
    paths.push(file.path);
    sources.push(stored);
  }
  const cached = await source.fileCache?.acquire(cachedFiles);
  return {
    paths: [...paths, ...cachedFiles.map((file) => file.path)],
    sources: [...sources, ...(cached?.paths ?? [])],
    release: () => cached?.release(),
  };
}

/** One job when the private files are few; their bytes go along in batches otherwise. */
async function createTree(
  plan: InputPlan,
  own: readonly PlannedFile[],
  links: Links,
  source: InputRootSource,
  request: InputRootRequest,
): Promise<void> {
  const { directory, owner } = request;
  const nothing: MaterializeJob = {
    root: directory.rootPath,
    owner,
    ownDirectories: [],
    directories: [],
    linkPaths: [],
    linkSources: [],
    files: [],
    symlinkPaths: [],
    symlinkTargets: [],
    outputParents: [],
    directoryProperties: [],
  };
  let job: MaterializeJob = {
    ...nothing,
    ownDirectories: [directory.path],
    directories: ["", ...plan.directories],
    linkPaths: links.paths,
    linkSources: links.sources,
    symlinkPaths: plan.symlinks.map((symlink) => symlink.path),
    symlinkTargets: plan.symlinks.map((symlink) => symlink.target),
  };
  let files: NewFile[] = [];
  let bytes = 0;
  for (const file of own) {
    const content = await readBlobContent(source.store, file.digest);
    if (content === undefined) throw missingBlobs([file.digest], "Input root");
    files.push(newFile(file, content));
    if (typeof content !== "string") bytes += content.length;
    if (bytes < BATCH_BYTES) continue;
    await source.threads.run("materialize", { ...job, files });
    job = nothing;
    files = [];
    bytes = 0;
  }
  const { outputParents } = request;
  const { directoryProperties } = plan;
  await source.threads.run("materialize", { ...job, files, outputParents, directoryProperties });
}

function newFile(file: PlannedFile, content: string | Uint8Array): NewFile {
  const mode = file.own?.mode ?? (file.isExecutable ? 0o555 : 0o444);
  const mtimeSeconds = file.own?.mtimeSeconds ?? BASE_MTIME_SECONDS + file.replica;
  return { path: file.path, content, mode, mtimeSeconds };
}
