// The measure of executors: actions that are never equal, roots that differ where they should, usage of whole trees.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { readTreeUsage } from "../../native-free-bench/executor/process-tree-usage.ts";
import { sampleAction, sampleRoot } from "../../native-free-bench/executor/sample-actions.ts";
import { runExecutor } from "../../native-free-bench/executor-command.ts";

test("no two sample actions are equal, though their input root is", () => {
  const root = sampleRoot(0, { seed: 1 });
  const hashes = Array.from({ length: 100 }, () => sampleAction(root, "run").digest.hash);
  expect(new Set(hashes).size).toBe(100);
});

test("sample roots of one seed differ in the changed file only", () => {
  const blobs = (changed: number) =>
    new Set(sampleRoot(1000, { seed: 7, changed }).blobs.map(({ digest }) => digest.hash));
  expect(sampleRoot(1000, { seed: 7 }).digest).toEqual(sampleRoot(1000, { seed: 7 }).digest);
  expect(sampleRoot(1000, { seed: 8 }).digest).not.toEqual(sampleRoot(1000, { seed: 7 }).digest);
  const [one, other] = [blobs(1), blobs(2)];
  // The file, its directory and the root above it.
  expect([...one].filter((hash) => !other.has(hash))).toHaveLength(3);
  expect(one.size).toBe(1000 + 20 + 1);
});

test("the usage of a process has its children's processes and memory", async () => {
  const before = readTreeUsage([process.pid]);
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  await once(child, "spawn");
  const during = readTreeUsage([process.pid]);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(during.processes).toBe(before.processes + 1);
  expect(before.residentBytes).toBeGreaterThan(1 << 20);
  expect([...before.cpuMs.keys()].some((name) => name.endsWith("event loop"))).toBe(true);
});

test.each([["--measure", "none"], ["--target", "ledge"], ["--target", "ledge=http"], ["--rounds", "0"], ["--what"]])(
  "bad arguments are exit code 2: %s %s",
  async (...argv) => {
    expect(await runExecutor(argv.includes("--target") ? argv : [...argv, "--target", "a=grpc://127.0.0.1:1"])).toBe(2);
  },
);
