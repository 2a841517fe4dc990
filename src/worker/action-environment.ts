// The environment an action gets: the Command's variables, a PATH where it has none, then what properties add.
//
// Invariant: nothing of the server's own environment reaches an action (docs/decisions/0004).

import type { EnvironmentVariable } from "./action-command.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** `added` wins over `own`; of repeated names the last one. */
export function actionEnvironment(
  own: readonly EnvironmentVariable[],
  added: readonly EnvironmentVariable[],
): EnvironmentVariable[] {
  const values = new Map([["PATH", DEFAULT_PATH]]);
  for (const { name, value } of [...own, ...added]) values.set(name, value);
  return [...values].map(([name, value]) => ({ name, value }));
}
