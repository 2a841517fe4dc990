// Hostile and odd actions, inputs and outputs: each with what must come of it. Numbers are those of executor.md 11.
//
// Assertions are node:assert's, because the same list runs in a process of an ordinary user without a test runner.

import assert from "node:assert/strict";
import { Code, codeName } from "../../src/base/status.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, toWireDigest } from "../../src/digest/digest.ts";
import { Directory } from "../../src/proto/remote_execution.ts";
import { executable } from "./action-builder.ts";
import { directory, marked, rootFileSystem } from "./root-file-system.ts";
import type { SandboxWorld, ScriptOutcome } from "./sandbox-world.ts";

export interface HostileCase {
  readonly name: string;
  readonly run: (world: SandboxWorld) => Promise<void>;
}

const LARGE = "large input\n".repeat(10_000);
const INPUTS = { in: "input\n", large: LARGE, tool: executable("#!/bin/sh\necho tool\n"), empty: "" };

export const HOSTILE_CASES: readonly HostileCase[] = [
  attack("1 overwrites an input", "echo changed > in; echo changed > large; true"),
  attack(
    "2 makes inputs writable and overwrites them",
    "chmod 666 in large tool; echo x > in; echo x > large; echo x > tool; true",
  ),
  attack(
    "3 truncates and writes into inputs",
    "truncate -s 0 in; dd if=/dev/zero of=large conv=notrunc bs=1 count=5; truncate -s 9 large; true",
  ),
  attack(
    "4 touches, chowns and tags inputs",
    "touch -d 1999-01-01 in large; chown 0:0 in; setfattr -n user.x -v y in; true",
  ),
  {
    name: "5 may delete and rename inputs, and the next action has them again",
    async run(world) {
      ok(
        await world.script("rm -f in && mv large moved && rm -rf sub && test ! -e in", {
          inputs: { ...INPUTS, sub: { entries: { a: "b" } } },
        }),
      );
      const next = ok(await world.script("cat in; ls", { inputs: INPUTS }));
      assert.equal(next.stdout, "input\nempty\nin\nlarge\ntool\n");
    },
  },
  {
    name: "8 links an input to an output: the input stays what it was, the output is a copy",
    async run(world) {
      const outcome = ok(
        await world.script("ln in out || cp in out; echo more >> out; true", { inputs: INPUTS, outputs: ["out"] }),
      );
      const content = await world.fixture.text(outcome.result!.outputFiles[0]!.digest);
      assert.ok(content.startsWith("input\n"), content);
      assert.equal(ok(await world.script("cat in", { inputs: INPUTS })).stdout, "input\n");
    },
  },
  {
    name: "8 links a large input to an output: storing the output does not touch the input",
    async run(world) {
      const outcome = ok(
        await world.script("ln large out || cp large out; ln large out2 || cp large out2", {
          inputs: INPUTS,
          outputs: ["out", "out2"],
        }),
      );
      assert.equal(outcome.result!.outputFiles.length, 2);
      assert.equal(await world.fixture.text(outcome.result!.outputFiles[0]!.digest), LARGE);
      assert.equal(ok(await world.script("cat large", { inputs: INPUTS })).stdout, LARGE);
    },
  },
  {
    name: "9 leaves symlinks that lead out: they are reported and not followed",
    async run(world) {
      const script = "ln -s /etc/shadow a; ln -s ../../../.. b; ln -s c c; mkdir d; ln -s d e; echo x > f; ln -s f g";
      const outcome = ok(await world.script(script, { outputs: ["a", "b", "c", "e", "g"] }));
      const links = Object.fromEntries(outcome.result!.outputSymlinks.map(({ path, target }) => [path, target]));
      assert.deepEqual(links, { a: "/etc/shadow", b: "../../../..", c: "c", e: "d", g: "f" });
      assert.deepEqual(
        outcome.result!.outputDirectorySymlinks.map(({ path }) => path),
        ["e"],
      );
      assert.equal(outcome.result!.outputFiles.length, 0);
    },
  },
  {
    name: "10 replaces the parent of an output by a symlink: FAILED_PRECONDITION naming it",
    async run(world) {
      const outcome = await world.script("rmdir out && ln -s /etc out", { outputs: ["out/passwd"] });
      failed(outcome, Code.FAILED_PRECONDITION, '"out" is a symlink');
    },
  },
  refusedOutput("11 leaves a FIFO", "mkfifo out", "is a FIFO"),
  refusedOutput(
    "11 leaves a socket",
    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'",
    "is a socket",
  ),
  refusedOutput("11 leaves a character device", "mknod out c 0 0 || mkfifo out", /is a (character device|FIFO)/),
  refusedOutput(
    "12 leaves a FIFO deep in a directory",
    "mkdir -p out/a/b; mkfifo out/a/b/pipe",
    '"out/a/b/pipe" is a FIFO',
  ),
  {
    name: "11 makes a directory where output_files wants a file, and a file where output_directories wants a directory",
    async run(world) {
      const file = await world.script("mkdir x", { command: { outputFiles: ["x"] } });
      failed(file, Code.FAILED_PRECONDITION, "requested as a file, but it is a directory");
      const directory = await world.script("echo > x", { command: { outputDirectories: ["x"] } });
      failed(directory, Code.FAILED_PRECONDITION, "requested as a directory, but it is a file");
      const both = ok(
        await world.script("echo > f; mkdir d; ln -s f l; ln -s d m", {
          command: { outputFiles: ["f", "l"], outputDirectories: ["d", "m"] },
        }),
      );
      assert.equal(both.result!.outputFiles.length, 1);
      assert.equal(both.result!.outputDirectories.length, 1);
      assert.equal(both.result!.outputSymlinks.length, 0);
      assert.deepEqual(
        [both.result!.outputFileSymlinks[0]?.path, both.result!.outputDirectorySymlinks[0]?.path],
        ["l", "m"],
      );
    },
  },
  {
    name: "13 cannot make devices",
    async run(world) {
      ok(await world.script("! mknod null c 1 3 2>/dev/null && ! mknod disk b 8 0 2>/dev/null"));
    },
  },
  {
    name: "14 leaves a sparse file of 8 TiB: RESOURCE_EXHAUSTED before it is read",
    async run(world) {
      failed(await world.script("truncate -s 8T out", { outputs: ["out"] }), Code.RESOURCE_EXHAUSTED, '"out" (8 TiB)');
    },
  },
  {
    name: "15 leaves more files than are taken",
    async run(world) {
      const script = "mkdir out; cd out; seq 1 2500 | xargs touch";
      failed(await world.script(script, { outputs: ["out"] }), Code.RESOURCE_EXHAUSTED, "more than 2000 files");
    },
  },
  {
    name: "16 leaves a directory 3,000 levels deep: named when it is an output, removed in any case",
    async run(world) {
      const deep = `python3 -c '
import os
os.mkdir("out"); os.chdir("out")
for i in range(3000):
    os.mkdir("d"); os.chdir("d")'`;
      failed(await world.script(deep, { outputs: ["out"] }), Code.RESOURCE_EXHAUSTED, "more than 512 directories deep");
      ok(await world.script(deep));
    },
  },
  {
    name: "17 leaves names that are hard to write: all but those outside UTF-8 are reported",
    async run(world) {
      const names = ["new\nline", "n".repeat(255), "-rf", "e\u0301", "\u00e9", "\u{1F600}", "\uFFFD", " ", "*", "\\"];
      const script = `python3 -c '
import os, sys, json
os.mkdir("out")
for name in json.loads(sys.argv[1]): open(os.path.join("out", name), "w").close()' "$NAMES"`;
      const environmentVariables = [{ name: "NAMES", value: JSON.stringify(names) }];
      const outcome = ok(await world.script(script, { outputs: ["out"], command: { environmentVariables } }));
      const tree = await world.fixture.tree(outcome.result!.outputDirectories[0]!.treeDigest);
      const found = tree.root!.files.map(({ name }) => name);
      assert.deepEqual(
        found,
        names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
      );
      const bad = await world.script(`python3 -c 'import os; os.mkdir(b"out"); open(b"out/\\xff\\xfe", "w")'`, {
        outputs: ["out"],
      });
      failed(bad, Code.INVALID_ARGUMENT, "\\\\xff\\\\xfe");
      const link = await world.script(`python3 -c 'import os; os.symlink(b"\\xff", b"out")'`, { outputs: ["out"] });
      failed(link, Code.INVALID_ARGUMENT, "not UTF-8");
    },
  },
  {
    name: "18 closes its files and directories and sets setuid bits: they are collected and removed",
    async run(world) {
      const script =
        "mkdir -p out/closed other; echo x > out/closed/f; echo y > out/g; chmod 4755 out/g; chmod 000 out/closed/f out/closed other";
      const outcome = ok(
        await world.script(script, { outputs: ["out"], command: { outputNodeProperties: ["unix_mode"] } }),
      );
      const tree = await world.fixture.tree(outcome.result!.outputDirectories[0]!.treeDigest);
      assert.equal(tree.root!.files[0]?.isExecutable, true);
      assert.equal(tree.root!.files[0]?.nodeProperties?.unixMode, 0o755);
      assert.equal(tree.children[0]?.files[0]?.nodeProperties?.unixMode ?? 0, 0);
    },
  },
  {
    name: "19 sets times of 1938 and 2446: they are reported as they are",
    async run(world) {
      const script = "echo > a; echo > b; touch -d '1938-04-24T22:13:20.5Z' a; touch -d '2400-01-01T00:00:00Z' b";
      const outcome = ok(
        await world.script(script, { outputs: ["a", "b"], command: { outputNodeProperties: ["mtime"] } }),
      );
      const [a, b] = outcome.result!.outputFiles.map(({ nodeProperties }) => nodeProperties?.mtime);
      assert.deepEqual(a, { seconds: -1_000_000_000, nanos: 500_000_000 });
      assert.equal(b?.seconds, 13_569_465_600);
    },
  },
  {
    name: "20 leaves a daemon that writes into an output: the output holds still when it is read",
    async run(world) {
      const script =
        "mkdir out; (setsid sh -c 'while :; do echo x >> out/log; done' >/dev/null 2>&1 &); while [ ! -s out/log ]; do :; done";
      for (let i = 0; i < 5; i++) {
        const outcome = ok(await world.script(script, { outputs: ["out"] }));
        const tree = await world.fixture.tree(outcome.result!.outputDirectories[0]!.treeDigest);
        await world.fixture.bytes(tree.root!.files[0]!.digest);
      }
    },
  },
  {
    name: "31 names a program that cannot be started: the error says why",
    async run(world) {
      const inputs = { data: "text", dir: { entries: {} }, script: executable("#!/no/such/interpreter\n") };
      for (const argument of ["./absent", "no-such-program", "./data", "./dir", "./script"]) {
        const outcome = await world.command([argument], { inputs });
        failed(outcome, Code.INVALID_ARGUMENT, argument);
      }
      const option = await world.command(["--help"], { inputs });
      failed(option, Code.INVALID_ARGUMENT, "--help");
      ok(await world.command(["true"]));
      ok(
        await world.command(["../tool"], {
          inputs: { ...INPUTS, sub: { entries: {} } },
          command: { workingDirectory: "sub" },
        }),
      );
    },
  },
  {
    name: "38 gets two equal headers as two files",
    async run(world) {
      const inputs = { a: { entries: { "h.h": "#pragma once\n" } }, b: { entries: { "h.h": "#pragma once\n" } } };
      const outcome = ok(await world.script("stat -c '%i %Y' a/h.h b/h.h; tar c a b | tar tv", { inputs }));
      const [first, second] = outcome.stdout.split("\n");
      assert.notEqual(first!.split(" ")[0], second!.split(" ")[0]);
      assert.notEqual(first!.split(" ")[1], second!.split(" ")[1]);
      assert.ok(!outcome.stdout.includes("link to"), outcome.stdout);
    },
  },
  {
    name: "39 gets one content as executable and as plain file; 40 and empty ones of both kinds",
    async run(world) {
      const text = "#!/bin/sh\necho ran\n";
      const inputs = { plain: text, tool: executable(text), e: "", x: executable("") };
      const outcome = ok(
        await world.script("stat -c '%a %s' plain tool e x; ./tool; ! ./plain 2>/dev/null", { inputs }),
      );
      assert.equal(outcome.stdout, `444 ${text.length}\n555 ${text.length}\n444 0\n555 0\nran\n`);
    },
  },
  {
    name: "41 has an input root that is not canonical: INVALID_ARGUMENT naming the entry",
    async run(world) {
      const digest = toWireDigest(await world.fixture.build.blob("x"));
      const bad: [string, Uint8Array][] = [
        [
          "not sorted",
          Directory.encode({
            files: [
              { name: "b", digest },
              { name: "a", digest },
            ],
          }),
        ],
        [
          "more than once",
          Directory.encode({
            files: [
              { name: "a", digest },
              { name: "a", digest },
            ],
          }),
        ],
        [
          "more than once",
          Directory.encode({ files: [{ name: "a", digest }], symlinks: [{ name: "a", target: "b" }] }),
        ],
        ['name ".."', Directory.encode({ files: [{ name: "..", digest }] })],
        ['name "a/b"', Directory.encode({ files: [{ name: "a/b", digest }] })],
        ['name ""', Directory.encode({ files: [{ name: "", digest }] })],
        ['name "a\\u0000b"', Directory.encode({ files: [{ name: "a\0b", digest }] })],
        ["255", Directory.encode({ files: [{ name: "n".repeat(256), digest }] })],
        ["is missing", Directory.encode({ files: [{ name: "a" }] })],
        ["target", Directory.encode({ symlinks: [{ name: "a", target: "" }] })],
        ["Directory", Buffer.from("this is not a message")],
      ];
      for (const [message, bytes] of bad) {
        const inputs = await world.fixture.build.blob(bytes);
        failed(await world.script("true", { inputs }), Code.INVALID_ARGUMENT, message);
      }
    },
  },
  {
    name: "41 has an input root 10,000 levels deep: INVALID_ARGUMENT naming the depth",
    async run(world) {
      const levels = [Directory.encode({})];
      for (let level = 0; level < 10_000; level++) {
        const digest = toWireDigest(digestOf(DigestFunction.SHA256, levels.at(-1)!));
        levels.push(Directory.encode({ directories: [{ name: "d", digest }] }));
      }
      // All at once, so that they share commits.
      const inputs = (await Promise.all(levels.map((bytes) => world.fixture.build.blob(bytes)))).at(-1)!;
      failed(await world.script("true", { inputs }), Code.INVALID_ARGUMENT, "at depth 19");
    },
  },
  {
    name: "41 has a directory that stands for 2^40 files: INVALID_ARGUMENT at once",
    async run(world) {
      let inputs = await world.fixture.build.tree({ f: "x" });
      for (let level = 0; level < 40; level++) {
        const digest = toWireDigest(inputs);
        inputs = await world.fixture.build.blob(
          Directory.encode({
            directories: [
              { name: "a", digest },
              { name: "b", digest },
            ],
          }),
        );
      }
      failed(await world.script("true", { inputs }), Code.INVALID_ARGUMENT, "more than the 1000000 entries");
    },
  },
  {
    name: "46 has its input root as /, marked read-only but for what it builds, and leaves an output there",
    async run(world) {
      const many = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`f${i}`, `file ${i}`]));
      const inputs = await rootFileSystem(
        world.fixture.build,
        { usr: directory({ share: directory(many) }), work: directory({ source: "text" }, marked(false)) },
        marked(true),
      );
      const script =
        "cat /usr/share/f7; ! mkdir /new; ! echo x > /usr/share/f7; ! rm -f /usr/share/f7; echo y >> source";
      for (let round = 0; round < 2; round++) {
        const outcome = ok(
          await world.command(["sh", "-c", `exec 2>/dev/null; ${script}`], {
            instanceName: "bst",
            inputs,
            command: {
              environmentVariables: [{ name: "PATH", value: "/bin" }],
              workingDirectory: "work",
              outputPaths: ["."],
            },
          }),
        );
        assert.equal(outcome.stdout, "file 7");
        const tree = await world.fixture.tree(outcome.result!.outputDirectories[0]!.treeDigest);
        assert.equal(await world.fixture.text(tree.root!.files[0]!.digest), "texty\n");
      }
      assert.ok(world.fixture.treeCache.count > 0);
    },
  },
  {
    name: "47 asks for uid 0 and for 12345 and sees itself as them, without rights",
    async run(world) {
      for (const id of ["0", "12345"]) {
        const platform = {
          properties: [
            { name: "unixGID", value: id },
            { name: "unixUID", value: id },
          ],
        };
        const outcome = ok(
          await world.script("id -u; id -g; ! mount -t tmpfs x /tmp 2>/dev/null", { action: { platform } }),
        );
        assert.equal(outcome.stdout, `${id}\n${id}\n`);
      }
    },
  },
  {
    name: "49 sees the same machine in every slot",
    async run(world) {
      const script = "hostname; id; pwd; env | sort; umask; date +%Z; stat -c '%A %u %g %s %y %n' *";
      const outcomes = [];
      for (const slot of [0, 1]) outcomes.push(ok(await world.script(script, { inputs: INPUTS, slot })).stdout);
      assert.equal(outcomes[0], outcomes[1]);
    },
  },
];

