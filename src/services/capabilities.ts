// build.bazel.remote.execution.v2.Capabilities: what this server offers, truthfully.
//
// Invariant: nothing is announced that a service here refuses, and no limit is announced that another one undercuts.
// The answer is the same for every instance name and is encoded once.

import type { FastCdcParams } from "../compute/fast-cdc.ts";
import type { Service } from "../grpc/service.ts";
import { DIGEST_FUNCTIONS, DigestFunction } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { Capabilities, Compressor_Value, GetCapabilitiesRequest } from "../proto/remote_execution.ts";
import { ServerCapabilities, SymlinkAbsolutePathStrategy_Value } from "../proto/remote_execution.ts";
import type { CacheCapabilitiesInit, ExecutionCapabilitiesInit } from "../proto/remote_execution.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_BATCH_TOTAL_BYTES } from "./message-limits.ts";

export interface CapabilitiesDeps {
  /** A sandbox works and there are slots. */
  readonly executes: boolean;
  /** 0 = no limit. */
  readonly maxBlobSizeBytes: number;
  /** Set when SplitBlob and SpliceBlob are offered: how they cut. */
  readonly chunking?: FastCdcParams | undefined;
}

/** Priorities are compared, not interpreted: every number is fine, and a client may only use what is announced. */
const ANY_PRIORITY = { priorities: [{ minPriority: -(2 ** 31), maxPriority: 2 ** 31 - 1 }] };

export function createCapabilitiesService(deps: CapabilitiesDeps): Service {
  const answer = ServerCapabilities.encode({
    cacheCapabilities: cacheCapabilities(deps),
    executionCapabilities: deps.executes ? executionCapabilities() : undefined,
    lowApiVersion: { major: 2, minor: 0 },
    highApiVersion: { major: 2, minor: deps.chunking === undefined ? 11 : 12 },
  });
  return {
    name: Capabilities.typeName,
    methods: [
      {
        kind: "unary",
        path: Capabilities.methods.GetCapabilities.path,
        handler: (bytes) => {
          parseInstanceName(decodeRequest(GetCapabilitiesRequest, bytes).instanceName);
          return answer;
        },
      },
    ],
  };
}

function cacheCapabilities(deps: CapabilitiesDeps): CacheCapabilitiesInit {
  return {
    digestFunctions: DIGEST_FUNCTIONS,
    actionCacheUpdateCapabilities: { updateEnabled: true },
    cachePriorityCapabilities: ANY_PRIORITY,
    maxBatchTotalSizeBytes: MAX_BATCH_TOTAL_BYTES,
    // BuildStream stages whole root file systems, which are full of absolute links.
    symlinkAbsolutePathStrategy: SymlinkAbsolutePathStrategy_Value.ALLOWED,
    supportedCompressors: [Compressor_Value.ZSTD],
    supportedBatchUpdateCompressors: [Compressor_Value.ZSTD],
    maxCasBlobSizeBytes: deps.maxBlobSizeBytes,
    ...(deps.chunking === undefined ? {} : chunkingCapabilities(deps.chunking)),
  };
}

function chunkingCapabilities({ averageBytes, seed }: FastCdcParams): CacheCapabilitiesInit {
  return {
    splitBlobSupport: true,
    spliceBlobSupport: true,
    fastCdc2020Params: { avgChunkSizeBytes: averageBytes, seed },
  };
}

function executionCapabilities(): ExecutionCapabilitiesInit {
  return {
    digestFunction: DigestFunction.SHA256,
    digestFunctions: DIGEST_FUNCTIONS,
    execEnabled: true,
    executionPriorityCapabilities: ANY_PRIORITY,
    supportedNodeProperties: ["mtime", "unix_mode"],
  };
}
