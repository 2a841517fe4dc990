// One action from its digest to its result, on in-memory stores and a runner whose programs are functions.

import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { DigestFunction, EMPTY_HASH, toWireDigest } from "../../src/digest/digest.ts";
import { PreconditionFailure } from "../../src/proto/error_details.ts";
import { ActionResult, Command_OutputDirectoryFormat } from "../../src/proto/remote_execution.ts";
import type { FakeProcess } from "../runner/fake-runner.ts";
import { ActionBuilder, executable } from "./action-builder.ts";
import { ExecutorFixture } from "./executor-fixture.ts";

const write = (name: string, content: string) => (process: FakeProcess) => {
  writeFileSync(join(process.workingDirectoryPath, name), content);
  return 0;
};

test("execute() runs the command on its inputs and stores outputs, streams and the result", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      copy: ({ workingDirectoryPath, writeStdout, writeStderr }) => {
        const input = readFileSync(join(workingDirectoryPath, "src/in.txt"), "utf8");
        writeFileSync(join(workingDirectoryPath, "out/deep/result.txt"), input.toUpperCase());
        writeStdout("hello");
        writeStderr("warning");
        return 0;
      },
    },
  });
  const job = await fixture.build.job({
    command: { arguments: ["copy"], outputPaths: ["out/deep/result.txt", "out/absent"] },
    inputs: { src: { entries: { "in.txt": "content" } } },
  });
  const { status, result } = await fixture.run(job);

  expect(status).toBeUndefined();
  expect(result?.exitCode).toBe(0);
  expect(result?.outputFiles.map(({ path, isExecutable }) => ({ path, isExecutable }))).toEqual([
    { path: "out/deep/result.txt", isExecutable: false },
  ]);
  expect(await fixture.text(result?.outputFiles[0]?.digest)).toBe("CONTENT");
  expect(await fixture.text(result?.stdoutDigest)).toBe("hello");
  expect(await fixture.text(result?.stderrDigest)).toBe("warning");
  expect(result?.executionMetadata?.worker).toBe("test-worker");

  const key = { instanceName: "", fn: DigestFunction.SHA256, hash: job.actionDigest.hash };
  const cached = await fixture.actionCache.get(key);
  expect(ActionResult.decode(cached!)).toEqual(result);
});

// Buck2 fails without the metadata, and log viewers subtract these from each other.
test("execute() sets every timestamp in order", async () => {
  await using fixture = await ExecutorFixture.create({ programs: { ok: () => 0 } });
  const { result } = await fixture.run(await fixture.build.job({ command: { arguments: ["ok"] } }));
  const metadata = result!.executionMetadata!;
  const times = [
    metadata.queuedTimestamp,
    metadata.workerStartTimestamp,
    metadata.inputFetchStartTimestamp,
    metadata.inputFetchCompletedTimestamp,
    metadata.executionStartTimestamp,
    metadata.executionCompletedTimestamp,
    metadata.outputUploadStartTimestamp,
    metadata.outputUploadCompletedTimestamp,
    metadata.workerCompletedTimestamp,
  ].map((time) => time!.seconds * 1000 + Math.round(time!.nanos / 1e6));
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  expect(metadata.virtualExecutionDuration).toBeDefined();
  expect(result!.stdoutDigest).toEqual({ hash: EMPTY_HASH[DigestFunction.SHA256], sizeBytes: 0 });
});

test("execute() materializes files, modes, symlinks and empty directories", async () => {
  const seen: string[] = [];
  await using fixture = await ExecutorFixture.create({
    programs: {
      look: ({ workingDirectoryPath: root }) => {
        for (const name of ["plain", "tool", "empty-file", "sub/link", "sub/empty"]) {
          const stats = lstatSync(join(root, name));
          const what = stats.isSymbolicLink() ? readlinkSync(join(root, name)) : (stats.mode & 0o777).toString(8);
          seen.push(`${name} ${what}`);
        }
        return 0;
      },
    },
  });
  const job = await fixture.build.job({
    command: { arguments: ["look"] },
    inputs: {
      plain: "text",
      tool: executable("#!/bin/sh\n"),
      "empty-file": "",
      sub: { entries: { link: { target: "../plain" }, empty: { entries: {} } } },
    },
  });
  expect((await fixture.run(job)).result?.exitCode).toBe(0);
  expect(seen).toEqual(["plain 444", "tool 555", "empty-file 444", "sub/link ../plain", "sub/empty 755"]);
});