function attack(name: string, script: string): HostileCase {
  return {
    name,
    async run(world) {
      ok(await world.script(script, { inputs: INPUTS }));
      const check = "cat in large; ./tool; cat empty; stat -c %a in large tool empty";
      const next = ok(await world.script(check, { inputs: INPUTS }));
      assert.equal(next.stdout, `input\n${LARGE}tool\n444\n444\n555\n444\n`);
    },
  };
}

function refusedOutput(name: string, script: string, reason: string | RegExp): HostileCase {
  return {
    name: `${name} at an output: INVALID_ARGUMENT naming it`,
    async run(world) {
      const outcome = await world.script(`echo kept; ${script}`, { outputs: ["out"] });
      failed(outcome, Code.INVALID_ARGUMENT, reason);
      assert.equal(outcome.stdout, "kept\n");
    },
  };
}

function ok(outcome: ScriptOutcome): ScriptOutcome {
  assert.equal(outcome.status, undefined, outcome.status?.message ?? "");
  assert.equal(outcome.result?.exitCode, 0, `exit ${outcome.result?.exitCode}: ${outcome.stdout}${outcome.stderr}`);
  return outcome;
}

function failed(outcome: ScriptOutcome, code: Code, message: string | RegExp): void {
  assert.ok(outcome.status !== undefined, `expected ${codeName(code)}, got exit ${outcome.result?.exitCode}`);
  assert.equal(codeName(outcome.status.code), codeName(code), outcome.status.message);
  const matches =
    typeof message === "string" ? outcome.status.message.includes(message) : message.test(outcome.status.message);
  assert.ok(matches, `${JSON.stringify(outcome.status.message)} does not contain ${String(message)}`);
}
