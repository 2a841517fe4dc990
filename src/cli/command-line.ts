// Chooses the subcommand and turns mistakes in the arguments into exit code 2.
//
// Each subcommand is loaded when it is asked for: the runner process must not map the server's native code.

import { UsageError } from "./flag.ts";

/** Runs `args` (without program and script) to the end; returns the exit code. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  try {
    return await dispatch(args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`ledge: ${error.message}\n`);
    return 2;
  }
}

/** Commands of native-free-bench/, which have flags and a --help of their own. */
const TOOLS: Readonly<Record<string, () => Promise<(args: readonly string[]) => Promise<number>>>> = {
  bench: async () => (await import("../../native-free-bench/bench-command.ts")).runBench,
  conformance: async () => (await import("../../native-free-bench/conformance-command.ts")).runConformance,
  record: async () => (await import("../../native-free-bench/record-command.ts")).runRecord,
  replay: async () => (await import("../../native-free-bench/replay-command.ts")).runReplay,
};

async function dispatch(args: readonly string[]): Promise<number> {
  const [first = "serve", ...rest] = args;
  const tool = TOOLS[first];
  if (tool !== undefined) return await (await tool())(rest);
  // What follows "--" are arguments of another command.
  if (first === "sandbox" && args.includes("--")) return await (await import("./sandbox.ts")).runSandbox(rest);
  if (first === "help" || args.includes("--help") || args.includes("-h")) return await printHelp();
  if (args.includes("--version")) return await printVersion();
  if (first.startsWith("-")) return await runServe(args);
  switch (first) {
    case "serve":
      return await runServe(rest);
    case "doctor":
      return await (await import("./doctor.ts")).runDoctor(rest);
    case "sandbox":
      return await (await import("./sandbox.ts")).runSandbox(rest);
    case "operations":
      return await (await import("./operations.ts")).runOperations(rest);
    case "stats":
      return await (await import("./store-commands.ts")).runStats(rest);
    case "fsck":
      return await (await import("./store-commands.ts")).runFsck(rest);
    case "gc":
      return await (await import("./store-commands.ts")).runGc(rest);
    case "runner":
      // Internal: the server starts it with a socket on descriptor 3.
      return await (await import("./runner.ts")).runRunnerProcess(rest);
    case "check-index":
      // Internal: walks the index file where a damaged page can do no harm.
      return await (await import("./check-index.ts")).runCheckIndex(rest);
    default:
      throw new UsageError(
        `Unknown command "${first}"; expected serve, doctor, sandbox, operations, stats, fsck, gc or ${Object.keys(TOOLS).join(", ")} (ledge --help)`,
      );
  }
}

async function runServe(args: readonly string[]): Promise<number> {
  return await (await import("./serve.ts")).runServe(args);
}

async function printHelp(): Promise<number> {
  process.stdout.write((await import("./help.ts")).helpText());
  return 0;
}

async function printVersion(): Promise<number> {
  process.stdout.write(`${(await import("./version.ts")).versionText()}\n`);
  return 0;
}
