// How often an idle client may ping (G-50 to G-52): keepalive is welcome, pinging for its own sake is not.

import type { LimitCounters } from "./budgets.ts";
import { ErrorCode } from "./error-code.ts";
import { ConnectionError } from "./frame.ts";

/** Allowed every 10 s, also with no stream open; a second of slack for clients whose timers are early. */
const MIN_INTERVAL_MS = 9_000;
const MAX_STRIKES = 2;

export class PingPolicy {
  #lastValidMs = Number.NEGATIVE_INFINITY;
  #strikes = 0;

  /** `sentSince` = we have sent HEADERS or DATA since the last ping, so this one may measure their way (G-51). */
  onPing(nowMs: number, sentSince: boolean, limits: LimitCounters): void {
    if (sentSince || nowMs - this.#lastValidMs >= MIN_INTERVAL_MS) {
      if (sentSince) this.#strikes = 0;
      this.#lastValidMs = nowMs;
      return;
    }
    if (++this.#strikes <= MAX_STRIKES) return;
    limits.count("ping_strikes");
    // The text is an agreement: gRPC clients double their keepalive time when they read it.
    throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings");
  }
}
