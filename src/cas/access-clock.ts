// Time of last access as a number of 32 bits: quarter seconds since 2024, never backwards.
//
// It follows the monotonic clock from where the wall clock stood at start (or from the newest stored access, when that
// is later), so that a jump of the wall clock neither makes everything old nor everything new.

import type { Clock } from "../base/clock.ts";

export const TICK_MS = 250;
const EPOCH_MS = Date.UTC(2024, 0, 1);
const MAX_TICK = 2 ** 32 - 1;

export class AccessClock {
  readonly #clock: Clock;
  #originTick: number;
  readonly #originMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#originMs = clock.monotonicMs();
    this.#originTick = Math.max(1, Math.floor((clock.nowMs() - EPOCH_MS) / TICK_MS));
  }

  now(): number {
    const elapsed = Math.floor((this.#clock.monotonicMs() - this.#originMs) / TICK_MS);
    return Math.min(MAX_TICK, this.#originTick + elapsed);
  }

  /** Time goes on from `tick` at least: an access stored before the last stop is never newer than one from now on. */
  advanceTo(tick: number): void {
    const behind = tick - this.now();
    if (behind > 0) this.#originTick += behind;
  }
}