test.each([true, false])(
  "execute() gives equal contents of one root different inodes and times (linked from the cache: %s)",
  async (withFileCache) => {
    const stats: { ino: number; seconds: number }[] = [];
    await using fixture = await ExecutorFixture.create({
      withFileCache,
      programs: {
        look: ({ workingDirectoryPath: root }) => {
          for (let i = 0; i < 10; i++) {
            const { ino, mtimeMs } = lstatSync(join(root, `d${i}`, "same.h"));
            stats.push({ ino, seconds: mtimeMs / 1000 });
          }
          return 0;
        },
      },
    });
    const inputs = Object.fromEntries(
      Array.from({ length: 10 }, (_, i) => [`d${i}`, { entries: { "same.h": "#pragma once\n" } }]),
    );
    await fixture.run(await fixture.build.job({ command: { arguments: ["look"] }, inputs }));
    expect(new Set(stats.map(({ ino }) => ino)).size).toBe(10);
    expect(stats.map(({ seconds }) => seconds)).toEqual(Array.from({ length: 10 }, (_, i) => 946_684_800 + i));
  },
);

test("execute() honours mtime and unix_mode of inputs with a private file", async () => {
  const seen: string[] = [];
  await using fixture = await ExecutorFixture.create({
    withFileCache: true,
    programs: {
      look: ({ workingDirectoryPath: root }) => {
        for (const name of ["file", "dir"]) {
          const { mode, mtimeMs } = lstatSync(join(root, name));
          seen.push(`${name} ${(mode & 0o777).toString(8)} ${mtimeMs}`);
        }
        return 0;
      },
    },
  });
  const nodeProperties = { mtime: { seconds: 1_234_567_890, nanos: 500_000_000 }, unixMode: 0o750 };
  const job = await fixture.build.job({
    command: { arguments: ["look"] },
    inputs: { file: { content: "x", nodeProperties }, dir: { entries: { inner: "y" }, nodeProperties } },
  });
  await fixture.run(job);
  expect(seen).toEqual(["file 750 1234567890500", "dir 750 1234567890500"]);
});

// A client that uploads what is named must not come back to hear of the next one.
test("execute() names every missing file and directory at once", async () => {
  await using fixture = await ExecutorFixture.create({ programs: { never: () => 0 } });
  await using other = await ExecutorFixture.create();
  const elsewhere = new ActionBuilder(other.store);
  const digests = [];
  for (let i = 0; i < 5000; i++) digests.push(`file ${i}`);
  const root = await elsewhere.tree(Object.fromEntries(digests.map((text, i) => [`f${i}`, text])));
  await fixture.build.blob((await elsewhere.store.get(root))!);
  const job = await fixture.build.job({ command: { arguments: ["never"] }, inputs: root });
  const { status } = await fixture.run(job);
  expect(status?.code).toBe(Code.FAILED_PRECONDITION);
  expect(status?.details).toHaveLength(1);
  const { violations } = PreconditionFailure.decode(status!.details[0]!.value);
  expect(violations).toHaveLength(5000);
  expect(
    violations.every(({ type, subject }) => type === "MISSING" && /^blobs\/[0-9a-f]{64}\/\d+$/.test(subject)),
  ).toBe(true);
});

test("execute() reports directories as a canonical, topologically sorted Tree", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      tree: ({ workingDirectoryPath: root }) => {
        for (const name of ["b/same", "a/same", "empty"]) mkdirSync(join(root, "out", name), { recursive: true });
        for (const name of ["b/same/f", "a/same/f"]) writeFileSync(join(root, "out", name), "equal");
        writeFileSync(join(root, "out/run"), "x", { mode: 0o755 });
        symlinkSync("nowhere", join(root, "out/dangling"));
        return 0;
      },
    },
  });
  const job = await fixture.build.job({
    command: {
      arguments: ["tree"],
      outputPaths: ["out"],
      outputDirectoryFormat: Command_OutputDirectoryFormat.TREE_AND_DIRECTORY,
    },
  });
  const { result } = await fixture.run(job);
  const output = result!.outputDirectories[0]!;
  expect(output.isTopologicallySorted).toBe(true);
  const tree = await fixture.tree(output.treeDigest);
  expect(tree.root?.directories.map(({ name }) => name)).toEqual(["a", "b", "empty"]);
  expect(tree.root?.files.map(({ name, isExecutable }) => ({ name, isExecutable }))).toEqual([
    { name: "run", isExecutable: true },
  ]);
  expect(tree.root?.symlinks.map(({ name, target }) => ({ name, target }))).toEqual([
    { name: "dangling", target: "nowhere" },
  ]);
  // a and b are equal, and so are the directories below them: one of each, and the empty one.
  expect(tree.children).toHaveLength(3);
  expect(await fixture.directory(output.rootDirectoryDigest)).toEqual(tree.root);
  expect(await fixture.directory(tree.root?.directories[0]?.digest)).toEqual(
    tree.children[0 + tree.children.findIndex((child) => child.directories.length === 1)],
  );
});

