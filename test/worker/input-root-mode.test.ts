// Input roots that are the whole file system, the way BuildStream sends them: `/` for the command, marked read-only.

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Command_OutputDirectoryFormat } from "../../src/proto/remote_execution.ts";
import { directory, marked, rootFileSystem } from "./root-file-system.ts";
import { SandboxWorld } from "./sandbox-world.ts";

let world: SandboxWorld;
beforeAll(async () => {
  world = await SandboxWorld.create();
});
afterAll(() => world[Symbol.asyncDispose]());

test("an action sees its input root as /, with /dev, /proc and /tmp, as uid 0", async () => {
  const outcome = await world.command(
    ["sh", "-c", "id -u; ls /; cat /etc/motd; test -c /dev/null && test -d /proc/1"],
    {
      instanceName: "bst",
      inputs: rootFileSystem(world.fixture.build, { etc: directory({ motd: "hello\n" }) }),
      command: { environmentVariables: [{ name: "PATH", value: "/usr/bin:/bin" }] },
    },
  );
  expect(outcome.stderr).toBe("");
  expect(outcome.stdout).toBe("0\nbin\ndev\netc\nlib\nlib64\nproc\ntmp\nhello\n");
});

test("an output that is the whole root holds what the action made, and nothing of /dev, /proc and /tmp", async () => {
  const outcome = await world.command(
    ["sh", "-c", "touch /tmp/scratch; mkdir /made; echo x > /made/f; rm -rf build; mkdir build"],
    {
      instanceName: "bst",
      inputs: rootFileSystem(world.fixture.build, { src: directory({ build: directory({}) }) }),
      command: {
        environmentVariables: [{ name: "PATH", value: "/bin" }],
        workingDirectory: "src",
        outputPaths: [".."],
        outputDirectoryFormat: Command_OutputDirectoryFormat.DIRECTORY_ONLY,
      },
    },
  );
  expect(outcome.status).toBeUndefined();
  expect(outcome.result?.outputFiles).toEqual([]);
  const [output] = outcome.result!.outputDirectories;
  expect(output?.path).toBe("..");
  const root = await world.fixture.directory(output!.rootDirectoryDigest);
  expect(root.directories.map(({ name }) => name)).toEqual(["bin", "lib", "lib64", "made", "src"]);
});

// A sandbox set up ahead around the empty directory would make the three there, and then they could not be created.
test("roots with dev, proc and tmp run one after another in a slot", async () => {
  const inputs = await rootFileSystem(world.fixture.build, {
    dev: directory({}),
    proc: directory({}),
    tmp: directory({ file: "hidden" }),
  });
  for (let i = 0; i < 3; i++) {
    const outcome = await world.command(["sh", "-c", "ls /tmp"], {
      instanceName: "bst",
      inputs,
      command: { environmentVariables: [{ name: "PATH", value: "/bin" }] },
    });
    expect(outcome.status).toBeUndefined();
    expect(outcome.stderr + outcome.stdout).toBe("");
    await sleep(100); // whatever is set up ahead is ready by then
  }
});

test("directories dev, proc and tmp of the input root are kept in the output, empty", async () => {
  const outcome = await world.command(["sh", "-c", "touch /tmp/scratch"], {
    instanceName: "bst",
    inputs: rootFileSystem(world.fixture.build, { dev: directory({}), proc: directory({}), tmp: directory({}) }),
    command: { environmentVariables: [{ name: "PATH", value: "/bin" }], outputPaths: [""] },
  });
  const tree = await world.fixture.tree(outcome.result!.outputDirectories[0]!.treeDigest);
  expect(tree.root!.directories.map(({ name }) => name)).toEqual(["bin", "dev", "lib", "lib64", "proc", "tmp"]);
  const empty = tree.root!.directories.find(({ name }) => name === "tmp")!.digest!;
  expect(empty.sizeBytes).toBe(0);
});

// The second action of the same root must find the trees, and both see the same.
test("what is marked SubtreeReadOnly is mounted from the cache, cannot be changed, and looks like any other file", async () => {
  const many = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`f${i}`, `file ${i}`]));
  const inputs = rootFileSystem(
    world.fixture.build,
    {
      usr: directory({ share: directory({ many: directory({ ...many, same: "equal" }) }) }),
      opt: directory({ ...many }), // the same contents: may not share inodes with /usr
      etc: directory({ same: "equal" }),
      build: directory({ work: directory({ source: "text" }) }, marked(false)),
      install: directory({}, marked(false)),
    },
    marked(true),
  );
  const script = `
    cat /usr/share/many/f7 /opt/f7
    echo x 2>/dev/null > /usr/share/many/f7 || echo refused
    mkdir /usr/new 2>/dev/null || echo refused
    mkdir /new 2>/dev/null || echo refused
    rm -f /usr/share/many/f8 2>/dev/null || echo refused
    echo more >> source && cat source
    echo out > ../../install/out
    stat -c %i /usr/share/many/f7 /opt/f7 /usr/share/many/same /etc/same`;
  for (let round = 0; round < 2; round++) {
    const outcome = await world.command(["sh", "-c", script], {
      instanceName: "bst",
      inputs,
      command: {
        environmentVariables: [{ name: "PATH", value: "/bin" }],
        workingDirectory: "build/work",
        outputPaths: [".", "../../install"],
        outputDirectoryFormat: Command_OutputDirectoryFormat.DIRECTORY_ONLY,
      },
    });
    expect(outcome.stderr).toBe("");
    const lines = outcome.stdout.split("\n");
    expect(lines[0]).toBe("file 7file 7refused");
    expect(lines.slice(1, 4)).toEqual(["refused", "refused", "refused"]);
    expect(lines[4]).toBe("textmore");
    expect(new Set(lines.slice(5, 9)).size).toBe(4);
    expect(outcome.result?.outputDirectories.map(({ path }) => path)).toEqual([".", "../../install"]);
    world.assertFilesIntact();
  }
  expect(world.fixture.treeCache.count).toBeGreaterThan(0);
});

test("a missing blob in a read-only subtree is named with all the others", async () => {
  const { build } = world.fixture;
  const many = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}`, `only here ${i}`]));
  const inputs = await build.tree({ usr: directory(many) }, marked(true));
  const job = await build.job({ command: { arguments: ["sh"] }, inputs, instanceName: "bst" });
  const has = world.fixture.store.findMissing.bind(world.fixture.store);
  world.fixture.store.findMissing = (batch) => Uint32Array.from({ length: batch.count }, (_, position) => position);
  const { status } = await world.fixture.run(job);
  world.fixture.store.findMissing = has;
  expect(status?.message).toContain("blobs are missing");
});

test("one server serves both kinds of root, by instance name", async () => {
  expect((await world.script("test -d /usr/include -o -d /usr/share; pwd", { inputs: { a: "b" } })).stdout).toBe(
    "/build\n",
  );
});
