// What one connection may do to us (section 5.1): token buckets, refilled lazily from the time of the current read.
//
// Invariant: every cheap thing a peer can do without end is charged to some budget, and running dry ends the connection
// with ENHANCE_YOUR_CALM. The numbers are generous: several clients behind one proxy share a connection, and other
// servers had to raise theirs (nghttp2's glitch rate tenfold within months). Each budget that runs dry is counted.

import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import { ErrorCode } from "./error-code.ts";
import { ConnectionError } from "./frame.ts";

export interface BudgetLimit {
  readonly name: string;
  readonly burst: number;
  readonly refillPerSecond: number;
}

export const SETTINGS_BUDGET: BudgetLimit = { name: "settings", burst: 100, refillPerSecond: 2 }; // L-1
export const PING_BUDGET: BudgetLimit = { name: "pings", burst: 200, refillPerSecond: 10 }; // L-2
export const GLITCH_BUDGET: BudgetLimit = { name: "glitches", burst: 10_000, refillPerSecond: 330 }; // L-3
export const RESET_BUDGET: BudgetLimit = { name: "resets", burst: 1000, refillPerSecond: 33 }; // L-7
export const STREAM_ERROR_BUDGET: BudgetLimit = { name: "stream_errors", burst: 200, refillPerSecond: 200 / 30 }; // L-10
export const EMPTY_DATA_BUDGET: BudgetLimit = { name: "empty_data", burst: 100, refillPerSecond: 100 / 60 }; // L-11

export class TokenBucket {
  readonly #limit: BudgetLimit;
  #tokens: number;
  #atMs: number;

  constructor(limit: BudgetLimit, nowMs: number) {
    this.#limit = limit;
    this.#tokens = limit.burst;
    this.#atMs = nowMs;
  }

  /** Takes one token; false when there is none. */
  take(nowMs: number): boolean {
    const { burst, refillPerSecond } = this.#limit;
    this.#tokens = Math.min(burst, this.#tokens + ((nowMs - this.#atMs) * refillPerSecond) / 1000);
    this.#atMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  /** Gives one token back. */
  give(): void {
    if (this.#tokens < this.#limit.burst) this.#tokens++;
  }
}

/** Counts what limits did, over all connections of a transport. */
export class LimitCounters {
  readonly #metrics: MetricsRegistry;
  readonly #counters = new Map<string, Counter>();

  constructor(metrics: MetricsRegistry) {
    this.#metrics = metrics;
  }

  count(limit: string): void {
    let counter = this.#counters.get(limit);
    if (counter === undefined) {
      counter = this.#metrics.counter("ledge_http2_limits_reached_total", "HTTP/2 limits that peers reached.", {
        limit,
      });
      this.#counters.set(limit, counter);
    }
    counter.value++;
  }
}

/** The budgets of one connection. Buckets are made when first charged, so that a quiet connection has none. */
export class ConnectionBudgets {
  readonly #counters: LimitCounters;
  #buckets: Map<string, TokenBucket> | undefined;
  /** Streams opened, DATA frames sent, PRIORITY and WINDOW_UPDATE frames received: over the connection's life. */
  streamsOpened = 0;
  dataFramesSent = 0;
  #priorities = 0;
  #windowUpdates = 0;
  #earlyResets = 0;

  constructor(counters: LimitCounters) {
    this.#counters = counters;
  }

  /** Charges `limit`; throws when it is spent. */
  charge(limit: BudgetLimit, nowMs: number): void {
    if (!this.#bucket(limit, nowMs).take(nowMs)) this.#exceeded(limit.name, limit.name);
  }

  /** L-2: frames that we send show that the peer's pings measure something. */
  refundPing(): void {
    this.#buckets?.get(PING_BUDGET.name)?.give();
  }

  /** L-2 answers with the text that gRPC clients know (G-52). */
  chargePing(nowMs: number): void {
    if (!this.#bucket(PING_BUDGET, nowMs).take(nowMs)) this.#exceeded(PING_BUDGET.name, "too_many_pings");
  }

  chargePriority(): void {
    if (++this.#priorities > 100 * (1 + this.streamsOpened)) this.#exceeded("priority", "too many PRIORITY frames");
  }

  /**
   * L-5. The document's 5 + 2 × (streams + 10 × DATA frames sent) ends a client that credits a long upload's
   * responses in small steps only after years; a floor of 1000 keeps conformance tools and probing clients alive.
   */
  chargeWindowUpdate(): void {
    const allowed = 1000 + 2 * (this.streamsOpened + 10 * this.dataFramesSent);
    if (++this.#windowUpdates > allowed) this.#exceeded("window_updates", "too many WINDOW_UPDATE frames");
  }

  /** L-7 and L-8: a reset before the response began; `early` = within a second of opening. */
  chargeReset(nowMs: number, early: boolean): void {
    this.charge(RESET_BUDGET, nowMs);
    if (early) this.#earlyResets++;
    if (this.streamsOpened > 500 && this.#earlyResets * 2 > this.streamsOpened) {
      this.#exceeded("premature_resets", "more than half of the streams were reset early");
    }
  }

  #bucket(limit: BudgetLimit, nowMs: number): TokenBucket {
    this.#buckets ??= new Map();
    let bucket = this.#buckets.get(limit.name);
    if (bucket === undefined) {
      bucket = new TokenBucket(limit, nowMs);
      this.#buckets.set(limit.name, bucket);
    }
    return bucket;
  }

  #exceeded(name: string, text: string): never {
    this.#counters.count(name);
    throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, text);
  }
}
