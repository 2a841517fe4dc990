// How this program starts itself again (the runner process) and what it was built from.
//
// Invariant: `process.execPath` with `selfArguments(x)` runs subcommand x of exactly this program, whether it runs as
// the single executable or from the source tree. Nothing else may assume one of the two.

import { isSea } from "node:sea";
import { fileURLToPath } from "node:url";

/** True in dist/ledge (also in its worker threads), false when Node runs the sources. */
export const runsAsExecutable: boolean = isSea();

/** The arguments that make `process.execPath` run `subcommand`. */
export function selfArguments(subcommand: string): string[] {
  if (runsAsExecutable) return [subcommand];
  return [fileURLToPath(new URL("../main.ts", import.meta.url)), subcommand];
}

export interface BuildInfo {
  readonly version: string;
  /** Abbreviated commit, with "-dirty" when the tree had changes; undefined when unknown. */
  readonly commit: string | undefined;
}

declare const LEDGE_BUILD_INFO: BuildInfo;

/** What build.ts wrote into the bundle; undefined when Node runs the sources. */
export function embeddedBuildInfo(): BuildInfo | undefined {
  return typeof LEDGE_BUILD_INFO === "undefined" ? undefined : LEDGE_BUILD_INFO;
}
