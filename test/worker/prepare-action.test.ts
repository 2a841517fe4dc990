// What is refused before an action is queued: commands, paths, limits and what is missing.

import { expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { PreconditionFailure } from "../../src/proto/error_details.ts";
import { ExecutorFixture } from "./executor-fixture.ts";

test.each([
  ["../out", "leads outside the input root"],
  ["/out", "is absolute"],
  ["a/../../out", "leads outside the input root"],
  ["a\0b", "NUL"],
])("prepare() refuses the output path %j", async (path, message) => {
  await using fixture = await ExecutorFixture.create();
  const job = await fixture.build.job({ command: { arguments: ["x"], outputPaths: [path] } });
  await expect(fixture.executor.prepare(job)).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    message: expect.stringContaining(message),
  });
});

test.each([
  [{ arguments: [] }, "Command.arguments is empty"],
  [{ arguments: [""] }, "Command.arguments[0] is empty"],
  [{ arguments: ["a\0b"] }, "NUL"],
  [{ arguments: ["x"], environmentVariables: [{ name: "A=B", value: "" }] }, 'contains "="'],
  [{ arguments: ["x"], environmentVariables: [{ name: "", value: "" }] }, "is empty"],
  [{ arguments: ["x"], environmentVariables: [{ name: "A", value: "\0--bind\0/\0/" }] }, "NUL"],
  [{ arguments: ["x"], workingDirectory: "/tmp" }, "is absolute"],
  [{ arguments: ["x"], workingDirectory: "../.." }, "leads outside"],
  [{ arguments: ["x"], outputNodeProperties: ["colour"] }, '"colour" is not supported'],
  [{ arguments: ["x", "y".repeat(200_000)] }, "200000 bytes"],
])("prepare() refuses the command %j", async (command, message) => {
  await using fixture = await ExecutorFixture.create();
  const job = await fixture.build.job({ command });
  await expect(fixture.executor.prepare(job)).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    message: expect.stringContaining(message),
  });
});

test("prepare() refuses a timeout above the maximum and names both", async () => {
  await using fixture = await ExecutorFixture.create();
  const job = await fixture.build.job({
    command: { arguments: ["x"] },
    action: { timeout: { seconds: 3601, nanos: 0 } },
  });
  await expect(fixture.executor.prepare(job)).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    message: expect.stringMatching(/3601 s.*3600 s/),
  });
});

test("prepare() reports a missing Command with a violation", async () => {
  await using fixture = await ExecutorFixture.create();
  const absent = { hash: "ab".repeat(32), sizeBytes: 5 };
  const job = await fixture.build.job({ command: { arguments: ["x"] }, action: { commandDigest: absent } });
  const error = await fixture.executor.prepare(job).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: Code.FAILED_PRECONDITION });
  const { details } = error as { details: { value: Uint8Array }[] };
  expect(PreconditionFailure.decode(details[0]!.value).violations[0]?.subject).toBe(`blobs/${absent.hash}/5`);
});
