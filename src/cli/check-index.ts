// `ledge check-index`, an internal subcommand: a start after an unclean stop walks the index file in this process.

import { runIndexCheck } from "../cas/index-check.ts";

export async function runCheckIndex(args: readonly string[]): Promise<number> {
  return runIndexCheck(args);
}
