// Eight Bazels with output bases of their own build the same project in one server at once.

import { expect, test } from "vitest";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel, everything, type BazelResult } from "../support/bazel.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

const builds = 8;

test("eight builds at once all succeed, and every action runs once or is shared", patient, async () => {
  await using server = await LedgeServer.start();
  const args = ["--config=ledge", `--remote_executor=grpc://${server.address}`, "--jobs=8", everything];
  const running = Array.from({ length: builds }, async (): Promise<BazelResult> => {
    await using bazel = await Bazel.create();
    return await bazel.expectSuccess("build", ...args); // awaited here: the next line of this block is the disposal
  });
  // All have to end before the first failure is reported: each Bazel has a server and a folder to clean up.
  await Promise.allSettled(running);
  const results = await Promise.all(running);
  const actions = new Set(results.map(remoteCount));
  for (const result of results) expect(localCount(result.processes)).toBe(0);
  // In-flight deduplication and the cache: no action of the project ran twice.
  expect(actions.size).toBe(1);
  expect(await server.executedActions()).toBe([...actions][0]);
});

function remoteCount(result: BazelResult): number {
  return (result.processes.get("remote") ?? 0) + (result.processes.get("remote cache hit") ?? 0);
}
