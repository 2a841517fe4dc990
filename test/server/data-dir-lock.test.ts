// The lock of the data directory: one owner, also after kill -9, with equal pids, and when many start at once.

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DataDirInUseError, lockDataDir } from "../../src/server/data-dir-lock.ts";

const run = promisify(execFile);
const moduleUrl = new URL("../../src/server/data-dir-lock.ts", import.meta.url).href;
/** Takes the lock, says so and stays until killed; exits with 3 when another one has it. */
const HOLDER = `
  const { lockDataDir } = await import(${JSON.stringify(moduleUrl)});
  try { await lockDataDir(process.argv[1]); } catch (error) { console.log(error.message); process.exit(3); }
  console.log("locked by " + process.pid);
  setInterval(() => {}, 1000);`;

let dataDir: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "ledge-lock-"));
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }
  rmSync(dataDir, { recursive: true, force: true });
});

/** Starts a holder and resolves with its first line. */
async function startHolder(
  command = process.execPath,
  prefix: string[] = [],
): Promise<{ child: ChildProcess; line: string }> {
  const args = [...prefix, "--input-type=module", "-e", HOLDER, dataDir];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const [chunk] = (await once(child.stdout, "data")) as [Buffer];
  return { child, line: chunk.toString().trim() };
}

describe("lockDataDir()", () => {
  test("names the pid of the owner when the directory is in use", async () => {
    const { child, line } = await startHolder();
    expect(line).toBe(`locked by ${child.pid}`);
    await expect(lockDataDir(dataDir)).rejects.toThrow(DataDirInUseError);
    await expect(lockDataDir(dataDir)).rejects.toThrow(`in use by ledge with pid ${child.pid}`);
  });

  test("succeeds again after release, any number of times", async () => {
    for (let round = 0; round < 3; round++) (await lockDataDir(dataDir)).release();
    expect(readdirSync(dataDir)).toEqual(["lock.3.sock"]);
  });

  // A pid file would call the directory taken here, or trust a pid that means another process by now.
  test("succeeds after the owner was killed", async () => {
    const { child } = await startHolder();
    child.kill("SIGKILL");
    await once(child, "exit");
    (await lockDataDir(dataDir)).release();
  });

  test("succeeds after kill -9 when the next process has the same pid, as in a container", async () => {
    const inNamespace = ["--pid", "--fork", "--kill-child", "--mount-proc", process.execPath];
    const first = await startHolder("unshare", inNamespace);
    expect(first.line).toBe("locked by 1");
    first.child.kill("SIGKILL");
    await once(first.child, "exit");
    const second = await startHolder("unshare", inNamespace);
    expect(second.line).toBe("locked by 1");
    await expect(lockDataDir(dataDir)).rejects.toThrow("pid 1");
  });

  // The stale socket is what makes the race: everyone finds it dead at the same time.
  test("lets exactly one of 20 simultaneous starts win over a stale lock", async () => {
    const { child } = await startHolder();
    child.kill("SIGKILL");
    await once(child, "exit");
    const lines = await Promise.all(Array.from({ length: 20 }, async () => (await startHolder()).line));
    const winners = lines.filter((line) => line.startsWith("locked by "));
    expect(winners).toHaveLength(1);
    const pid = winners[0]?.replace("locked by ", "");
    for (const line of lines) if (line !== winners[0]) expect(line).toContain(`pid ${pid}`);
  }, 120_000);

  test("works in a directory whose path is longer than a socket path may be", async () => {
    const deep = join(dataDir, "a".repeat(100), "b".repeat(100));
    mkdirSync(deep, { recursive: true });
    const lock = await lockDataDir(deep);
    await expect(lockDataDir(deep)).rejects.toThrow(`pid ${process.pid}`);
    lock.release();
  });

  test("leaves nothing open that keeps the process alive", async () => {
    const script = `const { lockDataDir } = await import(${JSON.stringify(moduleUrl)}); await lockDataDir(process.argv[1]);`;
    await run(process.execPath, ["--input-type=module", "-e", script, dataDir]);
  });
});
