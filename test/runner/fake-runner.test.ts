// The in-memory runner keeps the contract, so tests that use it in place of the real one mean something.

import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FakeRunner } from "./fake-runner.ts";
import { describeRunnerContract, type RunnerFixture } from "./runner-contract.ts";

describeRunnerContract("fake", async (): Promise<RunnerFixture> => {
  const base = mkdtempSync(join(tmpdir(), "ledge-fake-runner-"));
  let count = 0;
  const runner = new FakeRunner({
    exit: ({ spec }) => Number(spec.arguments[1]),
    print: (process) => {
      process.writeStdout(process.spec.arguments[1] ?? "");
      process.writeStderr(process.spec.arguments[2] ?? "");
      return 0;
    },
    "print-forever": async (process) => {
      while (!process.killed.aborted) {
        process.writeStdout("y\n".repeat(1000));
        await new Promise((resolve) => setImmediate(resolve));
      }
      return 137;
    },
    wait: ({ killed }) => new Promise((resolve) => killed.addEventListener("abort", () => resolve(137))),
    write: ({ spec, workingDirectoryPath }) => {
      writeFileSync(join(workingDirectoryPath, spec.arguments[1] ?? ""), spec.arguments[2] ?? "");
      return 0;
    },
    background: ({ spec, workingDirectoryPath }) => {
      appendFileSync(join(workingDirectoryPath, spec.arguments[1] ?? ""), "x");
      return 0;
    },
  });
  return {
    runner,
    newSpec(overrides) {
      const directory = join(base, String(count++));
      mkdirSync(join(directory, "root"), { recursive: true });
      return {
        id: `fake-${count}`,
        slot: 0,
        inputRootPath: join(directory, "root"),
        rootMode: "host",
        mounts: [],
        environment: [],
        workingDirectory: "",
        stdoutPath: join(directory, "stdout"),
        stderrPath: join(directory, "stderr"),
        network: "none",
        limits: { timeoutMs: 60_000, maxLogBytes: 1 << 20 },
        ...overrides,
      };
    },
    programs: {
      exitWith: (exitCode) => ["exit", String(exitCode)],
      print: (stdout, stderr) => ["print", stdout, stderr],
      printForever: () => ["print-forever"],
      waitForever: () => ["wait"],
      writeFile: (name, content) => ["write", name, content],
      leaveWriterBehind: (name) => ["background", name],
    },
    async close() {
      await runner.close();
      rmSync(base, { recursive: true, force: true });
    },
  };
});
