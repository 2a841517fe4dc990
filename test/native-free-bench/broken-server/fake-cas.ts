// Capabilities, CAS, action cache and health of the fake server, with their faults.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { Code, StatusError, invalidArgument } from "../../../src/base/status.ts";
import {
  ActionCache,
  Capabilities,
  Compressor_Value,
  ContentAddressableStorage as Cas,
  DigestFunction_Value as Fn,
  Directory,
} from "../../../src/proto/remote_execution.ts";
import type {
  BatchReadBlobsResponse_ResponseInit,
  BatchUpdateBlobsResponse_ResponseInit,
  DirectoryInit,
} from "../../../src/proto/remote_execution.ts";
import { RequestMetadata } from "../../../src/proto/remote_execution.ts";
import type { MessageType } from "../../../src/proto/wire.ts";
import type { FakeCall, Handler } from "./fake-grpc.ts";
import { BATCH_LIMIT_BYTES, BLOB_LIMIT_BYTES, type FakeStore, type Key } from "./fake-store.ts";

/** Compressing one empty frame and decompressing within a bound; anything else is INVALID_ARGUMENT. */
export function inflate(store: FakeStore, data: Uint8Array, sizeBytes: number): Buffer {
  try {
    const limit = store.has("zstd.unbounded") ? 64 * 1024 * 1024 : sizeBytes + 1;
    const output = zstdDecompressSync(data, { maxOutputLength: Math.max(limit, 1) });
    return store.has("zstd.unbounded") ? output.subarray(0, sizeBytes) : output;
  } catch (error) {
    throw invalidArgument(`not zstd: ${String(error)}`);
  }
}

