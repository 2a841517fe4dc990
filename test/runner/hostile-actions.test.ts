// Every hostile action ends as it should, leaves nothing behind, alters no input, and the next action is as good as new.

import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunSpec } from "../../src/runner/runner.ts";
import {
  findMarkedProcesses,
  findProcessesOfUser,
  ownerKeyOf,
  OWNER_VARIABLE,
} from "../../src/sandbox/process-table.ts";
import { HOSTILE_CASES, type HostileCase } from "./hostile-cases.ts";
import { makeRealRunner, RUNNER_USERS, SANDBOX_MAKERS, type RealRunnerFixture } from "./real-runner.ts";

const NEVER = new AbortController().signal;

const RUNNERS = RUNNER_USERS.flatMap((user) => SANDBOX_MAKERS.map((sandbox) => ({ user, sandbox })));

for (const { user, sandbox } of RUNNERS) {
  describe(`hostile actions, ${user}, sandbox ${sandbox}`, { timeout: 120_000 }, () => {
    let fixture: RealRunnerFixture;
    let store: string;
    let fingerprint: string;

    beforeAll(async () => {
      fixture = await makeRealRunner({ user, sandbox });
      store = join(fixture.buildRootPath, "store");
      mkdirSync(join(store, "cached"), { recursive: true });
      for (const path of [join(store, "blob"), join(store, "cached", "header.h")]) {
        writeFileSync(path, `contents of ${path}`);
        chmodSync(path, 0o444);
        utimesSync(path, 946_684_800, 946_684_800);
      }
      fingerprint = fingerprintOf(store);
    });
    afterAll(async () => {
      await fixture.close();
    });

    const isRoot = user === "server's user" && process.getuid?.() === 0;
    const cases = HOSTILE_CASES.filter(({ only }) => only === undefined || (only === "root") === isRoot);

    it.each(cases)("$name", async (hostile: HostileCase) => {
      const spec = specOf(hostile);
      const { outcome } = await fixture.runner.run(spec, { signal: NEVER });
      expect(outcome).toMatchObject(hostile.outcome);
      if (typeof hostile.stdout === "string") expect(read(spec.stdoutPath)).toBe(hostile.stdout);
      if (hostile.stdout instanceof RegExp) expect(read(spec.stdoutPath)).toMatch(hostile.stdout);
      if (hostile.stderr !== undefined) expect(read(spec.stderrPath)).toMatch(hostile.stderr);
      expectNothingLeft(spec);
      expect(fingerprintOf(store)).toBe(fingerprint);
      await expectNextActionUnaffected();
      removeAnyway(join(spec.inputRootPath, ".."));
    });

    function specOf(hostile: HostileCase): RunSpec {
      const spec = fixture.newSpec({ ...hostile.spec, arguments: [...hostile.arguments] });
      const input = join(spec.inputRootPath, "in");
      // Where actions have the server's user a link would be theirs to alter, so the worker copies there.
      if (isRoot) linkSync(join(store, "blob"), input);
      else copyFileSync(join(store, "blob"), input);
      mkdirSync(join(spec.inputRootPath, "cached"));
      const cached = { source: join(store, "cached"), destination: "/build/cached", writable: false, optional: false };
      return { ...spec, mounts: [cached] };
    }

    function expectNothingLeft(spec: RunSpec): void {
      expect(findMarkedProcesses(OWNER_VARIABLE, ownerKeyOf(fixture.buildRootPath))).toEqual([]);
      const owner = fixture.runner.ownerOf(spec.slot);
      if (owner !== undefined) expect(findProcessesOfUser(owner.uid)).toEqual([]);
    }

    async function expectNextActionUnaffected(): Promise<void> {
      const spec = fixture.newSpec({ arguments: ["sh", "-c", "echo next; ls /tmp /dev/shm; touch out"] });
      const { outcome } = await fixture.runner.run(spec, { signal: NEVER });
      expect(outcome).toEqual({ kind: "exited", exitCode: 0 });
      expect(read(spec.stdoutPath)).toBe("next\n/dev/shm:\n\n/tmp:\n");
    }
  });
}

/** Of a silent action there is no file. */
function read(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Content, mode, owner and modification time of what no action may alter. */
function fingerprintOf(store: string): string {
  return [join(store, "blob"), join(store, "cached", "header.h")]
    .map((path) => {
      const { mode, uid, mtimeMs, size } = statSync(path);
      const hash = createHash("sha256").update(readFileSync(path)).digest("hex");
      return [path, mode, uid, mtimeMs, size, hash].join(" ");
    })
    .join("\n");
}

/** Root removes what an action has closed to everybody else. */
function removeAnyway(path: string): void {
  rmSync(path, { recursive: true, force: true });
}
