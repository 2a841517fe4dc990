// Collects what an action made: looks at each output path, stores streams, files and trees, fills the ActionResult.
//
// Invariant: only requested outputs are reported, each under the string the client used; what is absent is left out; a
// symlink is reported as one and never followed. Looking is output-scan.ts, trees are output-tree.ts.
// Source: wire/reapi.md 5.3 and 5.5 (its tables, row by row).

import { Limiter } from "../base/limiter.ts";
import { Code, StatusError, invalidArgument, toStatusError } from "../base/status.ts";
import { formatBytes } from "../base/units.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { DigestBatch } from "../digest/digest-batch.ts";
import { emptyDigest, toWireDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import type { OutputDirectoryInit, OutputFileInit, OutputSymlinkInit } from "../proto/remote_execution.ts";
import type { RequestedOutputs } from "./action-command.ts";
import type { BuildDirectory } from "./build-directories.ts";
import type { FileThreads } from "./file-threads.ts";
import { clip, type OutputPath } from "./output-paths.ts";
import type { FoundFile, ScannedNode, ScanProblem, ScanResult } from "./output-scan.ts";
import { encodeDirectories, encodeTree, isExecutable, nodeProperties } from "./output-tree.ts";

export interface OutputCollector {
  readonly store: BlobStore;
  readonly threads: FileThreads;
  readonly digestOf: (fn: DigestFunction, data: Uint8Array) => Digest;
  /** Files and directories of one action together; above it the action fails with RESOURCE_EXHAUSTED. */
  readonly maxEntries: number;
  /** Bytes of all output files of one action together, also those of sparse files. */
  readonly maxBytes: number;
}

export interface CollectRequest {
  readonly directory: BuildDirectory;
  /** undefined: streams only. */
  readonly outputs: RequestedOutputs | undefined;
  readonly fn: DigestFunction;
  readonly mountPoints: readonly string[];
  /** What stdout and stderr have together; undefined: not known. */
  readonly logBytes: number | undefined;
}

export interface CollectedStreams {
  readonly stdoutDigest: WireDigest;
  readonly stderrDigest: WireDigest;
}

export interface Collected {
  readonly streams: CollectedStreams;
  /** What is wrong with the outputs; the streams are kept all the same. */
  readonly outputs: CollectedOutputs | StatusError;
}

interface WireDigest {
  readonly hash: string;
  readonly sizeBytes: number;
}

/** The output fields of an ActionResult. */
export interface CollectedOutputs {
  readonly outputFiles: OutputFileInit[];
  readonly outputDirectories: OutputDirectoryInit[];
  readonly outputSymlinks: OutputSymlinkInit[];
  readonly outputFileSymlinks: OutputSymlinkInit[];
  readonly outputDirectorySymlinks: OutputSymlinkInit[];
}

/** Real trees stay below 100 levels; recursion in this process and PATH_MAX set the end. */
const MAX_DEPTH = 512;
/** The kernel takes 4,095 bytes; the build directory needs some of them. */
const MAX_PATH_BYTES = 3800;
/** Files on their way into the CAS at once: enough to keep hashing threads and the disk busy. */
const STORES_AT_ONCE = 16;

type Wanted = "any" | "file" | "directory";

interface WantedOutput {
  readonly path: OutputPath;
  readonly wanted: Wanted;
}

interface Output extends WantedOutput {
  readonly node: ScannedNode;
}

/**
 * Stores stdout, stderr and the outputs. What is wrong with the outputs is returned: INVALID_ARGUMENT for FIFOs,
 * sockets, devices and names that are not UTF-8, FAILED_PRECONDITION for what the v2.0 lists forbid,
 * RESOURCE_EXHAUSTED above the limits; each names the output. Throws when the streams cannot be stored.
 */
export async function collect(collector: OutputCollector, request: CollectRequest): Promise<Collected> {
  const { outputs: requested, directory, fn, logBytes } = request;
  const wanted = requested === undefined ? [] : wantedOutputs(requested);
  if (wanted.length === 0 && logBytes === 0) {
    const empty = toWireDigest(emptyDigest(fn));
    return { streams: { stdoutDigest: empty, stderrDigest: empty }, outputs: NO_OUTPUTS };
  }
  const found = await scan(collector, request, wanted);
  const storeStream = async (path: string, file: FoundFile): Promise<WireDigest> =>
    toWireDigest(await storeFile(collector, fn, path, file));
  const [stdoutDigest, stderrDigest, outputs] = await Promise.all([
    storeStream(directory.stdoutPath, found.streams[0]!),
    storeStream(directory.stderrPath, found.streams[1]!),
    requested === undefined
      ? NO_OUTPUTS
      : collectOutputs(collector, { ...request, outputs: requested }, wanted, found.outputs).catch(toStatusError),
  ]);
  return { streams: { stdoutDigest, stderrDigest }, outputs };
}

const NO_OUTPUTS: CollectedOutputs = {
  outputFiles: [],
  outputDirectories: [],
  outputSymlinks: [],
  outputFileSymlinks: [],
  outputDirectorySymlinks: [],
};

type OutputsRequest = CollectRequest & { readonly outputs: RequestedOutputs };

async function collectOutputs(
  collector: OutputCollector,
  request: OutputsRequest,
  wanted: readonly WantedOutput[],
  found: ScanResult["outputs"],
): Promise<CollectedOutputs> {
  if ("problem" in found) throw problemStatus(found.problem);
  const outputs = wanted.map((output, position) => ({ ...output, node: found.nodes[position]! }));
  for (const output of outputs) assertAllowed(output);
  assertSize(outputs, collector.maxBytes);
  const digests = await storeFiles(outputs, collector, request);
  const fileDigest = (path: string) => digests.get(path)!;
  const collected: CollectedOutputs = {
    outputFiles: [],
    outputDirectories: [],
    outputSymlinks: [],
    outputFileSymlinks: [],
    outputDirectorySymlinks: [],
  };
  for (const output of outputs) {
    const { node } = output;
    if (node.kind === "file") collected.outputFiles.push(reportFile(output, node, request, fileDigest));
    else if (node.kind === "symlink") reportSymlink(output, node, request, collected);
    else if (node.kind === "directory") {
      collected.outputDirectories.push(await storeDirectory(output, node, collector, request, fileDigest));
    }
  }
  return collected;
}

function wantedOutputs({ paths, files, directories }: RequestedOutputs): WantedOutput[] {
  return [
    ...paths.map((path) => ({ path, wanted: "any" as const })),
    ...files.map((path) => ({ path, wanted: "file" as const })),
    ...directories.map((path) => ({ path, wanted: "directory" as const })),
  ];
}

function scan(
  collector: OutputCollector,
  { directory, mountPoints }: CollectRequest,
  wanted: readonly WantedOutput[],
): Promise<ScanResult> {
  return collector.threads.run("scanOutputs", {
    root: directory.rootPath,
    outputs: wanted.map(({ path }) => path.names),
    streams: [directory.stdoutPath, directory.stderrPath],
    limits: { maxEntries: collector.maxEntries, maxDepth: MAX_DEPTH, maxPathBytes: MAX_PATH_BYTES },
    makeReadable: process.getuid?.() !== 0,
    mountPoints,
  });
}

function problemStatus(problem: ScanProblem): StatusError {
  const message = `Output ${JSON.stringify(clip(problem.path))} ${problem.reason}`;
  if (problem.kind === "limit") return new StatusError(Code.RESOURCE_EXHAUSTED, message);
  return invalidArgument(message);
}

function assertAllowed({ path, wanted, node }: Output): void {
  const name = JSON.stringify(clip(path.requested));
  if (node.kind === "blocked") {
    throw precondition(`Output ${name} cannot be collected: its parent ${JSON.stringify(node.path)} is a symlink`);
  }
  if (wanted === "any" || node.kind === "missing") return;
  const found = node.kind === "symlink" ? node.leadsTo : node.kind;
  if (found === "unknown" || found === wanted) return;
  const what = node.kind === "symlink" ? `a symlink to a ${found}` : `a ${found}`;
  throw precondition(`Output ${name} was requested as a ${wanted}, but it is ${what}`);
}

function precondition(message: string): StatusError {
  return new StatusError(Code.FAILED_PRECONDITION, message);
}

/** Before anything is read: a sparse file of 8 TiB has no blocks and would still be hashed for an hour. */
function assertSize(outputs: readonly Output[], maxBytes: number): void {
  let bytes = 0;
  for (const [path, { sizeBytes }] of filesOf(outputs)) {
    bytes += sizeBytes;
    if (bytes <= maxBytes) continue;
    const name = JSON.stringify(clip(path));
    throw new StatusError(
      Code.RESOURCE_EXHAUSTED,
      `Outputs have more than ${formatBytes(maxBytes)}: with ${name} (${formatBytes(sizeBytes)}) they reach ` +
        formatBytes(bytes),
    );
  }
}

/** Every distinct file of all outputs; outputs may overlap. */
function filesOf(outputs: readonly Output[]): Map<string, FoundFile> {
  const files = new Map<string, FoundFile>();
  const add = (path: string, node: ScannedNode): void => {
    if (node.kind === "file") files.set(path, node);
    if (node.kind !== "directory") return;
    for (const entry of node.entries) add(path === "" ? entry.name : `${path}/${entry.name}`, entry.node);
  };
  for (const { path, node } of outputs) add(path.names.join("/"), node);
  return files;
}

/** Stores each file once; it may be moved into the CAS, so a second look would not find it. */
async function storeFiles(
  outputs: readonly Output[],
  collector: OutputCollector,
  { directory, fn }: OutputsRequest,
): Promise<Map<string, Digest>> {
  const digests = new Map<string, Digest>();
  const limiter = new Limiter(STORES_AT_ONCE);
  const small: SmallFile[] = [];
  const stored: Promise<unknown>[] = [];
  for (const [path, file] of filesOf(outputs)) {
    if (file.content === undefined) {
      const ingest = () => collector.store.ingestFile(`${directory.rootPath}/${path}`, fn);
      stored.push(limiter.run(async () => digests.set(path, await ingest())));
      continue;
    }
    const digest = collector.digestOf(fn, file.content);
    digests.set(path, digest);
    if (file.content.length > 0) small.push({ digest, content: file.content });
  }
  stored.push(storeSmallFiles(collector.store, fn, small));
  // All of them, also after a failure: nothing may still read the build directory when it is removed.
  const outcomes = await Promise.allSettled(stored);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return digests;
}

interface SmallFile {
  readonly digest: Digest;
  readonly content: Uint8Array;
}

/** In one commit; sixteen at a time, 100 of them waited for seven syncs of the disk. */
async function storeSmallFiles(store: BlobStore, fn: DigestFunction, files: readonly SmallFile[]): Promise<void> {
  if (files.length === 0) return;
  const batch = DigestBatch.of(
    fn,
    files.map(({ digest }) => digest),
  );
  const together = store.putTogether(
    batch,
    files.map(({ content }) => content),
  );
  if (together !== undefined) {
    try {
      await together;
      return;
    } catch {
      // Safe: put() decides about each and says what is wrong.
    }
  }
  await Promise.all(files.map(({ digest, content }) => store.put(digest, content)));
}

async function storeFile(
  { store, digestOf }: OutputCollector,
  fn: DigestFunction,
  path: string,
  { content }: FoundFile,
): Promise<Digest> {
  if (content === undefined) return store.ingestFile(path, fn);
  const digest = digestOf(fn, content);
  if (content.length > 0) await store.put(digest, content);
  return digest;
}

function reportFile(
  { path }: Output,
  node: Extract<ScannedNode, { kind: "file" }>,
  request: OutputsRequest,
  fileDigest: (path: string) => Digest,
): OutputFileInit {
  return {
    path: path.requested,
    digest: toWireDigest(fileDigest(path.names.join("/"))),
    isExecutable: isExecutable(node),
    nodeProperties: nodeProperties(node, request.outputs.nodeProperties),
  };
}

/** output_symlinks only when output_paths was used; the lists of 2.0 always, by what the link leads to. */
function reportSymlink(
  { path, wanted }: Output,
  node: Extract<ScannedNode, { kind: "symlink" }>,
  request: OutputsRequest,
  collected: CollectedOutputs,
): void {
  const symlink = {
    path: path.requested,
    target: node.target,
    nodeProperties: nodeProperties(node, request.outputs.nodeProperties),
  };
  if (wanted === "any") collected.outputSymlinks.push(symlink);
  const isDirectory = node.leadsTo === "directory" || (node.leadsTo === "unknown" && wanted === "directory");
  (isDirectory ? collected.outputDirectorySymlinks : collected.outputFileSymlinks).push(symlink);
}

/** The Tree is always made: Buck2 fails without one. */
async function storeDirectory(
  { path }: Output,
  node: Extract<ScannedNode, { kind: "directory" }>,
  collector: OutputCollector,
  request: OutputsRequest,
  fileDigest: (path: string) => Digest,
): Promise<OutputDirectoryInit> {
  const { fn, outputs } = request;
  const { digestOf, store } = collector;
  const directories = encodeDirectories(path.names.join("/"), node, {
    fn,
    digestOf,
    fileDigest,
    nodeProperties: outputs.nodeProperties,
  });
  const tree = encodeTree(directories);
  const treeDigest = digestOf(fn, tree);
  const limiter = new Limiter(STORES_AT_ONCE);
  const blobs = [{ digest: treeDigest, bytes: tree }, ...(outputs.withDirectoryBlobs ? directories : [])];
  await Promise.all(blobs.map(({ digest, bytes }) => limiter.run(() => store.put(digest, bytes))));
  const rootDigest = directories[0]!.digest;
  return {
    path: path.requested,
    treeDigest: toWireDigest(treeDigest),
    isTopologicallySorted: true,
    rootDirectoryDigest: outputs.withDirectoryBlobs ? toWireDigest(rootDigest) : undefined,
  };
}
