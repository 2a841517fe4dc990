// One scripted grpcio client per client that cannot be installed here; each asserts what that client depends on.
//
// The scripts are in python/: gRPC's C core and the public protos, so neither transport nor codecs are ours.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";

let server: LedgeServer;

beforeAll(async () => {
  server = await LedgeServer.start();
}, patient.timeout);

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
}, patient.timeout);

describe("a scripted client finds everything right:", patient, () => {
  test.each([
    ["bazel8", "Bazel 8: zstd, output_paths, WaitExecution, lost inputs"],
    ["buck2", "Buck2: execution_metadata and tree_digest always, committed_size of compressed writes"],
    ["reclient", "reclient and remote-apis-sdks: partial and resumed reads and writes"],
    ["recc", "recc: API 2.0 fields, cache only, the short metadata header"],
    ["buildstream", "BuildStream: odd output paths, DIRECTORY_ONLY, cancelling"],
    ["buildbox", "BuildBox: full batches, 1 MiB chunks, GetTree"],
    ["blake3_build", "a build of which every digest is BLAKE3"],
    ["small_headers", "grpc-java's 8 KiB of headers and 5,000 missing inputs"],
  ])("%s (%s)", async (name) => {
    const output = await runPythonScript(name, server.address);
    expect(output.exitCode, `${output.stdout}\n${output.stderr}`).toBe(0);
    expect(output.stdout).toContain("right: ");
  });
});
