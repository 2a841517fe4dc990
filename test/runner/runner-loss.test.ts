// Nothing survives the death of anybody in the chain server → runner → sandbox → action, whenever it comes.

import { randomInt } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { RunnerLostError, type RunResult } from "../../src/runner/runner.ts";
import { findMarkedProcesses, killQuietly, ownerKeyOf, OWNER_VARIABLE } from "../../src/sandbox/process-table.ts";
import { startRunner } from "../../src/runner/runner-client.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { makeRealRunner, type RealRunnerFixture, RUNNER_USERS, SANDBOX_MAKERS, shell } from "./real-runner.ts";

const NEVER = new AbortController().signal;

const RUNNERS = RUNNER_USERS.flatMap((user) => SANDBOX_MAKERS.map((sandbox) => ({ user, sandbox })));

for (const { user, sandbox } of RUNNERS) {
  describe(`loss of a process, ${user}, sandbox ${sandbox}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture | undefined;
    afterEach(async () => {
      await fixture?.close();
      fixture = undefined;
    });

    it("a killed runner is replaced, its runs are reported lost, and nothing of them goes on", async () => {
      fixture = await makeRealRunner({ user, sandbox });
      const delaysMs = [0, 3, 15].map((ms) => ms + randomInt(5));
      for (const delayMs of delaysMs) {
        const spec = fixture.newSpec({ arguments: shell("while :; do echo x >> grows; done") });
        const running = fixture.runner.run(spec, { signal: NEVER }).catch((error: unknown) => error);
        await sleep(delayMs);
        process.kill(runnerPid(fixture), "SIGKILL");
        const ended = await running;
        expect(ended, `killed after ${delayMs} ms`).toMatchObject({ message: expect.stringContaining("ended while") });
        expect(ended instanceof RunnerLostError || String(ended).includes("RunnerLostError")).toBe(true);
        await expectNoSandbox(fixture);
        await expectRunsAgain(fixture);
      }
    });

    it("a killed sandbox fails its run, and nothing of it goes on", async () => {
      fixture = await makeRealRunner({ user, sandbox });
      for (const delayMs of [0, 1, 2, 4, 10, 30].map((ms) => ms + randomInt(2))) {
        const spec = fixture.newSpec({ arguments: shell("while :; do echo x >> grows; done") });
        const running = fixture.runner.run(spec, { signal: NEVER });
        await sandboxes(fixture, 1);
        await sleep(delayMs);
        const { outcome } = await killSandboxes(fixture, running);
        expect(outcome, `killed after ${delayMs} ms`).toMatchObject({ kind: "sandbox-failed" });
        await expectNoSandbox(fixture);
        await expectRunsAgain(fixture);
      }
    });
  });
}

/** Only a server in a process of its own can be killed: the one for the ordinary user, which root, and so CI, has. */
describe.runIf(RUNNER_USERS.includes("ordinary user"))("loss of the server", { timeout: 120_000 }, () => {
  it("takes the runner and everything it started with it", async () => {
    const fixture = await makeRealRunner({ user: "ordinary user" });
    const running = [0, 1].map((slot) => {
      const spec = fixture.newSpec({ slot, arguments: shell("setsid sleep 1000 & trap '' TERM HUP; sleep 1000") });
      return fixture.runner.run(spec, { signal: NEVER }).catch((error: unknown) => error);
    });
    await sandboxes(fixture, 2);
    const runner = runnerPid(fixture);
    process.kill(fixture.serverPid, "SIGKILL");
    await Promise.all(running);
    await until(() => !existsSync(`/proc/${runner}`));
    await expectNoSandbox(fixture);
    await fixture.close();
  });

  it.each(SANDBOX_MAKERS)(
    "and of the runner in the same moment leaves nothing after the next start, sandbox %s",
    async (sandbox) => {
      const fixture = await makeRealRunner({ user: "ordinary user", sandbox });
      const spec = fixture.newSpec({ arguments: shell("sleep 1000") });
      const running = fixture.runner.run(spec, { signal: NEVER }).catch((error: unknown) => error);
      await sandboxes(fixture, 1);
      const runner = runnerPid(fixture);
      process.kill(fixture.serverPid, "SIGSTOP");
      process.kill(runner, "SIGKILL");
      process.kill(fixture.serverPid, "SIGKILL");
      await running;
      if (sandbox === "own") await expectNoSandbox(fixture);
      // A bwrap that was killed before it mapped its child's ids leaves the child waiting for them: the next start ends it.
      const next = await startRunner({
        sandbox: "bwrap",
        buildRootPath: fixture.buildRootPath,
        slots: 1,
        logger: silentLogger,
      });
      expect(next).toMatchObject({ available: true });
      await expectNoSandbox(fixture);
      if (next.available) await next.runner.close();
      await fixture.close();
    },
  );
});

describe("the runner process", { timeout: 120_000 }, () => {
  it("leaves no descriptor, process or file behind after hundreds of runs", async () => {
    const fixture = await makeRealRunner();
    const descriptors = () => readdirSync(`/proc/${runnerPid(fixture)}/fd`).length;
    const runMany = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const runs = [0, 1, 2, 3].map((slot) => {
          const spec = fixture.newSpec({ slot, arguments: i % 5 === 4 ? ["no-such-program"] : ["true"] });
          if (i % 2 === 0) fixture.runner.prepare?.(spec);
          return fixture.runner.run(spec, { signal: NEVER });
        });
        await Promise.all<RunResult>(runs);
      }
    };
    await runMany(5);
    const before = descriptors();
    await runMany(60);
    expect(descriptors()).toBeLessThanOrEqual(before);
    expect(findMarkedProcesses(OWNER_VARIABLE, ownerKeyOf(fixture.buildRootPath))).toEqual([]);
    const zombies = childrenOf(runnerPid(fixture));
    expect(zombies).toEqual([]);
    await fixture.close();
  });
});

/** The runner is the server's child that serves this build root: the only one whose children are marked, or that has none. */
function runnerPid(fixture: RealRunnerFixture): number {
  const runners = childrenOf(fixture.serverPid).filter((pid) => {
    const command = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
    return command.includes("runner");
  });
  const pid = runners.at(-1);
  if (pid === undefined) throw new Error("The server has no runner");
  return pid;
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").split(" ").filter(Boolean).map(Number);
}

async function sandboxes(fixture: RealRunnerFixture, count: number): Promise<number[]> {
  const found = () => childrenOf(runnerPid(fixture));
  await until(() => found().length >= count);
  return found();
}

/** Again and again: our own builder may end of itself just before, and leave what it made to the runner. */
async function killSandboxes(fixture: RealRunnerFixture, running: Promise<RunResult>): Promise<RunResult> {
  const runner = runnerPid(fixture);
  for (;;) {
    for (const pid of childrenOf(runner)) killQuietly(pid);
    const result = await Promise.race([running, sleep(5)]);
    if (result !== undefined) return result;
  }
}

async function expectNoSandbox(fixture: RealRunnerFixture): Promise<void> {
  const marked = () => findMarkedProcesses(OWNER_VARIABLE, ownerKeyOf(fixture.buildRootPath));
  await until(() => marked().length === 0);
}

async function expectRunsAgain(fixture: RealRunnerFixture): Promise<void> {
  const { outcome } = await fixture.runner.run(fixture.newSpec({ arguments: ["true"] }), { signal: NEVER });
  expect(outcome).toEqual({ kind: "exited", exitCode: 0 });
}

/** Gives up after 30 s: what has not died by then does not die. */
async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error("It did not happen in 30 s");
    await sleep(2);
  }
}
