// The harness by itself: `node native-free-bench/main.ts bench|conformance|record|replay …`.
//
// It loads no native add-on, so it runs wherever Node runs; inside the executable the same commands are `ledge bench` and
// so on, through src/cli.

import { assertNodeVersion } from "../src/base/node-version.ts";

assertNodeVersion();

const COMMANDS: Readonly<Record<string, () => Promise<(argv: readonly string[]) => Promise<number>>>> = {
  bench: async () => (await import("./bench-command.ts")).runBench,
  conformance: async () => (await import("./conformance-command.ts")).runConformance,
  record: async () => (await import("./record-command.ts")).runRecord,
  replay: async () => (await import("./replay-command.ts")).runReplay,
};

const [name = "", ...argv] = process.argv.slice(2);
const load = COMMANDS[name];
if (load === undefined) {
  process.stderr.write(
    `Usage: node native-free-bench/main.ts ${Object.keys(COMMANDS).join("|")} … (--help after the command)\n`,
  );
  process.exitCode = 2;
} else {
  process.exitCode = await (await load())(argv);
}
