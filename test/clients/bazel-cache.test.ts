// Bazel 4.2.3 with ledge as a cache alone: actions run here, results come back over gRPC and over HTTP/1.1.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel, everything, type BazelResult } from "../support/bazel.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

let server: LedgeServer;
let bazel: Bazel;

beforeAll(async () => {
  [server, bazel] = await Promise.all([LedgeServer.start({ flags: ["--slots", "0"] }), Bazel.create()]);
}, patient.timeout);

afterAll(async () => {
  await bazel?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
}, patient.timeout);

async function cleanBuild(...args: readonly string[]): Promise<BazelResult> {
  await bazel.expectSuccess("clean");
  return bazel.expectSuccess("build", ...args, everything);
}

async function expectColdThenHits(...args: readonly string[]): Promise<void> {
  const cold = await cleanBuild(...args);
  expect(localCount(cold.processes)).toBeGreaterThan(45);
  expect(cold.processes.has("remote cache hit")).toBe(false);
  const warm = await cleanBuild(...args);
  expect(warm.processes.get("remote cache hit")).toBe(localCount(cold.processes));
  expect(localCount(warm.processes)).toBe(0);
  expect(await server.executedActions()).toBe(0);
}

describe("Bazel with --remote_cache", patient, () => {
  test("stores over gRPC what ran here, and finds all of it after `bazel clean`", async () => {
    await expectColdThenHits(`--remote_cache=grpc://${server.address}`);
  });

  test("stores over HTTP what ran here, and finds all of it after `bazel clean`", async () => {
    await expectColdThenHits(`--remote_cache=http://${server.address}/over-http`);
  });

  // The path prefix of HTTP is the instance name of gRPC.
  test("finds over gRPC what was stored over HTTP", async () => {
    const warm = await cleanBuild(`--remote_cache=grpc://${server.address}`, "--remote_instance_name=over-http");
    expect(warm.processes.get("remote cache hit")).toBeGreaterThan(45);
    expect(localCount(warm.processes)).toBe(0);
  });

  test("is refused remote execution with the reason, since the server has no slots", async () => {
    const result = await bazel.run("build", "--config=ledge", `--remote_executor=grpc://${server.address}`, everything);
    expect(result.exitCode).not.toBe(0);
    expect(result.text).toContain("Remote execution is not supported by the remote server");
  });
});