test("execute() collects outputs named with . and .. and echoes the names", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      make: ({ workingDirectoryPath: directory }) => {
        writeFileSync(join(directory, "here"), "1");
        mkdirSync(join(directory, "../../install"), { recursive: true });
        writeFileSync(join(directory, "../../install/there"), "2");
        return 0;
      },
    },
  });
  const job = await fixture.build.job({
    command: { arguments: ["make"], workingDirectory: "a/b", outputPaths: [".", "../../install", "x/../here"] },
    inputs: { a: { entries: { b: { entries: {} } } } },
  });
  const { status, result } = await fixture.run(job);
  expect(status).toBeUndefined();
  expect(result?.outputDirectories.map(({ path }) => path)).toEqual([".", "../../install"]);
  expect(result?.outputFiles.map(({ path }) => path)).toEqual(["x/../here"]);
});

test("execute() answers INVALID_ARGUMENT when the working directory is not in the input root", async () => {
  await using fixture = await ExecutorFixture.create({ programs: { x: () => 0 } });
  for (const workingDirectory of ["missing", "file"]) {
    const job = await fixture.build.job({ command: { arguments: ["x"], workingDirectory }, inputs: { file: "text" } });
    const { status } = await fixture.run(job);
    expect(status).toMatchObject({ code: Code.INVALID_ARGUMENT, message: expect.stringContaining(workingDirectory) });
  }
});

test("execute() keeps streams and outputs of a failed command and does not cache it", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      fail: ({ workingDirectoryPath, writeStderr }) => {
        writeFileSync(join(workingDirectoryPath, "log"), "details");
        writeStderr("it went wrong");
        return 7;
      },
    },
  });
  const job = await fixture.build.job({ command: { arguments: ["fail"], outputPaths: ["log"] } });
  const { status, result } = await fixture.run(job);
  expect(status).toBeUndefined();
  expect(result?.exitCode).toBe(7);
  expect(await fixture.text(result?.stderrDigest)).toBe("it went wrong");
  expect(result?.outputFiles).toHaveLength(1);
  expect(
    await fixture.actionCache.get({ instanceName: "", fn: DigestFunction.SHA256, hash: job.actionDigest.hash }),
  ).toBeUndefined();
});

test("execute() keeps what an action left behind at its timeout", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      hang: async ({ workingDirectoryPath, killed, writeStdout }) => {
        writeStdout("half");
        writeFileSync(join(workingDirectoryPath, "part"), "part");
        await new Promise((resolve) => killed.addEventListener("abort", resolve));
        return 0;
      },
    },
  });
  const job = await fixture.build.job({
    command: { arguments: ["hang"], outputPaths: ["part"] },
    action: { timeout: { seconds: 0, nanos: 50_000_000 } },
  });
  const { status, result } = await fixture.run(job);
  expect(status).toMatchObject({ code: Code.DEADLINE_EXCEEDED, message: expect.stringContaining("0.05 s") });
  expect(await fixture.text(result?.stdoutDigest)).toBe("half");
  expect(result?.outputFiles).toHaveLength(1);
});

test("execute() keeps the output of a cancelled action", async () => {
  const abort = new AbortController();
  await using fixture = await ExecutorFixture.create({
    programs: {
      hang: async ({ killed, writeStdout }) => {
        writeStdout("half");
        abort.abort();
        await new Promise((resolve) => (killed.aborted ? resolve(0) : killed.addEventListener("abort", resolve)));
        return 0;
      },
    },
  });
  const job = await fixture.build.job({ command: { arguments: ["hang"] } });
  const { status, result } = await fixture.run(job, { signal: abort.signal });
  expect(status?.code).toBe(Code.CANCELLED);
  expect(await fixture.text(result?.stdoutDigest)).toBe("half");
});

test("execute() stores nothing for an action that must not be cached", async () => {
  await using fixture = await ExecutorFixture.create({ programs: { ok: () => 0 } });
  const job = await fixture.build.job({ command: { arguments: ["ok"] }, action: { doNotCache: true } });
  expect((await fixture.run(job)).result?.exitCode).toBe(0);
  expect(
    await fixture.actionCache.get({ instanceName: "", fn: DigestFunction.SHA256, hash: job.actionDigest.hash }),
  ).toBeUndefined();
});

