// What a server leaves behind, and what two servers do with one data directory.

import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { runToEnd } from "../support/child-output.ts";
import { LedgeServer, ledgeCommand } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

/** Starts an action that nobody else starts; returns what its processes and its build directory are known by. */
async function startAction(server: LedgeServer): Promise<{ input: string; seconds: string }> {
  const input = `left-over-${process.hrtime.bigint()}`;
  const seconds = `${600 + Math.random() * 300}`;
  const output = await runPythonScript("start_action", server.address, input, seconds);
  expect(output.exitCode, `${output.stdout}\n${output.stderr}\n${server.log}`).toBe(0);
  // The stage is announced before the sandbox has started the process.
  for (let i = 0; i < 100 && (await processesOf(seconds)).length === 0; i++) await sleep(50);
  expect(await processesOf(seconds)).not.toEqual([]);
  expect(await filesNamed(server.dataDir, input)).not.toEqual([]);
  return { input, seconds };
}

/** The processes whose command line contains `text`. */
async function processesOf(text: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found: string[] = [];
  for (const pid of pids) {
    const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (commandLine.includes(text) && Number(pid) !== process.pid) found.push(commandLine.replaceAll("\0", " "));
  }
  return found;
}

async function filesNamed(folder: string, name: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).filter((path) => path.includes(name));
}

/** A start moves old build directories out of the way before it accepts, and deletes them beside its work. */
async function expectNoFile(folder: string, name: string): Promise<void> {
  for (let i = 0; i < 100 && (await filesNamed(folder, name)).length > 0; i++) await sleep(100);
  expect(await filesNamed(folder, name)).toEqual([]);
}

async function mountsBelow(folder: string): Promise<string[]> {
  return (await readFile("/proc/self/mounts", "utf8")).split("\n").filter((line) => line.includes(folder));
}

async function expectNoProcess(text: string): Promise<void> {
  // The kernel kills them; 10 s is for a machine that is busy.
  for (let i = 0; i < 100 && (await processesOf(text)).length > 0; i++) await sleep(100);
  expect(await processesOf(text)).toEqual([]);
}

/** The runner and what else the server started itself, as /proc folders: they are the same process or gone. */
async function childrenOf(pid: number): Promise<string[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children.trim().split(" ").filter(Boolean);
}

async function expectEnded(pids: readonly string[]): Promise<void> {
  const running = (): string[] => pids.filter((pid) => existsSync(`/proc/${pid}`));
  for (let i = 0; i < 100 && running().length > 0; i++) await sleep(100);
  expect(running()).toEqual([]);
}

describe("a server that ended", patient, () => {
  test("by SIGKILL leaves no process, and after the next start no mount and no build directory", async () => {
    await using server = await LedgeServer.start();
    const { input, seconds } = await startAction(server);
    const children = await childrenOf(server.pid);
    expect(children).not.toEqual([]);
    await server.kill();
    await expectNoProcess(seconds);
    await expectEnded(children);
    await server.restart();
    await expectNoFile(server.dataDir, input).catch((error: unknown) => {
      throw new Error(`after the next start: ${server.log}`, { cause: error });
    });
    expect(await mountsBelow(server.dataDir)).toEqual([]);
  });

  test("by SIGKILL leaves no build directory after a start that only caches", async () => {
    await using server = await LedgeServer.start();
    const { input, seconds } = await startAction(server);
    await server.kill();
    await expectNoProcess(seconds);
    await server.restart(["--slots", "0"]);
    await expectNoFile(server.dataDir, input);
  });

  test("by SIGTERM, with an action that outlives the drain timeout, leaves nothing at once", async () => {
    await using server = await LedgeServer.start({ flags: ["--drain-timeout", "500ms"] });
    const { input, seconds } = await startAction(server);
    const children = await childrenOf(server.pid);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    await expectNoProcess(seconds);
    await expectEnded(children);
    expect(await filesNamed(server.dataDir, input)).toEqual([]);
    expect(await mountsBelow(server.dataDir)).toEqual([]);
  });

  test("by a lost client leaves nothing after the grace period", async () => {
    // Long enough for the process to be seen before it is killed, also on a busy machine.
    await using server = await LedgeServer.start({ flags: ["--orphan-grace", "4s"] });
    const { input, seconds } = await startAction(server);
    await expectNoProcess(seconds);
    await expectNoFile(server.dataDir, input);
  });
});

describe("one data directory", patient, () => {
  test("is refused to a second server, which names the pid of the first", async () => {
    await using server = await LedgeServer.start();
    const [program = "", ...args] = await ledgeCommand();
    const flags = ["serve", "--listen", "127.0.0.1:0", "--data-dir", server.dataDir];
    const second = await runToEnd(program, [...args, ...flags], { timeoutMs: 20_000 });
    expect(second.exitCode).toBeGreaterThan(0);
    expect(second.stdout + second.stderr).toContain(String(server.pid));
    expect(second.stdout + second.stderr).toContain(server.dataDir);
    expect((await fetch(`http://${server.address}/status`)).status).toBe(200);
  });

  test("goes to exactly one of twenty servers that start at once", async () => {
    await using folder = await TemporaryFolder.create("twenty");
    const dataDir = join(folder.path, "data");
    const starts = await Promise.allSettled(
      Array.from({ length: 20 }, () => LedgeServer.start({ dataDir, flags: ["--slots", "0"] })),
    );
    const winners = starts.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
    await using _cleanup = { [Symbol.asyncDispose]: () => disposeAll(winners) };
    expect(winners).toHaveLength(1);
    for (const start of starts) {
      if (start.status === "rejected") expect(String(start.reason)).toContain(`${winners[0]?.pid}`);
    }
  });

  // In a container the server has the same small pid after every start, so a pid file would lock it out of its own data.
  test("is taken again by a server with the same pid after SIGKILL, in a pid namespace", async () => {
    const namespaces = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
    await using server = await LedgeServer.start({
      wrapper: ["unshare", ...namespaces, "--pid", "--fork", "--mount-proc", "--kill-child"],
      flags: ["--slots", "0"],
    });
    await server.kill();
    // What was killed is `unshare`; the server dies with it, a moment later.
    while (await fetch(`http://${server.address}/status`).then(Boolean, () => false)) await sleep(20);
    await server.restart();
    expect((await fetch(`http://${server.address}/status`)).status).toBe(200);
  });
});

async function disposeAll(servers: readonly LedgeServer[]): Promise<void> {
  await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
}
