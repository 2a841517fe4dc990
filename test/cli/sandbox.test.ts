// ledge sandbox: what an action of given properties would see, for a person.

import { chmodSync, copyFileSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { ledgeCommand } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

async function sandbox(args: readonly string[], stdin = "") {
  const [program = "", ...first] = await ledgeCommand();
  const env = { LEAKED: "by the caller" };
  return runToEnd(program, [...first, "sandbox", ...args], { stdin, env });
}

const sh = (script: string) => ["--", "sh", "-c", script];

describe("ledge sandbox", patient, () => {
  test("runs a command without network, inputs or the caller's environment, and returns its exit code", async () => {
    const ran = await sandbox(sh("pwd; ls -A; echo $LEAKED; grep -c : /proc/net/dev; exit 7"));
    expect(ran).toMatchObject({ exitCode: 7, stdout: "/build\n\n1\n", stderr: "" });
  });

  test("is a shell without a command", async () => {
    expect(await sandbox([], "echo hello from $PWD\n")).toMatchObject({ exitCode: 0, stdout: "hello from /build\n" });
  });

  test("leaves everything after -- to the command", async () => {
    const { stdout } = await sandbox(["--", "echo", "--help", "--version", "--", "--slots"]);
    expect(stdout).toBe("--help --version -- --slots\n");
  });

  test("gives what properties, mounts and variables say", async () => {
    await using folder = await TemporaryFolder.create("sandbox");
    chmodSync(folder.path, 0o755);
    writeFileSync(join(folder.path, "version"), "9.1\n");
    const flags = ["--mount", `ro:${folder.path}:/sdk,if=sdk=nine`, "--env", "COLOR=red"];
    const script = "id -u; echo $COLOR; cat /sdk/version; touch /sdk/x";
    const ran = await sandbox([
      ...flags,
      "--action-property",
      "sdk=nine",
      "--action-property",
      "unixUID=4321",
      ...sh(script),
    ]);
    expect(ran).toMatchObject({ stdout: "4321\nred\n9.1\n", stderr: expect.stringContaining("/sdk/x") });
    expect(ran.exitCode).not.toBe(0);
    expect(await sandbox([...flags, ...sh("ls /sdk")])).toMatchObject({ stdout: "", exitCode: 2 });
    expect(readdirSync(folder.path)).toEqual(["version"]);
  });

  test("refuses what the server would refuse, in its words", async () => {
    const { exitCode, stdout, stderr } = await sandbox(["--action-property", "network=on", ...sh("echo ran")]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toContain("--allow network");
  });

  test("has the input root as / where the instance says so", async () => {
    await using folder = await TemporaryFolder.create("sandbox-root");
    chmodSync(folder.path, 0o755);
    mkdirSync(join(folder.path, "bin"));
    for (const name of ["dev", "proc", "tmp"]) mkdirSync(join(folder.path, name));
    copyFileSync("/bin/busybox", join(folder.path, "bin/busybox"));
    for (const name of ["sh", "ls"]) symlinkSync("busybox", join(folder.path, "bin", name));
    const instance = ["--root-mode", "bst=input-root", "--instance", "bst"];
    const ran = await sandbox([...instance, "--input-root", folder.path, ...sh("pwd; ls /")]);
    expect(ran).toMatchObject({ stdout: "/\nbin\ndev\nproc\ntmp\n", exitCode: 0 });
    expect(await sandbox([...instance, ...sh("ls")])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining("--input-root DIR"),
    });
  });

  test("says why nothing ran, with an exit code of its own", async () => {
    const { exitCode, stderr } = await sandbox(["--", "no-such-program"]);
    expect(exitCode).toBe(125);
    expect(stderr).toContain('"no-such-program"');
  });
});
