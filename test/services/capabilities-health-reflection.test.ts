// The small services: what is offered, whether it is up, and what it looks like.

import { describe, expect, test } from "vitest";
import protobuf from "protobufjs";
import { Code } from "../../src/base/status.ts";
import {
  Health,
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../src/proto/health.ts";
import { ServerReflection, type ServerReflectionRequestInit } from "../../src/proto/reflection.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../src/proto/reflection_v1alpha.ts";
import { Capabilities, Compressor_Value, DigestFunction_Value } from "../../src/proto/remote_execution.ts";
import { createCapabilitiesService } from "../../src/services/capabilities.ts";
import { createHealthService, HealthState } from "../../src/services/health.ts";
import { createReflectionServices } from "../../src/services/reflection.ts";
import { FakeClient, statusOf } from "./fake-call.ts";

/** What of descriptor.proto is needed here. */
const FileDescriptorProto = new protobuf.Type("FileDescriptorProto").add(new protobuf.Field("name", 1, "string"));

describe("getCapabilities()", () => {
  const { GetCapabilities } = Capabilities.methods;
  const of = (executes: boolean) => new FakeClient(createCapabilitiesService({ executes, maxBlobSizeBytes: 0 }));

  test("of a cache names everything a cache has, and nothing of execution", async () => {
    const capabilities = await of(false).unary(GetCapabilities, { instanceName: "any/name" });
    const cache = capabilities.cacheCapabilities!;
    expect(capabilities.executionCapabilities).toBeUndefined();
    expect(cache.digestFunctions).toEqual([DigestFunction_Value.SHA256, DigestFunction_Value.BLAKE3]);
    expect(cache.actionCacheUpdateCapabilities?.updateEnabled).toBe(true);
    expect(cache.supportedCompressors).toEqual([Compressor_Value.ZSTD]);
    expect(cache.supportedBatchUpdateCompressors).toEqual([Compressor_Value.ZSTD]);
    expect(cache.maxBatchTotalSizeBytes).toBe(4 * 1024 * 1024 - 64 * 1024);
    expect(cache.symlinkAbsolutePathStrategy).toBe(2);
    expect([cache.splitBlobSupport, cache.spliceBlobSupport]).toEqual([false, false]);
    expect(cache.cachePriorityCapabilities?.priorities).toHaveLength(1);
    expect([capabilities.lowApiVersion?.major, capabilities.lowApiVersion?.minor]).toEqual([2, 0]);
    expect([capabilities.highApiVersion?.major, capabilities.highApiVersion?.minor]).toEqual([2, 11]);
  });

  test("with chunking are those of 2.12, with the parameters of the cuts", async () => {
    const chunking = { averageBytes: 524_288, seed: 0 };
    const client = new FakeClient(createCapabilitiesService({ executes: false, maxBlobSizeBytes: 5, chunking }));
    const { cacheCapabilities: cache, highApiVersion } = await client.unary(GetCapabilities, {});
    expect(highApiVersion?.minor).toBe(12);
    expect([cache?.splitBlobSupport, cache?.spliceBlobSupport]).toEqual([true, true]);
    expect(cache?.fastCdc2020Params).toEqual({ avgChunkSizeBytes: 524_288, seed: 0 });
    expect(cache?.maxCasBlobSizeBytes).toBe(5);
  });

  test("of an executor has the singular function within the list", async () => {
    const { executionCapabilities } = await of(true).unary(GetCapabilities, {});
    expect(executionCapabilities?.execEnabled).toBe(true);
    expect(executionCapabilities?.digestFunctions).toContain(executionCapabilities?.digestFunction);
    expect(executionCapabilities?.supportedNodeProperties).toEqual(["mtime", "unix_mode"]);
  });
});

describe("health", () => {
  const { Check, List, Watch } = Health.methods;

  test("check() and list() follow the state; an unknown service is NOT_FOUND", async () => {
    const state = new HealthState(["a.Service"]);
    const client = new FakeClient(createHealthService({ state }));
    expect((await client.unary(Check, {})).status).toBe(ServingStatus.NOT_SERVING);
    state.setServing(true);
    expect((await client.unary(Check, {})).status).toBe(ServingStatus.SERVING);
    expect((await client.unary(Check, { service: "a.Service" })).status).toBe(ServingStatus.SERVING);
    expect((await statusOf(client.unary(Check, { service: "b" }))).code).toBe(Code.NOT_FOUND);
    const { statuses } = await client.unary(List, {});
    expect([...statuses.keys()]).toEqual(["", "a.Service"]);
  });

  test("watch() sends the state of now, then changes, and ends with the call", async () => {
    const state = new HealthState(["a.Service"]);
    const client = new FakeClient(createHealthService({ state }));
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const known = client.open(Watch);
    known.call.send(Watch.input.encode({ service: "a.Service" }));
    const unknown = client.open(Watch);
    unknown.call.send(Watch.input.encode({ service: "unknown" }));
    await turn();
    state.setServing(true);
    await turn();
    state.setServing(true); // no change
    await turn();
    state.setServing(false);
    await turn();
    const statuses = known.call.written.map((bytes) => HealthCheckResponse.decode(bytes).status);
    expect(statuses).toEqual([ServingStatus.NOT_SERVING, ServingStatus.SERVING, ServingStatus.NOT_SERVING]);
    expect(unknown.call.written.map((bytes) => HealthCheckResponse.decode(bytes).status)).toEqual([
      ServingStatus.SERVICE_UNKNOWN,
    ]);
    known.call.cancel();
    unknown.call.cancel();
    await Promise.allSettled([known.done, unknown.done]);
  });
});

describe.each([
  ["v1", ServerReflection],
  ["v1alpha", ServerReflectionAlpha],
])("reflection %s", (_version, { methods }) => {
  const client = new FakeClient(...createReflectionServices({ serviceNames: ["google.bytestream.ByteStream"] }));
  const ask = async (...requests: ServerReflectionRequestInit[]) =>
    client.stream(methods.ServerReflectionInfo, requests as never[]);

  test("lists the services, itself included", async () => {
    const [reply] = await ask({ host: "h", listServices: "*" });
    expect(reply?.validHost).toBe("h");
    expect(reply?.originalRequest?.listServices).toBe("*");
    expect(reply?.listServicesResponse?.service.map(({ name }) => name)).toEqual([
      "google.bytestream.ByteStream",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ]);
  });

  test("gives the file of a symbol with all its imports, readable by protobufjs", async () => {
    const symbol = "build.bazel.remote.execution.v2";
    for (const name of [
      `${symbol}.Execution`,
      `${symbol}.Execution.Execute`,
      `${symbol}.Digest`,
      `${symbol}.Digest.hash`,
    ]) {
      const [reply] = await ask({ fileContainingSymbol: name });
      const files = reply!.fileDescriptorResponse!.fileDescriptorProto;
      const names = files.map((bytes) => FileDescriptorProto.decode(bytes).toJSON()["name"] as string);
      expect(names[0]).toBe("build/bazel/remote/execution/v2/remote_execution.proto");
      expect(names).toContain("google/protobuf/any.proto");
      expect(new Set(names).size).toBe(names.length);
    }
  });

  test("answers what is unknown without ending the call", async () => {
    const replies = await ask(
      { fileContainingSymbol: "no.Such" },
      { fileByFilename: "no/such.proto" },
      { fileContainingExtension: { containingType: "google.rpc.Status", extensionNumber: 5 } },
      { allExtensionNumbersOfType: "no.Such" },
      { allExtensionNumbersOfType: "google.rpc.Status" },
      { fileByFilename: "google/rpc/status.proto" },
    );
    expect(replies.map(({ errorResponse }) => errorResponse?.errorCode)).toEqual([5, 5, 5, 5, undefined, undefined]);
    expect(replies[4]?.allExtensionNumbersResponse?.baseTypeName).toBe("google.rpc.Status");
    expect(replies[5]?.fileDescriptorResponse?.fileDescriptorProto).toHaveLength(2);
  });

  test("fails a request that asks nothing", async () => {
    expect((await statusOf(ask({ host: "h" }))).code).toBe(Code.INVALID_ARGUMENT);
  });
});
