// `npm start` as root on Debian installs bubblewrap when it is missing. An apt-get of our own plays the package manager.
//
// In a mount namespace the machine's bwrap is covered by a file that cannot be executed; "installing" uncovers it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ledgeCommand } from "../support/ledge-server.ts";

const STRANGER = 12_345;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ledge-install-"));
  chmodSync(folder, 0o777);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Starts the server where bwrap is missing and `aptGet` is the package manager; returns what it printed until it listened. */
async function start(aptGet: string, wrapper: readonly string[] = []): Promise<string> {
  writeFileSync(join(folder, "apt-get"), `#!/bin/sh\necho "$*" >> ${folder}/calls\n${aptGet}\n`);
  chmodSync(join(folder, "apt-get"), 0o755);
  const script = `set -e; mount --bind /dev/null /usr/bin/bwrap; exec "$@"`;
  const words = ["--mount", "/bin/sh", "-c", script, "sh", ...wrapper, ...(await reachableCommand())];
  const flags = ["serve", "--install-bubblewrap", "--listen", "127.0.0.1:0", "--data-dir", join(folder, "data")];
  const child = spawn("/usr/bin/unshare", [...words, ...flags], {
    env: { HOME: folder, TMPDIR: folder, PATH: `${folder}:/usr/sbin:/usr/bin:/sbin:/bin` },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const exited = once(child, "exit");
  try {
    await expect.poll(() => output, { timeout: 30_000, interval: 50 }).toMatch(/^build --jobs|remote_cache=/m);
    return output;
  } finally {
    child.kill("SIGTERM");
    await exited;
  }
}

/** A clone may lie in a home directory that other users cannot enter; a copy of the executable is reachable for them. */
async function reachableCommand(): Promise<readonly string[]> {
  const [program = "", ...others] = await ledgeCommand();
  if (others.length > 0) return [program, ...others];
  copyFileSync(program, join(folder, "ledge"));
  chmodSync(join(folder, "ledge"), 0o755);
  return [join(folder, "ledge")];
}

function calls(): string {
  return existsSync(join(folder, "calls")) ? readFileSync(join(folder, "calls"), "utf8") : "";
}

describe("serve --install-bubblewrap", () => {
  test("installs it, saying so, and executes; without package lists it fetches them first", async () => {
    const output = await start(`case "$*" in *update*) touch ${folder}/lists;; esac
      test -e ${folder}/lists || exit 100
      case "$*" in *install*) umount /usr/bin/bwrap;; esac`);
    expect(output).toContain("Installing it: apt-get install bubblewrap");
    expect(output).toMatch(/executes {4}\d+ actions? at once, each in a bubblewrap sandbox/);
    const verbs = calls().trim().split("\n");
    expect(verbs.map((words) => /update|install/.exec(words)?.[0])).toEqual(["install", "update", "install"]);
  });

  test("goes on as a cache when that fails, with the command to mend it", async () => {
    const output = await start("exit 1");
    expect(output).toContain("could not install bubblewrap");
    expect(output).not.toMatch(/actions? at once, each in a bubblewrap/);
    expect(output).toContain("apt-get install bubblewrap");
  });

  test("leaves the machine of an ordinary user alone, and names the command", async () => {
    const asStranger = ["/usr/bin/setpriv", `--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups"];
    const output = await start("exit 1", asStranger);
    expect(calls()).toBe("");
    expect(output).toContain("apt-get install bubblewrap");
  });
});
