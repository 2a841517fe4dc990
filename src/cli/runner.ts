// `ledge runner`, the internal subcommand that the server starts: nothing but the runner process.

import { runRunnerProcess as run } from "../runner/runner-process.ts";
import { UsageError } from "./flag.ts";

/** Serves the inherited socket until the server is gone; returns the exit code. */
export async function runRunnerProcess(args: readonly string[]): Promise<number> {
  if (args.length > 0) throw new UsageError(`ledge runner takes no arguments, got ${JSON.stringify(args[0])}`);
  return run();
}
