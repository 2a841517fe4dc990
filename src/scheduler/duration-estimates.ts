// How long actions of a kind took lately, so that the scheduler starts long ones early.
//
// A guess and nothing more: a wrong one costs order, never correctness. Kinds are remembered in memory, bounded, the
// least recently used one forgotten first.

import type { ActionJob } from "../worker/executor.ts";

/** A build of 10,000 targets has about as many kinds; forgetting one costs a guess. */
const MAX_KINDS = 16_384;
/** Weight of the newest run; at half of it a changed action takes twice as long to be known for it. */
const NEWEST_WEIGHT = 0.5;

export class DurationEstimates {
  readonly #averagesMs = new Map<string, number>();

  /** By target and mnemonic when it ran before, else by mnemonic; 0 when nothing is known. */
  estimateMs(job: ActionJob): number {
    for (const kind of kinds(job)) {
      const averageMs = this.#averagesMs.get(kind);
      if (averageMs !== undefined) return averageMs;
    }
    return 0;
  }

  learn(job: ActionJob, tookMs: number): void {
    for (const kind of kinds(job)) {
      const averageMs = this.#averagesMs.get(kind) ?? tookMs;
      this.#averagesMs.delete(kind);
      this.#averagesMs.set(kind, averageMs + NEWEST_WEIGHT * (tookMs - averageMs));
    }
    for (const kind of this.#averagesMs.keys()) {
      if (this.#averagesMs.size <= MAX_KINDS) return;
      this.#averagesMs.delete(kind);
    }
  }
}

/** The exact kind before the general one. Clients that say neither (no RequestMetadata) have none. */
function kinds({ targetId, actionMnemonic }: ActionJob): string[] {
  const names: string[] = [];
  if (targetId !== undefined) names.push(`${actionMnemonic ?? ""}\n${targetId}`);
  if (actionMnemonic !== undefined) names.push(actionMnemonic);
  return names;
}
