// Bazel 4.2.3 against dist/ledge: actions run there and nowhere else, and come back from its cache.
//
// One server and one Bazel for all cases: `bazel clean` forgets what Bazel knows, an instance name of its own makes the
// action cache look empty.

import { existsSync } from "node:fs";
import { lstat, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { localCount } from "../../examples/process-summary.ts";
import { Bazel, everything, type BazelResult } from "../support/bazel.ts";
import { runOrThrow } from "../support/child-output.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";

let server: LedgeServer;
let bazel: Bazel;
let cold: BazelResult;

beforeAll(async () => {
  [server, bazel] = await Promise.all([LedgeServer.start(), Bazel.create()]);
  cold = await build();
}, patient.timeout);

afterAll(async () => {
  await bazel?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
}, patient.timeout);

function build(...args: readonly string[]): Promise<BazelResult> {
  return bazel.expectSuccess("build", ...remote(), ...args, everything);
}

function remote(): string[] {
  return ["--config=ledge", `--remote_executor=grpc://${server.address}`];
}

/** Cleans, builds again, and expects that every action of the cold build is a hit and nothing runs anywhere. */
async function expectAllHits(...args: readonly string[]): Promise<BazelResult> {
  const executedBefore = await server.executedActions();
  await bazel.expectSuccess("clean");
  const warm = await build(...args);
  expect(warm.processes.get("remote cache hit")).toBe(cold.processes.get("remote"));
  expect(warm.processes.has("remote")).toBe(false);
  expect(localCount(warm.processes)).toBe(0);
  expect(await server.executedActions()).toBe(executedBefore);
  return warm;
}

describe("Bazel with --remote_executor", patient, () => {
  test("runs every action of a cold build in ledge and none here", async () => {
    expect(cold.processes.get("remote")).toBeGreaterThan(45);
    expect(cold.processes.has("remote cache hit")).toBe(false);
    expect(localCount(cold.processes)).toBe(0);
    expect(await server.executedActions()).toBe(cold.processes.get("remote"));
  });

  test("gets outputs that are right: a program that runs, many files, a tree artifact", async () => {
    const program = await runOrThrow(join(bazel.bin, "cli/words"), [], { stdin: "one two two three three three" });
    expect(program.stdout).toBe("three:3 two:2 one:1\n");
    expect(await readFile(join(bazel.bin, "generated/number_7.txt"), "utf8")).toBe("7 squared is 49\n");
    expect(await readFile(join(bazel.bin, "generated/table_39.txt"), "utf8")).toMatch(/^row 40\nAn action is/);
    expect(await readFile(join(bazel.bin, "generated/tree_listing.txt"), "utf8")).toContain(
      "./level_0/level_1/level_2/run.sh: echo level 2",
    );
  });

  test("after `bazel clean` finds every action in the cache", async () => {
    await expectAllHits();
  });

  test("finds every action in the cache after the server was stopped and started", async () => {
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    await server.restart();
    await expectAllHits();
  });

  test("finds every action in the cache after the server was killed with SIGKILL and started", async () => {
    await server.kill();
    await server.restart();
    await expectAllHits();
  });

  test("downloads no output with --remote_download_minimal", async () => {
    await expectAllHits("--remote_download_minimal");
    expect(existsSync(join(bazel.bin, "cli/words"))).toBe(false);
  });

  test("downloads the outputs of named targets alone with --remote_download_toplevel", async () => {
    await expectAllHits("--remote_download_toplevel");
    expect(existsSync(join(bazel.bin, "cli/words"))).toBe(true);
    expect(existsSync(join(bazel.bin, "text/_objs/text/count.pic.o"))).toBe(false);
    expect(existsSync(join(bazel.bin, "text/_objs/text/count.o"))).toBe(false);
  });

  // The inputs of later actions are outputs that Bazel has never seen: only ledge has them.
  test("runs a cold build with --remote_download_minimal", async () => {
    await bazel.expectSuccess("clean");
    const minimal = await build("--remote_instance_name=minimal", "--remote_download_minimal");
    expect(minimal.processes.get("remote")).toBe(cold.processes.get("remote"));
    expect(localCount(minimal.processes)).toBe(0);
  });

  test("keeps the action caches of instance names apart", async () => {
    await bazel.expectSuccess("clean");
    const first = await build("--remote_instance_name=team/project");
    expect(first.processes.get("remote")).toBe(cold.processes.get("remote"));
    expect(first.processes.has("remote cache hit")).toBe(false);
    await expectAllHits("--remote_instance_name=team/project");
  });

  test("runs a test remotely and shows its output", async () => {
    const args = [...remote(), "--test_output=all", "//text:text_test"];
    const result = await bazel.expectSuccess("test", ...args);
    expect(result.text).toContain("all good");
    expect(result.text).toMatch(/\/\/text:text_test +PASSED/);
    expect(result.processes.get("remote")).toBeGreaterThan(0);
    expect(localCount(result.processes)).toBe(0);
    await bazel.expectSuccess("clean");
    const again = await bazel.expectSuccess("test", ...args);
    expect(again.text).toMatch(/\/\/text:text_test +\(cached\) PASSED/);
  });

  test("shows the stderr and exit code of an action that fails", async () => {
    const result = await bazel.run("build", ...remote(), "//generated:failing");
    expect(result.exitCode).toBe(1);
    expect(result.text).toContain("this explains the failure");
    expect(result.text).toContain("this goes to stdout");
    expect(result.text).toMatch(/Exit 3|exit code 3|status 3/);
  });

  test("shows a long stdout from its first line to its last", async () => {
    const result = await bazel.expectSuccess("build", ...remote(), "//generated:long_stdout");
    for (const n of [0, 1, 9_999, 19_999]) expect(result.text).toContain(`line ${n} of a long standard output`);
    expect(localCount(result.processes)).toBe(0);
  });

  test("gets an output that is a symlink", async () => {
    await bazel.expectSuccess("build", ...remote(), "//generated:symlink");
    const link = join(bazel.bin, "generated/link.txt");
    expect(await readFile(link, "utf8")).toBe("behind the link\n");
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    expect(await readlink(link)).toBe("target.txt");
  });
});
