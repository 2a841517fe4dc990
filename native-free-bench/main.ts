// The harness by itself: `node native-free-bench/main.ts bench|conformance|record|replay …`, and what developers use.
//
// It loads no native add-on, so it runs wherever Node runs; inside the executable the same commands are `ledge bench` and
// so on, through src/cli. Without a command, or with the name of a scenario, it is `npm run bench`.

import { assertNodeVersion } from "../src/base/node-version.ts";

type Run = (argv: readonly string[]) => Promise<number>;

const COMMANDS: Readonly<Record<string, () => Promise<Run>>> = {
  bench: async () => (await import("./bench-command.ts")).runBench,
  conformance: async () => (await import("./conformance-command.ts")).runConformance,
  record: async () => (await import("./record-command.ts")).runRecord,
  replay: async () => (await import("./replay-command.ts")).runReplay,
  executor: async () => (await import("./executor-command.ts")).runExecutor,
  compare: async () => (await import("./compare-results.ts")).runCompare,
  "comparison-page": async () => (await import("./comparison-page.ts")).runComparisonPage,
};

assertNodeVersion();
const [name = "", ...argv] = process.argv.slice(2);
const load = COMMANDS[name];
if (load !== undefined) process.exitCode = await (await load())(argv);
else if (name.startsWith("-")) {
  process.stderr.write(
    `Usage: node native-free-bench/main.ts ${Object.keys(COMMANDS).join("|")} … (--help after the command)\n`,
  );
  process.exitCode = 2;
} else process.exitCode = await (await import("./developer-bench.ts")).runDeveloperBench(process.argv.slice(2));
