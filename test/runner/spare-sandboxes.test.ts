// A sandbox that was set up ahead cannot be told from one that was not, and never serves a run it does not fit.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunSpec } from "../../src/runner/runner.ts";
import { findMarkedProcesses, ownerKeyOf, OWNER_VARIABLE } from "../../src/sandbox/process-table.ts";
import { makeRealRunner, type RealRunnerFixture, RUNNER_USERS, SANDBOX_MAKERS, shell } from "./real-runner.ts";

const NEVER = new AbortController().signal;

/** The init of its pid namespace and the launcher, which waits for a command; bwrap has a monitor as well. */
const PROCESSES_OF_A_SPARE = { own: 2, bwrap: 3 };
const RUNNERS = RUNNER_USERS.flatMap((user) => SANDBOX_MAKERS.map((sandbox) => ({ user, sandbox })));

/** Everything an action can know about its surroundings that is not a time, a pid of its own children or an inode. */
const LOOK_AROUND = `
set -x
tr '\\0' '\\n' < /proc/self/environ
tr '\\0' ' ' < /proc/self/cmdline; echo
tr '\\0' ' ' < /proc/1/cmdline; echo
ls -l /proc/self/fd | sed 's/.* \\([0-9]* -> [^0-9]*\\).*/\\1/'
echo pid $$ parent $PPID; 
grep -vE '^(voluntary|nonvoluntary|Vm|Rss|Cpus|Mems)' /proc/self/status
cat /proc/self/limits; id; pwd; umask; hostname
sed 's/^[0-9]* [0-9]* [0-9:]* //; s/run-[0-9]*//' /proc/self/mountinfo
ls -la / /dev /etc | grep -v ' proc$' | sed 's/[A-Z][a-z][a-z] [ 0-9]* [0-9:]* / /'
cat in; ls -la /build /tmp
`;

for (const { user, sandbox } of RUNNERS) {
  describe(`sandboxes set up ahead, ${user}, sandbox ${sandbox}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture;
    beforeAll(async () => {
      fixture = await makeRealRunner({ user, sandbox });
    });
    afterAll(async () => {
      await fixture.close();
    });

    async function run(spec: RunSpec): Promise<{ outcome: unknown; stdout: string; stderr: string }> {
      const { outcome } = await fixture.runner.run(spec, { signal: NEVER });
      return { outcome, stdout: read(spec.stdoutPath), stderr: read(spec.stderrPath) };
    }

    async function prepared(spec: RunSpec): Promise<void> {
      fixture.runner.prepare?.(spec);
      await until(() => spares(fixture) === PROCESSES_OF_A_SPARE[sandbox]);
    }

    it("show an action the same as those that are not", async () => {
      const environment = ["PATH", "Z", "A", "SHLVL", "_", "PWD", "A.B"].map((name) => ({
        name,
        value: "/usr/bin:/bin",
      }));
      const look = async (ahead: boolean) => {
        const spec = fixture.newSpec({ arguments: shell(LOOK_AROUND), environment });
        if (ahead) await prepared(spec);
        writeFileSync(join(spec.inputRootPath, "in"), "an input that came later\n", { mode: 0o444 });
        const { outcome, stdout } = await run(spec);
        expect(outcome).toEqual({ kind: "exited", exitCode: 0 });
        // The columns of ls are as wide as the number of all processes of the machine, the links to /proc.
        return stdout
          .replaceAll(spec.id, "ID")
          .replaceAll(/ 2\d{3}-\d\d-\S+ \S+/g, "")
          .replaceAll(/ +/g, " ");
      };
      const cold = await look(false);
      expect(cold).toContain("an input that came later");
      expect(await look(true)).toBe(cold);
    });

    it("report a program that cannot be started like those that are not", async () => {
      const spec = fixture.newSpec({ arguments: ["no-such-program"] });
      await prepared(spec);
      expect((await run(spec)).outcome).toMatchObject({ kind: "not-started" });
    });

    it("are not used for a run that wants another view", async () => {
      const directory = join(fixture.buildRootPath, `mounted-${user.length}`);
      mkdirSync(directory);
      writeFileSync(join(directory, "file"), "mounted");
      const spec = fixture.newSpec({ arguments: ["cat", "/mounted/file"] });
      await prepared(spec);
      const mount = { source: directory, destination: "/mounted", writable: false, optional: false };
      expect(await run({ ...spec, mounts: [mount] })).toMatchObject({
        outcome: { kind: "exited", exitCode: 0 },
        stdout: "mounted",
      });
      expect(spares(fixture)).toBe(0);
    });

    it("are replaced by the next one in the slot, and end with the runner", async () => {
      const other = await makeRealRunner({ user, sandbox });
      for (let i = 0; i < 3; i++) other.runner.prepare?.(other.newSpec({ arguments: [] }));
      await until(() => spares(other) === PROCESSES_OF_A_SPARE[sandbox]);
      await other.close();
      expect(spares(other)).toBe(0);
    });

    it("do not start anything when the run is cancelled first", async () => {
      const spec = fixture.newSpec({ arguments: shell("echo ran > ran") });
      await prepared(spec);
      const { outcome } = await fixture.runner.run(spec, { signal: AbortSignal.abort() });
      expect(outcome).toEqual({ kind: "cancelled" });
      expect((await run(fixture.newSpec({ arguments: ["true"] }))).outcome).toEqual({ kind: "exited", exitCode: 0 });
    });

    it("hold their limits, though they existed before the limits were known", async () => {
      const limits = { timeoutMs: 30_000, maxLogBytes: 1 << 20, maxPids: 33, memoryBytes: 64 << 20 };
      const spec = fixture.newSpec({ arguments: ["python3", "-c", "x = bytearray(1 << 29)"], limits });
      await prepared(spec);
      expect((await run(spec)).outcome).toMatchObject({ kind: "limit", limit: "memory" });
    });
  });
}

/** Of a silent action there is no file. */
function read(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

function spares(fixture: RealRunnerFixture): number {
  return findMarkedProcesses(OWNER_VARIABLE, ownerKeyOf(fixture.buildRootPath)).length;
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error("It did not happen in 30 s");
    await sleep(2);
  }
}
