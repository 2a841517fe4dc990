// What a client uploads as ActionResult → what is stored: checked, without inlined data, never empty.
//
// Invariant: after it resolves, data that was inlined is in the CAS, and the returned message names a worker. Whether the
// other blobs exist is not asked: the order of uploads is the client's business, and reading checks it.
// The same rules serve gRPC and HTTP. Source: remote_execution.proto (UpdateActionResult, ActionResult).

import type { BlobStore } from "../cas/blob-store.ts";
import { invalidArgument } from "../base/status.ts";
import { parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { ActionResult, ExecutedActionMetadata } from "../proto/remote_execution.ts";
import type { OutputSymlink } from "../proto/remote_execution.ts";
import { fieldHeader, ProtoError } from "../proto/wire.ts";
import { extractInlined } from "./inlined-outputs.ts";
import { rawFields } from "./raw-fields.ts";

const TAG_EXECUTION_METADATA = 0x4a;

export interface PrepareOptions {
  readonly fn: DigestFunction;
  readonly blobs: BlobStore;
  readonly digestOf: (fn: DigestFunction, data: Uint8Array) => Digest;
  /** Who to name when the result names no worker: the peer's address. */
  readonly defaultWorker: string;
}

export interface PreparedResult {
  readonly result: Uint8Array;
  readonly worker: string;
}

/** Throws INVALID_ARGUMENT, naming the output that is wrong. */
export async function prepareActionResult(bytes: Uint8Array, options: PrepareOptions): Promise<PreparedResult> {
  const { fn, blobs } = options;
  const decoded = decode(bytes);
  assertWellFormed(decoded, fn);
  const extracted = extractInlined(bytes, decoded, { fn, digestOf: (data) => options.digestOf(fn, data) });
  await Promise.all(extracted.blobs.map(({ digest, data }) => blobs.put(digest, data)));
  const worker = decoded.executionMetadata?.worker ?? "";
  if (worker !== "") return { result: extracted.result, worker };
  return { result: withWorker(extracted.result, options.defaultWorker), worker: options.defaultWorker };
}

function decode(bytes: Uint8Array): ActionResult {
  try {
    return ActionResult.decode(bytes);
  } catch (error) {
    if (error instanceof ProtoError) throw invalidArgument(error.message, error);
    throw error;
  }
}

function assertWellFormed(result: ActionResult, fn: DigestFunction): void {
  for (const { path, digest, contents } of result.outputFiles) {
    const what = `output file "${path}"`;
    assertPath(path, what);
    if (path === "") throw invalidArgument("an output file has an empty path");
    if (digest !== undefined || contents.length === 0) parseDigest(fn, digest, `${what}: digest`);
  }
  for (const { path, treeDigest, rootDirectoryDigest } of result.outputDirectories) {
    const what = `output directory "${path}"`;
    assertPath(path, what);
    if (treeDigest !== undefined || rootDirectoryDigest === undefined) {
      parseDigest(fn, treeDigest, `${what}: tree_digest`);
    }
    if (rootDirectoryDigest !== undefined) parseDigest(fn, rootDirectoryDigest, `${what}: root_directory_digest`);
  }
  for (const link of [...result.outputFileSymlinks, ...result.outputDirectorySymlinks, ...result.outputSymlinks]) {
    assertSymlink(link);
  }
  if (result.stdoutDigest !== undefined) parseDigest(fn, result.stdoutDigest, "stdout_digest");
  if (result.stderrDigest !== undefined) parseDigest(fn, result.stderrDigest, "stderr_digest");
}

function assertSymlink({ path, target }: OutputSymlink): void {
  assertPath(path, `output symlink "${path}"`);
  if (path === "") throw invalidArgument("an output symlink has an empty path");
  if (target === "") throw invalidArgument(`output symlink "${path}" has an empty target`);
}

/** "" is the whole working directory, for directories. */
function assertPath(path: string, what: string): void {
  if (path.startsWith("/")) throw invalidArgument(`${what}: the path must be relative to the working directory`);
}

/** Sets the worker in the metadata that is there, or adds metadata. */
function withWorker(result: Uint8Array, worker: string): Uint8Array {
  const others: Uint8Array[] = [];
  const metadata: Uint8Array[] = [];
  for (const { tag, bytes, payload } of rawFields(result, ActionResult.typeName)) {
    if (tag === TAG_EXECUTION_METADATA) metadata.push(payload);
    else others.push(bytes);
  }
  metadata.push(ExecutedActionMetadata.encode({ worker }));
  const length = metadata.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...others, fieldHeader(TAG_EXECUTION_METADATA, length), ...metadata]);
}
