// What a target offers: read from GetCapabilities, and by one harmless call each where capabilities say nothing.
//
// Invariant: a feature is on only when the target said so itself; checks that need another one do not run.

import { Code } from "../../src/base/status.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { Health } from "../../src/proto/health.ts";
import { Operations } from "../../src/proto/operations.ts";
import { ServerReflection, ServerReflectionRequest } from "../../src/proto/reflection.ts";
import {
  Capabilities,
  Compressor_Value,
  ContentAddressableStorage as Cas,
  DigestFunction_Value,
  SymlinkAbsolutePathStrategy_Value,
} from "../../src/proto/remote_execution.ts";
import type { ServerCapabilities } from "../../src/proto/remote_execution.ts";
import type { Http2Channel } from "../client/http2-channel.ts";
import type { HttpTarget } from "../client/http1-client.ts";
import { httpRequest } from "../client/http1-client.ts";

export const FEATURES = {
  cache: "cache_capabilities is set",
  "ac-update": "action_cache_update_capabilities.update_enabled",
  zstd: "ZSTD in supported_compressors",
  "zstd-batch": "ZSTD in supported_batch_update_compressors",
  split: "split_blob_support",
  splice: "splice_blob_support",
  sha256: "SHA256 in digest_functions",
  blake3: "BLAKE3 in digest_functions",
  "batch-limit": "max_batch_total_size_bytes is set",
  "blob-limit": "max_cas_blob_size_bytes is set",
  exec: "execution_capabilities.exec_enabled",
  "absolute-symlinks": "symlink_absolute_path_strategy is ALLOWED",
  "no-absolute-symlinks": "symlink_absolute_path_strategy is DISALLOWED",
  "output-paths": "high_api_version is at least 2.1",
  mtime: "mtime in supported_node_properties",
  "unix-mode": "unix_mode in supported_node_properties",
  operations: "google.longrunning.Operations is served",
  "write-status": "ByteStream.QueryWriteStatus is served",
  tree: "GetTree is served",
  health: "grpc.health.v1.Health is served",
  reflection: "grpc.reflection.v1.ServerReflection is served",
  http: "the HTTP cache protocol is served",
} as const;
export type Feature = keyof typeof FEATURES;

const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** The answer to GetCapabilities, or why there is none. */
export async function askCapabilities(channel: Http2Channel, instanceName: string): Promise<ServerCapabilities> {
  const reply = await channel.unary(Capabilities.methods.GetCapabilities, { instanceName }, { deadlineMs: 10_000 });
  if (reply.response === undefined || reply.code !== Code.OK) {
    throw new Error(`GetCapabilities: ${reply.transport ?? `${reply.code} ${reply.message}`}`);
  }
  return reply.response;
}

export async function discoverFeatures(
  channel: Http2Channel,
  options: { capabilities: ServerCapabilities; instanceName: string; http: HttpTarget | undefined },
): Promise<ReadonlySet<Feature>> {
  const features = advertisedFeatures(options.capabilities);
  const isServed = async (path: string, request: Uint8Array): Promise<boolean> => {
    const reply = await channel.unaryBytes(path, request, () => undefined, { deadlineMs: 5000 });
    return reply.code !== Code.UNIMPLEMENTED && reply.transport === undefined && reply.code !== Code.PERMISSION_DENIED;
  };
  const { GetOperation } = Operations.methods;
  if (await isServed(GetOperation.path, GetOperation.input.encode({ name: "ledge-conformance/none" })))
    features.add("operations");
  const { GetTree } = Cas.methods;
  const absentRoot = { instanceName: options.instanceName, rootDigest: { hash: "0".repeat(64), sizeBytes: 17 } };
  if (await isServed(GetTree.path, GetTree.input.encode(absentRoot))) features.add("tree");
  const { Check } = Health.methods;
  if (await isServed(Check.path, Check.input.encode({}))) features.add("health");
  const reflection = ServerReflection.methods.ServerReflectionInfo;
  if (await isServed(reflection.path, ServerReflectionRequest.encode({ listServices: "" }))) features.add("reflection");
  if (features.has("cache")) {
    const { QueryWriteStatus } = ByteStream.methods;
    const prefix = options.instanceName === "" ? "" : `${options.instanceName}/`;
    const resourceName = `${prefix}uploads/00000000-0000-4000-8000-000000000000/blobs/${"0".repeat(64)}/17`;
    if (await isServed(QueryWriteStatus.path, QueryWriteStatus.input.encode({ resourceName })))
      features.add("write-status");
  }
  if (options.http !== undefined) {
    const answer = await httpRequest(options.http, {
      method: "GET",
      path: `/cas/${EMPTY_SHA256}`,
      timeoutMs: 3000,
    }).catch(() => undefined);
    if (answer?.status === 200 && answer.body.length === 0) features.add("http");
  }
  return features;
}

function advertisedFeatures(capabilities: ServerCapabilities): Set<Feature> {
  const features = new Set<Feature>();
  const add = (feature: Feature, isOn: boolean | undefined): void => {
    if (isOn === true) features.add(feature);
  };
  const cache = capabilities.cacheCapabilities;
  const execution = capabilities.executionCapabilities;
  const high = capabilities.highApiVersion;
  const functions = cache?.digestFunctions ?? execution?.digestFunctions ?? [];
  add("cache", cache !== undefined);
  add("ac-update", cache?.actionCacheUpdateCapabilities?.updateEnabled);
  add("zstd", cache?.supportedCompressors.includes(Compressor_Value.ZSTD));
  add("zstd-batch", cache?.supportedBatchUpdateCompressors.includes(Compressor_Value.ZSTD));
  add("split", cache?.splitBlobSupport);
  add("splice", cache?.spliceBlobSupport);
  add("sha256", functions.includes(DigestFunction_Value.SHA256));
  add("blake3", functions.includes(DigestFunction_Value.BLAKE3));
  add("batch-limit", (cache?.maxBatchTotalSizeBytes ?? 0) > 0);
  add("blob-limit", (cache?.maxCasBlobSizeBytes ?? 0) > 0);
  add("exec", execution?.execEnabled);
  add("absolute-symlinks", cache?.symlinkAbsolutePathStrategy === SymlinkAbsolutePathStrategy_Value.ALLOWED);
  add("no-absolute-symlinks", cache?.symlinkAbsolutePathStrategy === SymlinkAbsolutePathStrategy_Value.DISALLOWED);
  add("output-paths", high !== undefined && (high.major > 2 || (high.major === 2 && high.minor >= 1)));
  add("mtime", execution?.supportedNodeProperties.includes("mtime"));
  add("unix-mode", execution?.supportedNodeProperties.includes("unix_mode"));
  return features;
}
