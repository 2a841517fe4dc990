// `ledge doctor`: runs every check of doctor-checks.ts and says what each failing one costs and how to mend it.

import { allowAssetsBelow } from "../base/embedded-assets.ts";
import { CHECKS, type CheckResult } from "./doctor-checks.ts";
import { readServeArguments } from "./serve-config.ts";
import { versionText } from "./version.ts";

/** Returns 0 when nothing failed, else 1. Takes the flags of `serve`, so that it looks where that server would. */
export async function runDoctor(args: readonly string[]): Promise<number> {
  const { config } = readServeArguments(args);
  if (config.dataDir !== ":memory:") allowAssetsBelow(config.dataDir);
  process.stdout.write(`${versionText()}, data directory ${config.dataDir}\n\n`);
  let failed = 0;
  for (const { name, check } of CHECKS) {
    const result = await check(config).catch((error: unknown): CheckResult => ({
      ok: false,
      found: error instanceof Error ? error.message : String(error),
      cost: "unknown: the check itself failed",
      remedy: "see the message",
    }));
    if (!result.ok) failed++;
    process.stdout.write(renderCheck(name, result));
  }
  process.stdout.write(failed === 0 ? "\nEverything is there.\n" : `\n${failed} of ${CHECKS.length} checks failed.\n`);
  return failed === 0 ? 0 : 1;
}

function renderCheck(name: string, result: CheckResult): string {
  const line = `${result.ok ? "ok  " : "FAIL"}  ${name.padEnd(18)}${result.found}\n`;
  if (result.ok) return line;
  return `${line}      ${"".padEnd(18)}costs: ${result.cost}\n      ${"".padEnd(18)}mend:  ${result.remedy}\n`;
}
