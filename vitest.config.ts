// How the tests run: generated codecs first, then files in parallel processes, as many as the machine has cores.

import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// In the configuration and not in a global setup, because modules are resolved as soon as workers start.
execFileSync(process.execPath, ["protos/generate.ts"], {
  cwd: import.meta.dirname,
  stdio: ["ignore", "ignore", "inherit"],
});

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Processes, not threads: tests open LMDB, start children and read process-wide state.
    pool: "forks",
    maxWorkers: Math.max(2, availableParallelism()),
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // One summary line must mean that everything ran.
    allowOnly: false,
    passWithNoTests: false,
  },
});