test("execute() leaves no build directory, whatever happened", async () => {
  await using fixture = await ExecutorFixture.create({ programs: { ok: () => 0, fail: () => 1 } });
  for (const name of ["ok", "fail", "absent"]) {
    await fixture.run(await fixture.build.job({ command: { arguments: [name] }, inputs: { a: name } }));
  }
  await fixture.buildDirectories.settle();
  expect(readdirSync(join(fixture.execPath, "slots/0"))).toEqual([]);
  expect(readdirSync(join(fixture.execPath, "trash"))).toEqual([]);
});

test("execute() computes outputs and Trees of a BLAKE3 action with BLAKE3", async () => {
  await using fixture = await ExecutorFixture.create({
    programs: {
      make: (process) => {
        mkdirSync(join(process.workingDirectoryPath, "d"));
        write("d/f", "blake")(process);
        process.writeStdout("out");
        return 0;
      },
    },
  });
  const build = new ActionBuilder(fixture.store, DigestFunction.BLAKE3);
  const job = await build.job({ command: { arguments: ["make"], outputPaths: ["d"] }, inputs: { a: "b" } });
  const { result, status } = await fixture.run(job);
  expect(status).toBeUndefined();
  const expected = toWireDigest(await build.blob("out"));
  expect(result?.stdoutDigest).toEqual(expected);
  const tree = result!.outputDirectories[0]!.treeDigest!;
  expect(await fixture.store.has({ fn: DigestFunction.BLAKE3, ...tree })).toBe(true);
});

test("execute() gives the command a PATH only when it brings none", async () => {
  const environments: string[][] = [];
  await using fixture = await ExecutorFixture.create({
    programs: {
      env: ({ spec }) => {
        environments.push(spec.environment.map(({ name, value }) => `${name}=${value}`));
        return 0;
      },
    },
  });
  const own = [
    { name: "ZED", value: "1" },
    { name: "PATH", value: "/mine" },
  ];
  await fixture.run(await fixture.build.job({ command: { arguments: ["env"] } }));
  await fixture.run(await fixture.build.job({ command: { arguments: ["env"], environmentVariables: own } }));
  expect(environments[0]).toEqual([expect.stringMatching(/^PATH=\/usr/)]);
  expect(environments[1]).toEqual(["PATH=/mine", "ZED=1"]);
});

// The runner is a process of its own and may be killed; its actions have had no effect outside their build directory.
test("execute() runs the action once more when the runner was lost", async () => {
  let runs = 0;
  await using fixture = await ExecutorFixture.create({ programs: { ok: () => 0 } });
  const { runner } = fixture;
  const { RunnerLostError } = await import("../../src/runner/runner.ts");
  const original = runner.run.bind(runner);
  runner.run = (spec, options) => {
    runs++;
    return runs === 1 ? Promise.reject(new RunnerLostError("killed")) : original(spec, options);
  };
  const { result } = await fixture.run(await fixture.build.job({ command: { arguments: ["ok"] } }));
  expect(runs).toBe(2);
  expect(result?.exitCode).toBe(0);
  expect(existsSync(join(fixture.execPath, "slots/0/1"))).toBe(false);
});

// An upload of somebody else must not take the inputs of an action that is being staged or runs.
test("execute() keeps the blobs of a running action from being evicted, and lets them go afterwards", async () => {
  const store = new MemoryBlobStore({ maxBytes: 20_000 });
  const others = new ActionBuilder(store);
  const flood = async (): Promise<void> => {
    for (let i = 0; i < 30; i++) await others.blob(`${Math.random()}`.padEnd(2000, "x")).catch(() => undefined);
  };
  await using fixture = await ExecutorFixture.create({
    store,
    programs: {
      flood: async () => {
        await flood();
        return 0;
      },
    },
  });
  const inputs = { a: "a".repeat(3000), d: { entries: { b: "b".repeat(3000) } } };
  const job = await fixture.build.job({ command: { arguments: ["flood"] }, inputs });
  const digests = [await others.blob(inputs.a), await others.blob(inputs.d.entries.b)];
  const has = () => digests.map((digest) => store.has(digest));
  let during: unknown;
  const run = fixture.runner.run.bind(fixture.runner);
  fixture.runner.run = async (spec, options) => {
    const result = await run(spec, options);
    during = has();
    return result;
  };
  expect((await fixture.run(job)).result?.exitCode).toBe(0);
  expect(during).toEqual([true, true]);
  await flood();
  expect(has()).toEqual([false, false]);
});
