// google.bytestream.ByteStream: blobs of any size, plain and zstd.
//
// Reading is byte-stream-read.ts, writing byte-stream-write.ts; here are the methods and what both need.

import type { Service, UnaryHandler } from "../grpc/service.ts";
import { parseWriteName } from "../digest/resource-name.ts";
import { ByteStream, QueryWriteStatusRequest, QueryWriteStatusResponse } from "../proto/bytestream.ts";
import { createRead, createReadAtOnce } from "./byte-stream-read.ts";
import { createWrite, createWriteAtOnce, uploadKey, type WriteDeps } from "./byte-stream-write.ts";
import { decodeRequest } from "./decode.ts";
import { assertResourceNameHeader } from "./resource-name-header.ts";

export type ByteStreamDeps = WriteDeps;

export function createByteStreamService(deps: ByteStreamDeps): Service {
  const { methods } = ByteStream;
  return {
    name: ByteStream.typeName,
    methods: [
      { kind: "stream", path: methods.Read.path, handler: createRead(deps), answerAtOnce: createReadAtOnce(deps) },
      { kind: "stream", path: methods.Write.path, handler: createWrite(deps), answerAtOnce: createWriteAtOnce(deps) },
      { kind: "unary", path: methods.QueryWriteStatus.path, handler: createQueryWriteStatus(deps) },
    ],
  };
}

/** Nothing known is 0 bytes and not NOT_FOUND: Bazel asks between retries and takes other answers for failures. */
function createQueryWriteStatus(deps: ByteStreamDeps): UnaryHandler {
  return async (bytes, call) => {
    const { resourceName } = decodeRequest(QueryWriteStatusRequest, bytes);
    const name = parseWriteName(resourceName);
    assertResourceNameHeader(call, resourceName);
    const complete = await deps.blobs.has(name.digest);
    const committedSize = complete ? name.digest.sizeBytes : deps.partialUploads.report(uploadKey(name));
    return QueryWriteStatusResponse.encode({ committedSize, complete });
  };
}
