// Creates a laid-out tree on disk: links for what may be shared, private files for the rest, in as few jobs as its
// bytes allow.
//
// The blobs are pinned until it resolves. Whether files may be shared is the caller's knowledge; the system calls are
// file-operations.ts.

import type { BlobStore } from "../cas/blob-store.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import { readBlobContent } from "./blob-content.ts";
import type { FileCache } from "./file-cache.ts";
import type { MaterializeJob, NewFile, Owner } from "./file-operations.ts";
import type { FileThreads } from "./file-threads.ts";
import { MIN_KEPT_ENTRIES, type LaidOutDirectory } from "./directory-layout.ts";
import { ENTRY_CHECKS } from "./directory-stamp.ts";
import { BASE_MTIME_SECONDS, MAX_REPLICAS, type InputPlan, type PlannedFile } from "./input-plan.ts";

export interface MaterializeOptions {
  readonly root: string;
  /** Absolute, created before the root. */
  readonly ownDirectories: readonly string[];
  /** An empty directory that belongs to `owner`. */
  readonly rootExists: boolean;
  readonly owner: Owner | undefined;
  /** Nobody who could change a file gets at the tree, or it belongs to another user. */
  readonly mayShareFiles: boolean;
  readonly outputParents: readonly (readonly string[])[];
  /** What the directories look like in the end is noted in the plan's layout. */
  readonly isStamped: boolean;
}

export interface MaterializeSource {
  readonly store: BlobStore;
  readonly threads: FileThreads;
  readonly fileCache: FileCache;
}

/** Bytes of private files in memory at once. */
const BATCH_BYTES = 16 * 1024 * 1024;

/** Throws RESOURCE_EXHAUSTED when the disk is full; what was created by then is the caller's to remove. */
export async function materializePlan(
  plan: InputPlan,
  source: MaterializeSource,
  options: MaterializeOptions,
): Promise<void> {
  const shared: PlannedFile[] = [];
  const own: PlannedFile[] = [];
  for (const file of plan.files) {
    const isShared = options.mayShareFiles && file.own === undefined && file.replica < MAX_REPLICAS;
    (isShared ? shared : own).push(file);
  }
  const links = await linkFiles(shared, source);
  try {
    await createTree(plan, own, links, source, options);
  } finally {
    links.release();
  }
}

interface Links {
  readonly paths: readonly string[];
  /** `sources[i]` is to be linked at `paths[i]`. */
  readonly sources: readonly string[];
  /** The links are made. */
  release(): void;
}

async function linkFiles(files: readonly PlannedFile[], { store, fileCache }: MaterializeSource): Promise<Links> {
  const paths: string[] = [];
  const sources: string[] = [];
  const cachedFiles: PlannedFile[] = [];
  for (const file of files) {
    // The store's own file serves as the first replica; large blobs are then not on the disk twice.
    const stored = file.isExecutable || file.replica > 0 ? undefined : store.filePath(file.digest);
    if (stored === undefined) {
      cachedFiles.push(file);
      continue;
    }
    paths.push(file.path);
    sources.push(stored);
  }
  const cached = await fileCache.acquire(cachedFiles);
  return {
    paths: [...paths, ...cachedFiles.map((file) => file.path)],
    sources: [...sources, ...cached.paths],
    release: () => cached.release(),
  };
}

/** One job when the private files are few; their bytes go along in batches otherwise. */
async function createTree(
  plan: InputPlan,
  own: readonly PlannedFile[],
  links: Links,
  source: MaterializeSource,
  options: MaterializeOptions,
): Promise<void> {
  const nothing: MaterializeJob = { ...EMPTY_JOB, root: options.root, owner: options.owner };
  let job: MaterializeJob = {
    ...nothing,
    ownDirectories: options.ownDirectories,
    rootExists: options.rootExists,
    directories: plan.directories,
    readOnlyDirectories: plan.readOnlyDirectories,
    movePaths: plan.moves.map((move) => move.path),
    moveSources: plan.moves.map((move) => move.from),
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
  const outputParents = options.outputParents.filter((names) => names.length > 0);
  const directoryProperties = [...plan.directoryProperties, ...closedDirectories(plan, options.owner)];
  const stamped = options.isStamped ? unstamped(plan) : [];
  const stampPaths = stamped.map(({ path }) => path);
  // What is in a moved directory was looked at before.
  const stampChecks = stamped.map(({ node }) => (node.stamp === undefined ? node.check : ENTRY_CHECKS.nothing));
  job = { ...job, files, outputParents, directoryProperties, stampPaths, stampChecks };
  if (isNothing(job)) return;
  const stamps = await source.threads.run("materialize", job);
  for (const [index, { node }] of stamped.entries()) {
    const { stamp } = node;
    node.stamp = stamp === undefined ? stamps[index] : { ...stamps[index]!, entries: stamp.entries };
  }
}

/** The directories whose stamp is not known, with their paths: those that are made, and those that are moved. */
function unstamped(plan: InputPlan): { readonly path: string; readonly node: LaidOutDirectory }[] {
  const found: { path: string; node: LaidOutDirectory }[] = [];
  const visit = (node: LaidOutDirectory, path: string): void => {
    found.push({ path, node });
    // Moving changes a directory, and nothing below it.
    if (node.stamp !== undefined) return;
    for (const child of node.children) visit(child, `${path}/${child.name}`);
  };
  for (const child of plan.layout.children) if (child.entryCount >= MIN_KEPT_ENTRIES) visit(child, child.name);
  return found;
}

const EMPTY_JOB: Omit<MaterializeJob, "root" | "owner"> = {
  ownDirectories: [],
  rootExists: true,
  directories: [],
  readOnlyDirectories: new Set(),
  movePaths: [],
  moveSources: [],
  linkPaths: [],
  linkSources: [],
  files: [],
  symlinkPaths: [],
  symlinkTargets: [],
  outputParents: [],
  directoryProperties: [],
  stampPaths: [],
  stampChecks: [],
};

/** Creates a root with nothing in it. */
export function emptyRootJob(
  root: string,
  ownDirectories: readonly string[],
  owner: Owner | undefined,
): MaterializeJob {
  return { ...EMPTY_JOB, root, owner, ownDirectories, rootExists: false, directories: [""] };
}

/** An empty input root in a directory that was made ahead. */
function isNothing(job: MaterializeJob): boolean {
  const { directories, readOnlyDirectories, files, outputParents, directoryProperties } = job;
  const work = [job.movePaths, job.linkPaths, files, job.symlinkPaths, outputParents, directoryProperties];
  const hasDirectories = directories.some((path) => path !== "") || readOnlyDirectories.size > 0;
  return job.rootExists && !hasDirectories && work.every(({ length }) => length === 0);
}

function newFile(file: PlannedFile, content: string | Uint8Array): NewFile {
  const mode = file.own?.mode ?? (file.isExecutable ? 0o555 : 0o444);
  const mtimeSeconds = file.own?.mtimeSeconds ?? BASE_MTIME_SECONDS + file.replica;
  return { path: file.path, content, mode, mtimeSeconds };
}

/** Where the action has the server's user, ownership does not stop it; a mode says at least what was meant. */
function closedDirectories(plan: InputPlan, owner: Owner | undefined): MaterializeJob["directoryProperties"] {
  if (owner !== undefined) return [];
  return Array.from(plan.readOnlyDirectories, (path) => ({ path, mtimeSeconds: undefined, mode: 0o555 }));
}
