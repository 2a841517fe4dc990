// build.bazel.remote.execution.v2.ContentAddressableStorage: small blobs in batches, what is missing, whole trees.
//
// Each method is decode, validate, one call inwards, encode. The batch methods are batch-update-blobs.ts and
// batch-read-blobs.ts, trees are get-tree.ts, chunks are
// chunked-blobs.ts. CAS is shared between instance names; they are only checked.

import type { BlobStore } from "../cas/blob-store.ts";
import type { Chunking } from "../cas/chunking.ts";
import type { Service, UnaryHandler } from "../grpc/service.ts";
import { ContentAddressableStorage } from "../proto/remote_execution.ts";
import { Code, StatusError } from "../base/status.ts";
import type { Zstd } from "../base/zstd.ts";
import { createBatchReadBlobs } from "./batch-read-blobs.ts";
import { createBatchUpdateBlobs } from "./batch-update-blobs.ts";
import { createSpliceBlob, createSplitBlob } from "./chunked-blobs.ts";
import { FindMissingRequest } from "./find-missing-request.ts";
import { createGetTree } from "./get-tree.ts";
import { MAX_LIST_REQUEST_BYTES } from "./message-limits.ts";

export interface ContentAddressableStorageDeps {
  readonly blobs: BlobStore;
  readonly zstd: Zstd;
  /** Absent: SplitBlob and SpliceBlob are UNIMPLEMENTED, and Capabilities must not announce them. */
  readonly chunking?: Chunking | undefined;
  /** As announced in max_cas_blob_size_bytes; 0 = no limit. */
  readonly maxBlobSizeBytes?: number;
}

export function createContentAddressableStorageService(deps: ContentAddressableStorageDeps): Service {
  const { methods } = ContentAddressableStorage;
  const { blobs, zstd, chunking, maxBlobSizeBytes = 0 } = deps;
  const unary = (path: string, handler: UnaryHandler) =>
    ({ kind: "unary", path, handler, maxRequestBytes: MAX_LIST_REQUEST_BYTES }) as const;
  return {
    name: ContentAddressableStorage.typeName,
    methods: [
      unary(methods.FindMissingBlobs.path, createFindMissingBlobs(blobs)),
      unary(methods.BatchUpdateBlobs.path, createBatchUpdateBlobs(blobs, zstd)),
      unary(methods.BatchReadBlobs.path, createBatchReadBlobs(blobs, zstd)),
      { kind: "stream", path: methods.GetTree.path, handler: createGetTree(blobs) },
      unary(methods.SplitBlob.path, chunking === undefined ? notOffered("SplitBlob") : createSplitBlob(chunking)),
      unary(
        methods.SpliceBlob.path,
        chunking === undefined ? notOffered("SpliceBlob") : createSpliceBlob(chunking, maxBlobSizeBytes),
      ),
    ],
  };
}

/** Decoders kept for reuse; more are made while more requests wait for a store that answers later. */
const MAX_SPARE_DECODERS = 4;
/** Decoders that grew beyond this many digests are not kept. */
const MAX_SPARE_DIGESTS = 128 * 1024;

/** Exported for benchmarks. Answers synchronously when the store does. */
export function createFindMissingBlobs(blobs: BlobStore): UnaryHandler {
  const spare: FindMissingRequest[] = [];
  const giveBack = (request: FindMissingRequest): void => {
    if (spare.length < MAX_SPARE_DECODERS && request.batch.sizesBytes.length <= MAX_SPARE_DIGESTS) spare.push(request);
  };
  return (bytes) => {
    const request = spare.pop() ?? new FindMissingRequest();
    let missing: Uint32Array | Promise<Uint32Array> | undefined;
    try {
      request.decode(bytes);
      missing = blobs.findMissing(request.batch);
      if (missing instanceof Uint32Array) return request.encodeResponse(missing);
    } finally {
      if (!(missing instanceof Promise)) giveBack(request);
    }
    return missing.then((positions) => request.encodeResponse(positions)).finally(() => giveBack(request));
  };
}

function notOffered(method: string): UnaryHandler {
  return () => {
    throw new StatusError(Code.UNIMPLEMENTED, `${method} is not offered: see the support flags in GetCapabilities`);
  };
}
