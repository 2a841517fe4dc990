// The launcher becomes exactly the command it is told, or says why it cannot. Run by itself, without bwrap around it.

import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeLaunchBlock, type LaunchCommand, ResourceLimit } from "../../src/sandbox/launcher-block.ts";
import { launcherImage, LaunchStage } from "../../src/sandbox/launcher-image.ts";

const { errno } = constants;
const PATH = { name: "PATH", value: "/usr/bin:/bin" };

let directory: string;
let launcher: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "ledge-launcher-"));
  launcher = join(directory, "launcher");
  writeFileSync(launcher, launcherImage() ?? "", { mode: 0o755 });
});
afterAll(() => rmSync(directory, { recursive: true }));

interface Launched {
  readonly exitCode: number | null;
  readonly stdout: string;
  /** Stage and errno. */
  readonly report: readonly number[];
}

/** `chunks` is how the block arrives. */
async function launchBytes(chunks: readonly Buffer[]): Promise<Launched> {
  const child = spawn(launcher, [], {
    env: {},
    stdio: ["ignore", "pipe", "inherit", "ignore", "ignore", "pipe", "pipe", "ignore"],
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const output: Buffer[] = [];
  const report: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
  const [block, reports] = [...child.stdio].slice(5) as unknown as [Duplex, Duplex];
  reports.on("data", (chunk: Buffer) => report.push(chunk));
  block.on("error", () => undefined); // it may end before it has read everything
  for (const chunk of chunks) {
    block.write(chunk);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  block.end();
  const exitCode = await ended;
  const reported = Buffer.concat(report);
  const words = reported.length === 8 ? [reported.readUInt32LE(0), reported.readUInt32LE(4)] : [];
  return { exitCode, stdout: Buffer.concat(output).toString(), report: words };
}

function launch(command: Partial<LaunchCommand> & Pick<LaunchCommand, "arguments">): Promise<Launched> {
  return launchBytes([encodeLaunchBlock({ environment: [PATH], workingDirectory: directory, limits: [], ...command })]);
}

describe("the launcher", () => {
  it("becomes the command, with its arguments byte for byte", async () => {
    const words = ["", " ", "a b", "'\"\\$`", "\n", "ä😀", "-n", "x".repeat(100_000)];
    const { exitCode, stdout, report } = await launch({ arguments: ["printf", "%s\\0", ...words] });
    expect({ exitCode, report }).toEqual({ exitCode: 0, report: [] });
    expect(stdout.split("\0").slice(0, -1)).toEqual(words);
  });

  it("passes the environment in its order, odd names and doubles included, and nothing else", async () => {
    const environment = ["Z", "A", "a.b", "PWD", "_", "SHLVL", "A"].map((name, i) => ({ name, value: `v${i}=\n` }));
    const { stdout } = await launch({ arguments: ["/usr/bin/env", "-0"], environment });
    expect(stdout).toBe(environment.map(({ name, value }) => `${name}=${value}\0`).join(""));
  });

  it("passes an empty environment, and then looks where execvp looks", async () => {
    expect(await launch({ arguments: ["env"], environment: [] })).toMatchObject({ exitCode: 0, stdout: "" });
  });

  it("passes 100,000 arguments", async () => {
    const words = Array.from({ length: 100_000 }, (_, i) => String(i % 10));
    expect((await launch({ arguments: ["sh", "-c", "echo $#", "sh", ...words] })).stdout).toBe("100000\n");
  });

  it("enters the working directory before it looks for a relative program", async () => {
    mkdirSync(join(directory, "sub"));
    writeFileSync(join(directory, "sub", "tool"), "#!/bin/sh\npwd\n", { mode: 0o755 });
    const workingDirectory = join(directory, "sub");
    expect((await launch({ arguments: ["./tool"], workingDirectory })).stdout).toBe(`${workingDirectory}\n`);
    const inPath = { arguments: ["tool"], workingDirectory, environment: [{ name: "PATH", value: "/nowhere::/bin" }] };
    expect((await launch(inPath)).stdout).toBe(`${workingDirectory}\n`);
  });

  it("goes on in PATH after what is absent, not a directory or not executable", async () => {
    const first = join(directory, "first");
    mkdirSync(first);
    writeFileSync(join(first, "true"), "not executable");
    chmodSync(join(first, "true"), 0o644);
    const environment = [{ name: "PATH", value: `/nowhere:${launcher}:${first}:/usr/bin` }];
    expect(await launch({ arguments: ["true"], environment })).toMatchObject({ exitCode: 0, report: [] });
    const last = [{ name: "PATH", value: `${first}:/nowhere` }];
    expect((await launch({ arguments: ["true"], environment: last })).report).toEqual([
      LaunchStage.Execute,
      errno.EACCES,
    ]);
  });

  it.each([
    ["a program that is nowhere", { arguments: ["no-such"] }, [LaunchStage.Execute, errno.ENOENT]],
    ["a path that is nowhere", { arguments: ["./no-such"] }, [LaunchStage.Execute, errno.ENOENT]],
    ["a directory", { arguments: ["/usr"] }, [LaunchStage.Execute, errno.EACCES]],
    ["an argument that is too long", { arguments: ["true", "x".repeat(1 << 18)] }, [LaunchStage.Execute, errno.E2BIG]],
    [
      "a missing directory",
      { arguments: ["true"], workingDirectory: "/no" },
      [LaunchStage.EnterDirectory, errno.ENOENT],
    ],
    [
      "a file as directory",
      { arguments: ["true"], workingDirectory: "/etc/passwd" },
      [LaunchStage.EnterDirectory, errno.ENOTDIR],
    ],
  ])("reports %s", async (_, command, report) => {
    expect(await launch(command)).toMatchObject({ exitCode: 127, report });
  });

  it("reports a file that is no program", async () => {
    writeFileSync(join(directory, "noise"), "no program", { mode: 0o755 });
    expect((await launch({ arguments: ["./noise"] })).report).toEqual([LaunchStage.Execute, errno.ENOEXEC]);
  });

  it("sets limits that the command cannot undo, and leaves no descriptor open", async () => {
    const limits = [
      { resource: ResourceLimit.Core, soft: 0, hard: 0 },
      { resource: ResourceLimit.OpenFiles, soft: 100, hard: 200 },
    ];
    const script =
      "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Hn 201 2>/dev/null || echo refused; ls /proc/$$/fd | grep -x '[567]'";
    const { stdout } = await launch({ arguments: ["bash", "-c", script], limits });
    expect(stdout).toBe("100\n200\n0\nrefused\n");
  });

  it("waits for a block that arrives byte by byte", async () => {
    const command = { arguments: ["echo", "slow"], environment: [PATH], workingDirectory: "/", limits: [] };
    const block = encodeLaunchBlock(command);
    const chunks = Array.from({ length: block.length }, (_, i) => block.subarray(i, i + 1));
    expect((await launchBytes(chunks)).stdout).toBe("slow\n");
  });

  it("starts nothing when the block never comes or ends early", async () => {
    const command = { arguments: ["echo", "x"], environment: [PATH], workingDirectory: "/", limits: [] };
    const block = encodeLaunchBlock(command);
    for (const length of [0, 3, 8, 20, block.length - 1]) {
      const launched = await launchBytes([block.subarray(0, length)]);
      expect(launched).toEqual({ exitCode: 127, stdout: "", report: [] });
    }
  });

  it("exists for the two architectures and says so for others", () => {
    expect(launcherImage("x64")?.readUInt16LE(18)).toBe(62);
    expect(launcherImage("arm64")?.readUInt16LE(18)).toBe(183);
    expect(launcherImage("riscv64")).toBeUndefined();
  });
});
