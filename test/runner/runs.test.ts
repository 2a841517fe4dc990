// What a single run reports and survives: accounting, a busy program, a place nobody else can enter, signals to the runner.

import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRunner } from "../../src/runner/runner-client.ts";
import { probeSandbox } from "../../src/runner/probe-sandbox.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { makeRealRunner, type RealRunnerFixture, RUNNER_USERS, shell } from "./real-runner.ts";

const NEVER = new AbortController().signal;

for (const user of RUNNER_USERS) {
  describe(`runs, ${user}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture;
    beforeAll(async () => {
      fixture = await makeRealRunner({ user });
    });
    afterAll(async () => {
      await fixture.close();
    });

    it("account for the processor time and memory of all their processes", async () => {
      const burn = "python3 -c 'x = bytearray(100 << 20); sum(range(3000000))'";
      const spec = fixture.newSpec({ arguments: shell(`${burn}; ${burn} & wait`) });
      const { usage, startedAtMs, endedAtMs } = await fixture.runner.run(spec, { signal: NEVER });
      expect(usage.userMs).toBeGreaterThan(20);
      expect(usage.peakMemoryBytes).toBeGreaterThan(100 << 20);
      expect(usage.peakMemoryBytes).toBeLessThan(200 << 20);
      expect((usage.userMs ?? 0) + (usage.systemMs ?? 0)).toBeLessThan((endedAtMs - startedAtMs + 1000) * 16);
    });

    it("try again while somebody has the program open for writing, and give up in the end", async () => {
      const spec = fixture.newSpec({ arguments: ["./tool"] });
      const tool = join(spec.inputRootPath, "tool");
      copyFileSync("/bin/true", tool);
      chmodSync(tool, 0o755);
      const writer = openSync(tool, "r+");
      const running = fixture.runner.run(spec, { signal: NEVER });
      expect((await running).outcome).toMatchObject({
        kind: "sandbox-failed",
        message: expect.stringContaining("busy"),
      });
      rmSync(spec.stdoutPath, { force: true });
      rmSync(spec.stderrPath, { force: true });
      const second = fixture.runner.run(spec, { signal: NEVER });
      await sleep(1);
      closeSync(writer);
      expect((await second).outcome).toEqual({ kind: "exited", exitCode: 0 });
    });

    it("refuse an output file that exists, instead of overwriting it", async () => {
      const first = fixture.newSpec({ arguments: shell("echo first") });
      await fixture.runner.run(first, { signal: NEVER });
      const { outcome } = await fixture.runner.run(first, { signal: NEVER });
      expect(outcome).toMatchObject({ kind: "sandbox-failed", message: expect.stringContaining("EEXIST") });
      expect(readFileSync(first.stdoutPath, "utf8")).toBe("first\n");
    });
  });
}

describe("startRunner()", { timeout: 120_000 }, () => {
  it("works below a directory that nobody else may enter", async () => {
    const base = mkdtempSync(join(tmpdir(), "ledge-private-"));
    chmodSync(base, 0o700);
    const buildRootPath = join(base, "build");
    const started = await startRunner({ sandbox: "bwrap", buildRootPath, slots: 1, logger: silentLogger });
    if (!started.available) throw new Error(started.reason);
    const inputRootPath = join(buildRootPath, "run", "root");
    mkdirSync(inputRootPath, { recursive: true });
    const owner = started.runner.ownerOf(0);
    if (owner !== undefined) chownSync(inputRootPath, owner.uid, owner.gid);
    const spec = {
      id: "1",
      slot: 0,
      inputRootPath,
      rootMode: "host" as const,
      mounts: [],
      arguments: ["/bin/sh", "-c", "echo made > out; cat /etc/hostname"],
      environment: [],
      workingDirectory: "",
      stdoutPath: join(buildRootPath, "run", "stdout"),
      stderrPath: join(buildRootPath, "run", "stderr"),
      network: "none" as const,
      limits: { timeoutMs: 30_000, maxLogBytes: 1000 },
    };
    expect((await started.runner.run(spec, { signal: NEVER })).outcome).toEqual({ kind: "exited", exitCode: 0 });
    expect(readFileSync(join(inputRootPath, "out"), "utf8")).toBe("made\n");
    await started.runner.close();
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(base);
    rmSync(base, { recursive: true });
  });

  it("says what is missing when bwrap does not work", async () => {
    const base = mkdtempSync(join(tmpdir(), "ledge-no-bwrap-"));
    const bwrapPath = join(base, "bwrap");
    copyFileSync("/bin/false", bwrapPath);
    const options = {
      sandbox: "bwrap",
      bwrapPath,
      buildRootPath: join(base, "build"),
      slots: 1,
      logger: silentLogger,
    } as const;
    expect(await startRunner(options)).toMatchObject({
      available: false,
      reason: expect.stringContaining("trial sandbox"),
    });
    expect(await startRunner({ ...options, bwrapPath: join(base, "absent") })).toMatchObject({
      available: false,
      remedy: expect.stringContaining("install"),
    });
    rmSync(base, { recursive: true });
  });
});

describe("probeSandbox()", { timeout: 120_000 }, () => {
  it("tells what works here", async () => {
    const result = await probeSandbox();
    expect(result).toMatchObject({ available: true, profile: { bwrapPath: expect.stringContaining("bwrap") } });
  });
});