export function casHandlers(store: FakeStore, hasExecution: boolean): Map<string, Handler> {
  const { has } = store;
  const handlers = new Map<string, Handler>();
  const unary = <I, O>(
    method: { path: string; input: MessageType<I, never>; output: MessageType<unknown, O> },
    answer: (request: I) => O,
  ): void => {
    handlers.set(method.path, async (call) => {
      refuseGarbage(call, store);
      const request = method.input.decode(await call.request());
      await call.write(method.output.encode(answer(request)));
    });
  };
  unary(Capabilities.methods.GetCapabilities, () => capabilities(store, hasExecution));
  let previous: { hash: string; sizeBytes: number } | undefined;
  unary(Cas.methods.FindMissingBlobs, (request) => {
    if (/(^|\/)(uploads|blobs)(\/|$)/.test(request.instanceName)) throw invalidArgument("a reserved segment");
    const asked = has("find-missing.first-thousand") ? request.blobDigests.slice(0, 1000) : request.blobDigests;
    const keys = asked.map((digest) => store.keyOf(digest, request.digestFunction));
    const missing = new Map(
      keys
        .filter((key) => !store.isPresent(key))
        .map(({ hash, sizeBytes }) => [hash, { hash, sizeBytes: has("find-missing.size-lost") ? 0 : sizeBytes }]),
    );
    const extra = has("find-missing.previous-answer") && previous !== undefined ? [previous] : [];
    previous = [...missing.values()][0];
    return { missingBlobDigests: [...missing.values(), ...extra] };
  });
  unary(Cas.methods.BatchUpdateBlobs, (request) => {
    store.keyOf({ hash: "0".repeat(64), sizeBytes: 1 }, request.digestFunction);
    const limit = has("capabilities.batch-limit-lie")
      ? BATCH_LIMIT_BYTES / 2
      : has("batch-update.no-limit")
        ? Infinity
        : BATCH_LIMIT_BYTES;
    if (request.requests.reduce((sum, { data }) => sum + data.length, 0) > limit)
      throw invalidArgument(`a batch has at most ${limit} bytes`);
    const responses = request.requests.map(
      ({ digest, data, compressor }, index): BatchUpdateBlobsResponse_ResponseInit => {
        try {
          const key = store.keyOf(digest, request.digestFunction);
          if (compressor > 1) throw invalidArgument(`compressor ${compressor}`);
          const plain = compressor === Compressor_Value.ZSTD ? inflate(store, data, key.sizeBytes) : data;
          if (has("batch-update.overwrites") && store.find(key) !== undefined) store.put(key, plain);
          verify(store, key, plain);
          if (!(has("batch-update.last-lost") && index === request.requests.length - 1)) store.put(key, plain);
          return { digest, status: {} };
        } catch (error) {
          if (!(error instanceof StatusError) || has("batch-update.one-fails-all")) throw error;
          return { digest, status: { code: error.code, message: error.message } };
        }
      },
    );
    if (!has("batch-update.order-lost")) return { responses };
    return {
      responses: responses.map(({ digest }, index) => ({
        digest,
        status: responses[(index + 1) % responses.length]!.status,
      })),
    };
  });
  unary(Cas.methods.BatchReadBlobs, (request) => {
    const total = request.digests.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    if (total > BATCH_LIMIT_BYTES && !has("batch-read.no-limit")) throw invalidArgument("too much at once");
    const responses = request.digests.map((digest): BatchReadBlobsResponse_ResponseInit => {
      const data = store.find(store.keyOf(digest, request.digestFunction));
      if (data === undefined && has("batch-read.absent-fails-all")) throw new StatusError(Code.NOT_FOUND, "absent");
      if (data === undefined && !has("batch-read.absent-is-ok"))
        return { digest, status: { code: Code.NOT_FOUND, message: "absent" } };
      const compress =
        request.acceptableCompressors.includes(Compressor_Value.ZSTD) || has("batch-read.always-compressed");
      if (!compress) return { digest, data };
      return { digest, data: zstdCompressSync(data ?? Buffer.alloc(0)), compressor: Compressor_Value.ZSTD };
    });
    if (!has("batch-read.order-lost")) return { responses };
    return {
      responses: responses.map((response, index) => ({
        ...response,
        data: responses[(index + 1) % responses.length]!.data,
      })),
    };
  });
  handlers.set(Cas.methods.GetTree.path, async (call) => await getTree(store, call));
  unary(Cas.methods.SpliceBlob, (request) => {
    const key = store.keyOf(request.blobDigest, request.digestFunction);
    const data = Buffer.concat(
      request.chunkDigests.map((digest) => store.get(store.keyOf(digest, request.digestFunction), "chunk")),
    );
    if (!has("splice.no-verify")) verify(store, key, data);
    store.put(key, data);
    return { blobDigest: request.blobDigest };
  });
  unary(Cas.methods.SplitBlob, (request) => {
    const key = store.keyOf(request.blobDigest, request.digestFunction);
    const data = store.get(key);
    const half = Math.floor(data.length / 2);
    return {
      chunkDigests: [data.subarray(0, half), data.subarray(half)].map((chunk) => store.storeMessage(key.fn, chunk)),
    };
  });
  unary(ActionCache.methods.GetActionResult, (request) => {
    const key = store.keyOf(request.actionDigest, request.digestFunction);
    const result = store.findResult(request.instanceName, key);
    if (result === undefined)
      throw new StatusError(has("action-cache.miss-is-internal") ? Code.INTERNAL : Code.NOT_FOUND, "no such result");
    const log =
      result.stdoutDigest === undefined
        ? undefined
        : store.find(store.keyOf(result.stdoutDigest, request.digestFunction));
    if (request.inlineStdout && log !== undefined && log.length < 100_000) {
      result.stdoutRaw = log;
      if (has("action-cache.inline-drops-digest")) result.stdoutDigest = undefined;
    }
    return result;
  });
  unary(ActionCache.methods.UpdateActionResult, (request) => {
    const key = store.keyOf(request.actionDigest, request.digestFunction);
    const result = request.actionResult;
    if (result === undefined) throw invalidArgument("action_result is not set");
    for (const { digest } of result.outputFiles) store.keyOf(digest, request.digestFunction);
    result.executionMetadata ??= { ...emptyMetadata(), worker: "unknown" };
    store.putResult(request.instanceName, key, result);
    return result;
  });
  return handlers;
}

