// What a trace keeps of a request: the digests it names, never its contents.

import { ByteStream } from "../../src/proto/bytestream.ts";
import { ActionCache, ContentAddressableStorage as Cas, Execution } from "../../src/proto/remote_execution.ts";
import type { Digest } from "../../src/proto/remote_execution.ts";
import type { TraceCall, TraceDigest } from "./trace-format.ts";

export type RequestDescription = Pick<TraceCall, "digests" | "digestFunction" | "offset" | "limit" | "compressor">;

const BLOB_NAME = /(?:^|\/)(?:blobs|compressed-blobs\/([a-z]+))\/(?:([a-z0-9]+)\/)?([0-9a-f]{32,128})\/([0-9]+)/;

export function describeRequest(path: string, first: Uint8Array): RequestDescription {
  try {
    return describe(path, first);
  } catch {
    // The proxy is transparent: what it cannot read is recorded by its size alone.
    return {};
  }
}

function describe(path: string, first: Uint8Array): RequestDescription {
  switch (path) {
    case Cas.methods.FindMissingBlobs.path: {
      const request = Cas.methods.FindMissingBlobs.input.decode(first);
      return named(request.blobDigests, request.digestFunction);
    }
    case Cas.methods.BatchReadBlobs.path: {
      const request = Cas.methods.BatchReadBlobs.input.decode(first);
      return named(request.digests, request.digestFunction);
    }
    case Cas.methods.BatchUpdateBlobs.path: {
      const request = Cas.methods.BatchUpdateBlobs.input.decode(first);
      return named(
        request.requests.map(({ digest }) => digest),
        request.digestFunction,
      );
    }
    case Cas.methods.GetTree.path: {
      const request = Cas.methods.GetTree.input.decode(first);
      return named([request.rootDigest], request.digestFunction);
    }
    case ActionCache.methods.GetActionResult.path: {
      const request = ActionCache.methods.GetActionResult.input.decode(first);
      return named([request.actionDigest], request.digestFunction);
    }
    case ActionCache.methods.UpdateActionResult.path: {
      const request = ActionCache.methods.UpdateActionResult.input.decode(first);
      return named([request.actionDigest], request.digestFunction);
    }
    case Execution.methods.Execute.path: {
      const request = Execution.methods.Execute.input.decode(first);
      return named([request.actionDigest], request.digestFunction);
    }
    case ByteStream.methods.Read.path: {
      const request = ByteStream.methods.Read.input.decode(first);
      return { ...blobNamed(request.resourceName), offset: request.readOffset, limit: request.readLimit };
    }
    case ByteStream.methods.Write.path: {
      const request = ByteStream.methods.Write.input.decode(first);
      return { ...blobNamed(request.resourceName), offset: request.writeOffset };
    }
    default:
      return {};
  }
}

function named(digests: readonly (Digest | undefined)[], digestFunction: number): RequestDescription {
  const present = digests.filter((digest) => digest !== undefined);
  return { digests: present.map(({ hash, sizeBytes }): TraceDigest => ({ hash, size: sizeBytes })), digestFunction };
}

function blobNamed(resourceName: string): RequestDescription {
  const match = BLOB_NAME.exec(resourceName);
  if (match === null) return {};
  return {
    digests: [{ hash: match[3]!, size: Number(match[4]) }],
    ...(match[1] === undefined ? {} : { compressor: match[1] }),
  };
}
