// Directories and sandboxes made ahead: as good as new, and asked for only where they will probably fit.

import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { PreparedView, RunSpec } from "../../src/runner/runner.ts";
import { BuildDirectories } from "../../src/worker/build-directories.ts";
import { FileThreads } from "../../src/worker/file-threads.ts";
import { NextDirectories } from "../../src/worker/next-directories.ts";
import { FakeRunner } from "../runner/fake-runner.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

class PreparingRunner extends FakeRunner {
  readonly views: PreparedView[] = [];

  prepare(view: PreparedView): void {
    this.views.push(view);
  }
}

let folder: TemporaryFolder;
let buildDirectories: BuildDirectories;
const threads = new FileThreads(1);
let runner: PreparingRunner;
let next: NextDirectories;

beforeEach(async () => {
  folder = await TemporaryFolder.create("next");
  buildDirectories = await BuildDirectories.open({ path: folder.path, slots: 2, ownerOf: () => undefined });
  runner = new PreparingRunner();
  next = new NextDirectories({ buildDirectories, runner, threads });
});

afterEach(async () => {
  await buildDirectories.close();
  await folder[Symbol.asyncDispose]();
});

/** One action in slot 0, from its directory to its end. */
async function act(look: Partial<RunSpec> = {}): Promise<string> {
  const { directory, isMade } = next.take(0);
  expect(existsSync(directory.rootPath)).toBe(isMade);
  if (isMade) expect(readdirSync(directory.path)).toEqual(["root"]);
  else mkdirSync(directory.rootPath, { recursive: true });
  next.make(0);
  writeFileSync(`${directory.rootPath}/left`, "behind");
  await threads.run("removeTrees", []); // the jobs before it are done
  next.prepareSandbox({ ...specOf(directory.rootPath), ...look });
  await buildDirectories.discard(directory);
  return directory.rootPath;
}

function specOf(inputRootPath: string): RunSpec {
  return {
    id: "run",
    slot: 0,
    inputRootPath,
    rootMode: "host",
    mounts: [],
    arguments: ["true"],
    environment: [{ name: "SECRET", value: "of this action" }],
    workingDirectory: "",
    stdoutPath: "/stdout",
    stderrPath: "/stderr",
    network: "none",
    limits: { timeoutMs: 1000, maxLogBytes: 1000 },
  };
}

test("every action has an empty directory of its own, and a sandbox is asked for around the next one", async () => {
  const roots = [await act(), await act(), await act()];
  expect(new Set(roots).size).toBe(3);
  expect(runner.views.map(({ inputRootPath }) => inputRootPath).slice(0, 2)).toEqual(roots.slice(1));
  expect(runner.views[2]?.inputRootPath).toBe(next.take(0).directory.rootPath);
});

// What is asked for ahead must not depend on anything but the view.
test("a sandbox asked for ahead knows nothing of an action's command", async () => {
  await act();
  expect(Object.keys(runner.views[0]!).toSorted()).toEqual(
    ["inputRootPath", "limits", "mounts", "network", "rootMode", "slot"].toSorted(),
  );
  expect(runner.views[0]?.limits).toEqual({});
});

test("no sandbox is asked for where actions keep looking different", async () => {
  await act();
  await act({ network: "host" });
  await act();
  await act({ network: "host" });
  expect(runner.views).toHaveLength(1);
  await act({ network: "host" });
  expect(runner.views.map(({ network }) => network)).toEqual(["none", "host"]);
});

// bwrap would make `dev`, `tmp` or the mounted directory in the empty input root, and the inputs could not be created.
test("no sandbox is asked for where it would put mount points into the directory", async () => {
  const mountAt = (destination: string) => [{ source: "/usr", destination, writable: false, optional: false }];
  for (const look of [
    { rootMode: "input-root" },
    { mounts: mountAt("/build/usr") },
    { mounts: mountAt("//build/./usr/") },
    { mounts: mountAt("/build") },
    { inputRootPathInside: "/w/x", mounts: mountAt("/w/x/y") },
  ] as const) {
    await act(look);
    await act(look);
  }
  expect(runner.views).toEqual([]);
  await act({ mounts: mountAt("/builds") });
  await act({ mounts: mountAt("/builds") });
  expect(runner.views).toHaveLength(1);
});

test("a directory that could not be made ahead is named anew", async () => {
  if (process.getuid?.() !== 0) chmodSync(`${folder.path}/slots/0`, 0o500);
  else writeFileSync(`${folder.path}/slots/0/2`, "in the way");
  const { directory } = next.take(0);
  next.make(0);
  await threads.run("removeTrees", []);
  next.prepareSandbox(specOf(directory.rootPath));
  await threads.run("removeTrees", []);
  expect(runner.views).toEqual([]);
  const taken = next.take(0);
  expect(taken.isMade).toBe(false);
  expect(existsSync(taken.directory.path)).toBe(false);
});

test("nothing is made ahead for a runner that sets up nothing ahead", async () => {
  const plain = new NextDirectories({ buildDirectories, runner: new FakeRunner(), threads });
  plain.take(0);
  plain.make(0);
  await threads.run("removeTrees", []);
  expect(readdirSync(`${folder.path}/slots/0`)).toEqual([]);
});
