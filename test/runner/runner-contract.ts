// What every Runner promises, whatever it runs processes with. The fixture says how to spell the few programs used here.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Runner, RunResult, RunSpec } from "../../src/runner/runner.ts";

export interface RunnerFixture {
  readonly runner: Runner;
  /** A fresh, valid spec of a directory that nobody else uses; the input root is empty and owned as it must be. */
  newSpec(overrides: Partial<RunSpec> & Pick<RunSpec, "arguments">): RunSpec;
  /** Command lines of programs. Every one ends at once unless its name says otherwise. */
  readonly programs: {
    exitWith(exitCode: number): string[];
    print(stdout: string, stderr: string): string[];
    printForever(): string[];
    /** Prints something first, so that it can be seen to run. */
    waitForever(): string[];
    /** Writes `content` into the file `name` of the working directory. */
    writeFile(name: string, content: string): string[];
    /** Starts something in the background that appends to `name` for ever, and exits with 0 once the file exists. */
    leaveWriterBehind(name: string): string[];
  };
  close(): Promise<void>;
}

const NEVER = new AbortController().signal;

export function describeRunnerContract(name: string, makeFixture: () => Promise<RunnerFixture>): void {
  describe(`Runner contract: ${name}`, { timeout: 120_000 }, () => {
    let fixture: RunnerFixture;
    beforeAll(async () => {
      fixture = await makeFixture();
    });
    afterAll(async () => {
      await fixture.close();
    });

    async function run(overrides: Parameters<RunnerFixture["newSpec"]>[0], signal = NEVER): Promise<Run> {
      const spec = fixture.newSpec(overrides);
      const result = await fixture.runner.run(spec, { signal });
      return { spec, result, stdout: read(spec.stdoutPath), stderr: read(spec.stderrPath) };
    }

    it.each([0, 1, 42, 255])("run() reports exit code %i", async (exitCode) => {
      const { result } = await run({ arguments: fixture.programs.exitWith(exitCode) });
      expect(result.outcome).toEqual({ kind: "exited", exitCode });
    });

    it("run() keeps stdout and stderr apart, in files it creates", async () => {
      const { stdout, stderr, result } = await run({ arguments: fixture.programs.print("to stdout", "to stderr") });
      expect(result.outcome).toEqual({ kind: "exited", exitCode: 0 });
      expect({ stdout, stderr }).toEqual({ stdout: "to stdout", stderr: "to stderr" });
    });

    it("run() leaves empty output files of a silent command, or none", async () => {
      const { stdout, stderr, result } = await run({ arguments: fixture.programs.exitWith(0) });
      expect({ stdout, stderr }).toEqual({ stdout: "", stderr: "" });
      expect([0, undefined]).toContain(result.logBytes);
    });

    it("run() says how much it put into the output files, or nothing", async () => {
      const { result } = await run({ arguments: fixture.programs.print("to stdout", "to stderr") });
      expect(["to stdout".length + "to stderr".length, undefined]).toContain(result.logBytes);
    });

    it("run() gives times in order", async () => {
      const beforeMs = Date.now();
      const { result } = await run({ arguments: fixture.programs.exitWith(0) });
      expect(result.startedAtMs).toBeGreaterThanOrEqual(beforeMs);
      expect(result.endedAtMs).toBeGreaterThanOrEqual(result.startedAtMs);
      expect(Date.now()).toBeGreaterThanOrEqual(result.endedAtMs);
    });

    it("run() lets the command write below its input root", async () => {
      const { spec } = await run({ arguments: fixture.programs.writeFile("out.txt", "made inside") });
      expect(read(join(spec.inputRootPath, "out.txt"))).toBe("made inside");
    });

    it("run() says which program could not be started", async () => {
      const { result, stdout, stderr } = await run({ arguments: ["no-such-program-9f86"] });
      expect(result.outcome).toMatchObject({
        kind: "not-started",
        message: expect.stringContaining('"no-such-program-9f86"'),
      });
      expect({ stdout, stderr }).toEqual({ stdout: "", stderr: "" });
    });

    it("run() says which working directory is missing", async () => {
      const { result } = await run({ arguments: fixture.programs.exitWith(0), workingDirectory: "no/such" });
      expect(result.outcome).toMatchObject({ kind: "not-started", message: expect.stringContaining('"no/such"') });
    });

    it("run() ends a command at its timeout and keeps what it printed", async () => {
      const limits = { timeoutMs: 150, maxLogBytes: 1 << 20 };
      const { result } = await run({ arguments: fixture.programs.waitForever(), limits });
      expect(result.outcome).toEqual({ kind: "timeout" });
    });

    it("run() ends a command that prints too much, with exactly the limit kept", async () => {
      const limits = { timeoutMs: 60_000, maxLogBytes: 10_000 };
      const { result, stdout } = await run({ arguments: fixture.programs.printForever(), limits });
      expect(result.outcome).toMatchObject({ kind: "limit", limit: "log-bytes" });
      expect(stdout).toHaveLength(10_000);
    });

    it("run() resolves as cancelled when its signal is aborted", async () => {
      const abort = new AbortController();
      const spec = fixture.newSpec({ arguments: fixture.programs.waitForever() });
      const running = fixture.runner.run(spec, { signal: abort.signal });
      await untilExists(spec.stdoutPath);
      abort.abort();
      expect((await running).outcome).toEqual({ kind: "cancelled" });
    });

    it("run() does not start anything when its signal was aborted before", async () => {
      const spec = fixture.newSpec({ arguments: fixture.programs.writeFile("ran", "yes") });
      const { outcome } = await fixture.runner.run(spec, { signal: AbortSignal.abort() });
      expect(outcome).toEqual({ kind: "cancelled" });
      expect(readdirSync(spec.inputRootPath)).toEqual([]);
    });

    it("run() resolves only when nothing of the command runs any more", async () => {
      const { spec, result } = await run({ arguments: fixture.programs.leaveWriterBehind("grows") });
      expect(result.outcome).toEqual({ kind: "exited", exitCode: 0 });
      const path = join(spec.inputRootPath, "grows");
      const { size, mtimeMs } = statSync(path);
      await new Promise((resolve) => setTimeout(resolve, 60));
      expect(statSync(path)).toMatchObject({ size, mtimeMs });
    });

    it("run() refuses a slot that is in use", async () => {
      const abort = new AbortController();
      const first = fixture.newSpec({ arguments: fixture.programs.waitForever() });
      const running = fixture.runner.run(first, { signal: abort.signal });
      await untilExists(first.stdoutPath);
      const { result } = await run({ arguments: fixture.programs.exitWith(0), slot: first.slot });
      expect(result.outcome).toMatchObject({ kind: "sandbox-failed", message: expect.stringContaining("in use") });
      abort.abort();
      await running;
    });

    it("run() works in several slots at once", async () => {
      const runs = [0, 1, 0 + 2].map((slot) => run({ slot, arguments: fixture.programs.print(`slot ${slot}`, "") }));
      expect((await Promise.all(runs)).map(({ stdout }) => stdout)).toEqual(["slot 0", "slot 1", "slot 2"]);
    });

    it("close() ends what runs as cancelled", async () => {
      const other = await makeFixture();
      const spec = other.newSpec({ arguments: other.programs.waitForever() });
      const running = other.runner.run(spec, { signal: NEVER }).catch((error: unknown) => error);
      await untilExists(spec.stdoutPath);
      await other.close();
      const ended = await running;
      expect(ended instanceof Error || (ended as RunResult).outcome.kind === "cancelled").toBe(true);
    });
  });
}

interface Run {
  readonly spec: RunSpec;
  readonly result: RunResult;
  readonly stdout: string;
  readonly stderr: string;
}

function read(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

async function untilExists(path: string): Promise<void> {
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 2));
  await new Promise((resolve) => setTimeout(resolve, 20));
}
