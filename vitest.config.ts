// How the tests run: generated codecs first, then files in parallel processes, what takes longest first.

import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// In the configuration and not in a global setup, because modules are resolved as soon as workers start.
execFileSync(process.execPath, ["protos/generate.ts"], {
  cwd: import.meta.dirname,
  stdio: ["ignore", "ignore", "inherit"],
});

/** On a fresh clone nothing is known about durations, and the largest file is not the slowest one. */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => rank(a.moduleId) - rank(b.moduleId));
  }
}

function rank(path: string): number {
  const slowest = ["clients/long-action", "clients/bazel-together", "clients/bazel-execution", "clients/"];
  const index = slowest.findIndex((part) => path.includes(`/test/${part}`));
  return index === -1 ? slowest.length : index;
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Processes, not threads: tests open LMDB, start children and read process-wide state.
    pool: "forks",
    // One more than cores: the slowest file, test/clients/long-action, waits 90 s and needs no core.
    maxWorkers: Math.max(2, availableParallelism()) + 1,
    sequence: { sequencer: SlowestFirst },
    // Only a hang meets these: machines of continuous integration can be ten times slower than one's own.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // One summary line must mean that everything ran.
    allowOnly: false,
    passWithNoTests: false,
  },
});
