// What `ledge doctor` and the start of the server say where sandboxes cannot work: the reason, and the setting to change.
//
// The conditions are made with user namespaces of their own, so nothing of the machine is changed.

import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ledgeCommand } from "../support/ledge-server.ts";

let folder: string;

beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "ledge-doctor-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number | string | null | undefined;
  readonly output: string;
}

/** Runs ledge after `script`, as root of a user namespace that maps one id. */
async function inUserNamespace(script: string, args: readonly string[], path = process.env["PATH"]): Promise<Ended> {
  const command = await ledgeCommand();
  const words = ["--user", "--map-root-user", "sh", "-c", `${script}; exec "$@"`, "sh", ...command, ...args];
  const env = { ...process.env, HOME: folder, PATH: path };
  return new Promise((resolve) => {
    execFile("/usr/bin/unshare", words, { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
}

/** The lines of one check: what was found, what it costs, how to mend it. */
function check(name: string, output: string): string {
  const lines = output.split("\n");
  const first = lines.findIndex((line) => line.startsWith(`FAIL  ${name}`));
  if (first === -1) throw new Error(`no failed check "${name}" in\n${output}`);
  return lines.slice(first, first + 3).join("\n");
}

describe("where sandboxes cannot work", () => {
  test("a container with too few ids is told about /etc/subuid", async () => {
    const { output } = await inUserNamespace("true", ["doctor", "--data-dir", join(folder, "data")]);
    expect(check("sandbox", output)).toMatch(
      /maps neither the uids .*\n +costs: .*cache only.*\n +mend: .*\/etc\/subuid/,
    );
  });

  test("a limit of user namespaces is named", async () => {
    const script = "echo 0 > /proc/sys/user/max_user_namespaces";
    const { output } = await inUserNamespace(script, ["doctor", "--data-dir", join(folder, "data")]);
    expect(check("user namespaces", output)).toContain("sysctl -w user.max_user_namespaces=15000");
  });

  test("a missing bubblewrap is named with the command that installs it", async () => {
    const bin = join(folder, "bin");
    mkdirSync(bin);
    const args = ["doctor", "--data-dir", join(folder, "data")];
    const { output } = await inUserNamespace("PATH=/nonexistent", args);
    expect(check("bubblewrap", output)).toMatch(/mend: .*(apt-get|dnf|pacman|apk|zypper) .*bubblewrap/);
  });

  test("--sandbox=require refuses to start with the reason and the setting", async () => {
    const args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", join(folder, "data"), "--sandbox", "require"];
    const { code, output } = await inUserNamespace("true", args);
    expect(code).toBe(1);
    expect(output).toMatch(/maps neither the uids/);
    expect(output).toContain("/etc/subuid");
  });

  test("by default it starts as a cache and says so with the setting", async () => {
    const command = await ledgeCommand();
    const flags = ["--listen", "127.0.0.1:0", "--data-dir", join(folder, "data")];
    const child = spawn("/usr/bin/unshare", ["--user", "--map-root-user", ...command, ...flags], {
      env: { ...process.env, HOME: folder },
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
    try {
      await expect.poll(() => output, { timeout: 20_000 }).toMatch(/listens on/);
      expect(output).toMatch(/executes {4}nothing|cache only/);
      expect(output).toContain("/etc/subuid");
    } finally {
      child.kill("SIGTERM");
      await new Promise((resolve) => child.once("exit", resolve));
    }
  });
});
