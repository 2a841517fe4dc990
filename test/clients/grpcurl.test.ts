// grpcurl (grpc-go) against dist/ledge: knows nothing of REAPI but what server reflection tells.

import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runToEnd, type ChildOutput } from "../support/child-output.ts";
import { grpcurlPath } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

let server: LedgeServer;
let grpcurl: string;

beforeAll(async () => {
  [server, grpcurl] = await Promise.all([LedgeServer.start(), grpcurlPath()]);
}, patient.timeout);

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
}, patient.timeout);

function run(...args: readonly string[]): Promise<ChildOutput> {
  return runToEnd(grpcurl, ["-plaintext", ...args]);
}

async function call(method: string, request: unknown): Promise<unknown> {
  const output = await run("-d", JSON.stringify(request), server.address, method);
  if (output.exitCode !== 0) throw new Error(output.stderr);
  return JSON.parse(output.stdout) as unknown;
}

const reapi = "build.bazel.remote.execution.v2";

describe("grpcurl through reflection", patient, () => {
  test("lists every service of the server", async () => {
    const output = await run(server.address, "list");
    expect(output.stdout.trim().split("\n")).toEqual(
      expect.arrayContaining([
        `${reapi}.ActionCache`,
        `${reapi}.Capabilities`,
        `${reapi}.ContentAddressableStorage`,
        `${reapi}.Execution`,
        "google.bytestream.ByteStream",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
      ]),
    );
  });

  test("describes a message down to the types it is made of", async () => {
    const output = await run(server.address, "describe", `${reapi}.ActionResult`);
    expect(output.stdout).toContain("repeated .build.bazel.remote.execution.v2.OutputFile output_files = 2;");
    expect(output.stdout).toContain("execution_metadata = 9;");
  });

  test("calls GetCapabilities and the health check", async () => {
    expect(await call(`${reapi}.Capabilities/GetCapabilities`, {})).toMatchObject({
      cacheCapabilities: { digestFunctions: ["SHA256", "BLAKE3"] },
      executionCapabilities: { execEnabled: true },
      lowApiVersion: { major: 2 },
    });
    expect(await call("grpc.health.v1.Health/Check", {})).toEqual({ status: "SERVING" });
  });

  test("uploads a blob and reads it back", async () => {
    const data = Buffer.from(`grpcurl ${process.hrtime.bigint()}`);
    const digest = { hash: createHash("sha256").update(data).digest("hex"), sizeBytes: String(data.length) };
    const cas = `${reapi}.ContentAddressableStorage`;
    expect(await call(`${cas}/FindMissingBlobs`, { blobDigests: [digest] })).toEqual({ missingBlobDigests: [digest] });
    await call(`${cas}/BatchUpdateBlobs`, { requests: [{ digest, data: data.toString("base64") }] });
    expect(await call(`${cas}/FindMissingBlobs`, { blobDigests: [digest] })).toEqual({});
    const name = `blobs/${digest.hash}/${digest.sizeBytes}`;
    expect(await call("google.bytestream.ByteStream/Read", { resourceName: name })).toEqual({
      data: data.toString("base64"),
    });
  });

  test("is told what is wrong with a digest", async () => {
    const request = JSON.stringify({ blobDigests: [{ hash: "ABC", sizeBytes: "1" }] });
    const output = await run("-d", request, server.address, `${reapi}.ContentAddressableStorage/FindMissingBlobs`);
    expect(output.exitCode).not.toBe(0);
    expect(output.stderr).toContain("InvalidArgument");
    expect(output.stderr).toContain('"ABC"');
  });
});
