// SplitBlob and SpliceBlob: a large blob as chunks, so that only those a side lacks travel.
//
// Invariant: a spliced blob becomes visible only after its bytes were hashed. Where cuts lie is cas/chunking.ts.

import type { Chunking } from "../cas/chunking.ts";
import type { UnaryHandler } from "../grpc/service.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import { formatDigest, parseDigest, parseDigestFunction, toWireDigest } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { ChunkingFunction_Value, SpliceBlobRequest, SpliceBlobResponse } from "../proto/remote_execution.ts";
import { SplitBlobRequest, SplitBlobResponse } from "../proto/remote_execution.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_RESPONSE_BYTES } from "./message-limits.ts";

/** The client's preference is not looked at: there is one way of cutting here, and the answer names it. */
export function createSplitBlob(chunking: Chunking): UnaryHandler {
  return async (bytes) => {
    const request = decodeRequest(SplitBlobRequest, bytes);
    parseInstanceName(request.instanceName);
    const digest = parseDigest(parseDigestFunction(request.digestFunction), request.blobDigest, "blob_digest");
    const chunks = await chunking.split(digest);
    const response = SplitBlobResponse.encode({
      chunkDigests: chunks.map(toWireDigest),
      chunkingFunction: ChunkingFunction_Value.FAST_CDC_2020,
    });
    if (response.length <= MAX_RESPONSE_BYTES) return response;
    throw new StatusError(
      Code.RESOURCE_EXHAUSTED,
      `blob "${formatDigest(digest)}" has ${chunks.length} chunks, more than fit an answer: read it through ByteStream.Read`,
    );
  };
}

export function createSpliceBlob(chunking: Chunking, maxBlobSizeBytes: number): UnaryHandler {
  return async (bytes) => {
    const request = decodeRequest(SpliceBlobRequest, bytes);
    parseInstanceName(request.instanceName);
    const fn = parseDigestFunction(request.digestFunction);
    const digest = parseDigest(fn, request.blobDigest, "blob_digest");
    if (maxBlobSizeBytes > 0 && digest.sizeBytes > maxBlobSizeBytes) {
      throw invalidArgument(
        `blob "${formatDigest(digest)}" is larger than ${maxBlobSizeBytes} bytes (max_cas_blob_size_bytes)`,
      );
    }
    const chunks = request.chunkDigests.map((chunk, index) => parseDigest(fn, chunk, `chunk_digests[${index}]`));
    // Another function's cuts are as good for this blob, but not what SplitBlob says it answers with.
    await chunking.splice(digest, chunks, {
      remember: request.chunkingFunction === ChunkingFunction_Value.FAST_CDC_2020,
    });
    return SpliceBlobResponse.encode({ blobDigest: toWireDigest(digest) });
  };
}
