// `ledge sandbox` shows a person what an action sees.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const MODULE = fileURLToPath(new URL("../../src/runner/sandbox-shell.ts", import.meta.url));

/** In a process of its own, whose streams the command gets. */
function sandboxShell(
  spec: object,
  input = "",
  sandbox = "bwrap",
): { stdout: string; stderr: string; status: number | null } {
  const script = `
    const { runSandboxShell } = await import(${JSON.stringify(MODULE)});
    const result = await runSandboxShell({ spec: ${JSON.stringify(spec)}, sandbox: ${JSON.stringify(sandbox)} });
    if (result.kind === "failed") console.error(result.message);
    process.exitCode = result.kind === "failed" ? 99 : result.exitCode;`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", input });
}

describe("runSandboxShell()", { timeout: 120_000 }, () => {
  const view = { rootMode: "host", mounts: [], network: "none" };

  it.each(["own", "bwrap"])("runs the command on the caller's streams, in an empty build directory, %s", (sandbox) => {
    const script = "pwd; id -un; hostname; ls; read line; echo got $line; echo problem >&2; exit 7";
    expect(sandboxShell({ ...view, arguments: ["sh", "-c", script] }, "typed\n", sandbox)).toMatchObject({
      stdout: "/build\nbuild\nsandbox\ngot typed\n",
      stderr: "problem\n",
      status: 7,
    });
  });

  it("has bwrap make what our own builder cannot: a file mounted where nothing is", () => {
    const mount = { source: "/etc/hostname", destination: "/given/file", writable: false, optional: false };
    const spec = { ...view, mounts: [mount], arguments: ["sh", "-c", "cat /given/file"] };
    expect(sandboxShell(spec, "", "own")).toMatchObject({ stdout: readFileSync("/etc/hostname", "utf8"), status: 0 });
  });

  it("says why the command did not start", () => {
    const { stderr, status } = sandboxShell({ ...view, arguments: ["no-such-program"] });
    expect({ status, stderr }).toMatchObject({ status: 99, stderr: expect.stringContaining('"no-such-program"') });
  });

  it("leaves nothing running", () => {
    const seconds = `9${process.pid}`;
    sandboxShell({ ...view, arguments: ["sh", "-c", `setsid sleep ${seconds} & true`] });
    const isThere = readdirSync("/proc").some((name) => {
      try {
        return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "latin1") === `sleep\0${seconds}\0`;
      } catch {
        return false; // gone while we looked
      }
    });
    expect(isThere).toBe(false);
  });
});