function emptyMetadata() {
  return {
    worker: "",
    auxiliaryMetadata: [],
    queuedTimestamp: undefined,
    workerStartTimestamp: undefined,
    workerCompletedTimestamp: undefined,
    inputFetchStartTimestamp: undefined,
    inputFetchCompletedTimestamp: undefined,
    executionStartTimestamp: undefined,
    executionCompletedTimestamp: undefined,
    outputUploadStartTimestamp: undefined,
    outputUploadCompletedTimestamp: undefined,
    virtualExecutionDuration: undefined,
  };
}

function verify(store: FakeStore, key: Key, data: Uint8Array): void {
  if (data.length !== key.sizeBytes && !store.has("batch-update.no-size-check"))
    throw invalidArgument(`${data.length} bytes, expected ${key.sizeBytes}`);
  if (key.fn.hash(data) !== key.hash && !store.has("batch-update.no-hash-check"))
    throw invalidArgument("the data does not match the digest");
}

function capabilities({ has }: FakeStore, hasExecution: boolean) {
  const [low, high] = has("capabilities.versions-reversed")
    ? [{ major: 2, minor: 11 }, { major: 2 }]
    : [{ major: 2 }, { major: 2, minor: 11 }];
  return {
    lowApiVersion: low,
    highApiVersion: high,
    cacheCapabilities: {
      digestFunctions: [...(has("capabilities.unknown-function") ? [Fn.UNKNOWN] : []), Fn.SHA256, Fn.BLAKE3],
      actionCacheUpdateCapabilities: { updateEnabled: true },
      maxBatchTotalSizeBytes: BATCH_LIMIT_BYTES,
      maxCasBlobSizeBytes: BLOB_LIMIT_BYTES,
      symlinkAbsolutePathStrategy: 2,
      supportedCompressors: [Compressor_Value.ZSTD],
      supportedBatchUpdateCompressors: [Compressor_Value.ZSTD],
      splitBlobSupport: true,
      spliceBlobSupport: true,
    },
    ...(hasExecution
      ? { executionCapabilities: { digestFunction: Fn.SHA256, digestFunctions: [Fn.SHA256], execEnabled: true } }
      : {}),
  };
}

function refuseGarbage(call: FakeCall, store: FakeStore): void {
  const header = call.metadata["build.bazel.remote.execution.v2.requestmetadata-bin"];
  if (typeof header === "string" && store.has("metadata.garbage-refused"))
    RequestMetadata.decode(Buffer.from(header, "base64"));
}

async function getTree(store: FakeStore, call: FakeCall): Promise<void> {
  const { has } = store;
  const { GetTree } = Cas.methods;
  const request = GetTree.input.decode(await call.request());
  if (request.rootDigest === undefined) throw invalidArgument("root_digest is not set");
  const root = store.find(store.keyOf(request.rootDigest, request.digestFunction));
  if (root === undefined && has("get-tree.absent-root-is-empty")) return;
  if (root === undefined) throw new StatusError(Code.NOT_FOUND, "the root is absent");
  const pending = [root];
  const seen = new Set<string>();
  const all: DirectoryInit[] = [];
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    const directory = Directory.decode(next);
    all.push(directory);
    for (const { digest } of has("get-tree.root-only") ? [] : directory.directories) {
      if (seen.has(digest!.hash)) continue;
      seen.add(digest!.hash);
      const child = store.find(store.keyOf(digest, request.digestFunction));
      if (child !== undefined) pending.push(child);
      else if (has("get-tree.absent-child-fails")) throw new StatusError(Code.NOT_FOUND, "a child is absent");
    }
  }
  if (has("get-tree.last-page-lost") && all.length > 1) all.pop();
  if (!/^\d*$/.test(request.pageToken)) throw invalidArgument("page_token is not one of ours");
  const bound = has("get-tree.page-size-ignored") || request.pageSize <= 0 ? 1000 : Math.min(1000, request.pageSize);
  for (
    let start = has("get-tree.resumes-at-start") ? 0 : Number(request.pageToken);
    start < all.length;
    start += bound
  ) {
    const end = start + bound;
    await call.write(
      GetTree.output.encode({ directories: all.slice(start, end), nextPageToken: end < all.length ? String(end) : "" }),
    );
    if (has("get-tree.resumes-at-start") && request.pageToken !== "") return;
  }
}
