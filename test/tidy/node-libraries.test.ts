// deploy/node-libraries.sh on a machine where Node does not start for want of libatomic; Node, apt-get and id are played.

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const script = join(import.meta.dirname, "../../deploy/node-libraries.sh");

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ledge-libraries-"));
  const words = "node: error while loading shared libraries: libatomic.so.1: cannot open shared object file";
  play("node", `test -e ${folder}/installed && echo v26 || { echo "${words}" >&2; exit 127; }`);
});
afterEach(() => rmSync(folder, { recursive: true }));

function play(program: string, body: string): void {
  writeFileSync(join(folder, program), `#!/bin/sh\n${body}\n`);
  chmodSync(join(folder, program), 0o755);
}

function run(): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync("sh", [script], {
    env: { PATH: `${folder}:/usr/bin:/bin` },
    encoding: "utf8",
  });
  return { status, output: stdout + stderr };
}

describe("deploy/node-libraries.sh", () => {
  test("says nothing and installs nothing where Node starts", () => {
    writeFileSync(join(folder, "installed"), "");
    play("apt-get", `touch ${folder}/called`);
    expect(run()).toEqual({ status: 0, output: "" });
    expect(existsSync(join(folder, "called"))).toBe(false);
  });

  test("installs the library as root, fetching package lists when there are none, and says so", () => {
    play("id", "echo 0");
    play(
      "apt-get",
      `echo "$*" >> ${folder}/calls
      case "$*" in *update*) touch ${folder}/lists;; *) test -e ${folder}/lists && touch ${folder}/installed;; esac`,
    );
    const { status, output } = run();
    expect(status).toBe(0);
    expect(output).toContain("Installing it: apt-get install libatomic1");
    const calls = readFileSync(join(folder, "calls"), "utf8").trim().split("\n");
    expect(calls.map((words) => /update|install/.exec(words)?.[0])).toEqual(["install", "update", "install"]);
  });

  test("prints the command for an ordinary user, and when installing fails", () => {
    for (const id of ["0", "1000"]) {
      play("id", `echo ${id}`);
      play("apt-get", "exit 1");
      const { status, output } = run();
      expect(status).toBe(1);
      expect(output).toContain("sudo apt-get install libatomic1");
    }
  });
});
