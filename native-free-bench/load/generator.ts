// Issues calls and measures them: closed loop (connections × depth) or open loop (a fixed rate of arrivals).
//
// Invariant: in the open loop a latency counts from the moment the call was due, not from the moment it was sent, so a
// server that stalls is charged for every call that had to wait (coordinated omission). Calls of the warm-up are not
// counted. At most MAX_OUTSTANDING calls wait; arrivals beyond are counted as shed and never as fast.

import { Code } from "../../src/base/status.ts";
import { Histogram } from "./histogram.ts";
import type { CallResult, PreparedCall } from "./raw-connection.ts";

/** Both clients: raw frames and grpc-js. */
export interface LoadClient {
  readonly failure: string | undefined;
  call(prepared: PreparedCall, onDone: (result: CallResult) => void): void;
  close(): void;
}

export interface LoadShape {
  /** Calls in flight per connection, in the closed loop. */
  readonly depth: number;
  /** Arrivals per second over all connections; undefined is the closed loop. */
  readonly ratePerSecond: number | undefined;
  readonly warmUpMs: number;
  readonly durationMs: number;
  /** Ends the load at once; what it returns then is not to be used. */
  readonly signal?: AbortSignal | undefined;
}

export interface LoadResult {
  readonly calls: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly shed: number;
  readonly durationMs: number;
  readonly receivedBytes: number;
  readonly latency: Histogram;
  /** Calls that ended in each tenth of the time. */
  readonly timeline: readonly number[];
  readonly failure: string | undefined;
  /** The server's words at the first call that failed. */
  readonly firstError: string | undefined;
  /** Share of the time in which the generator's thread was busy, in the closed loop; open loops wait by looking. */
  readonly generatorBusy: number | undefined;
}

/** 10 s at 1,000 calls a second; more only says that the server does not keep up. */
const MAX_OUTSTANDING = 10_000;
const TIMELINE_SLOTS = 10;
/** After the end, calls in flight have this long before they count as failed. */
const DRAIN_MS = 10_000;

export async function generateLoad(
  clients: readonly LoadClient[],
  next: () => PreparedCall,
  shape: LoadShape,
): Promise<LoadResult> {
  const latency = new Histogram();
  const errors: Record<string, number> = {};
  const timeline = new Array<number>(TIMELINE_SLOTS).fill(0);
  let calls = 0;
  let shed = 0;
  let receivedBytes = 0;
  let outstanding = 0;
  let firstError: string | undefined;
  const busyBefore = performance.eventLoopUtilization();
  const beginMs = performance.now() + shape.warmUpMs;
  const endMs = beginMs + shape.durationMs;
  let drained: () => void = () => undefined;

  const issue = (client: LoadClient, dueMs: number, onNext: () => void): void => {
    outstanding++;
    const prepared = next();
    client.call(prepared, (result) => {
      outstanding--;
      const nowMs = performance.now();
      // What was due within the measured time counts, however late it ended: leaving it out would hide the worst.
      const counts =
        shape.ratePerSecond === undefined ? nowMs >= beginMs && nowMs < endMs : dueMs >= beginMs && dueMs < endMs;
      if (counts) {
        if (result.code === prepared.accepts) calls++;
        else if (result.code !== Code.OK) {
          errors[result.code] = (errors[result.code] ?? 0) + 1;
          firstError ??= result.message;
        } else if (result.receivedBytes >= (prepared.leastBytes ?? 0)) calls++;
        else {
          errors["short"] = (errors["short"] ?? 0) + 1;
          firstError ??= `${prepared.path} answered OK with ${result.receivedBytes} bytes, expected ${prepared.leastBytes} at least`;
        }
        receivedBytes += result.receivedBytes;
        latency.record((nowMs - dueMs) * 1000);
        const slot = Math.min(TIMELINE_SLOTS - 1, Math.floor(((nowMs - beginMs) / shape.durationMs) * TIMELINE_SLOTS));
        timeline[slot] = timeline[slot]! + 1;
      }
      onNext();
      // After the next call has begun: one connection of depth 1 is between two calls, not at its end.
      if (outstanding === 0) drained();
    });
  };

  const isOver = (client: LoadClient): boolean =>
    performance.now() >= endMs || client.failure !== undefined || shape.signal?.aborted === true;
  if (shape.ratePerSecond === undefined) {
    for (const client of clients) {
      const again = (): void => {
        if (!isOver(client)) issue(client, performance.now(), again);
      };
      for (let slot = 0; slot < shape.depth; slot++) again();
    }
  } else {
    const intervalMs = 1000 / shape.ratePerSecond;
    let dueMs = performance.now();
    let turn = 0;
    await new Promise<void>((resolve) => {
      const tick = (): void => {
        const nowMs = performance.now();
        for (; dueMs <= nowMs && dueMs < endMs; dueMs += intervalMs) {
          if (outstanding >= MAX_OUTSTANDING) shed++;
          else issue(clients[turn++ % clients.length]!, dueMs, () => undefined);
        }
        if (dueMs >= endMs || clients.every(isOver)) resolve();
        // A timer is a millisecond late; close to the next arrival it is cheaper to look again at once.
        else if (dueMs - nowMs > 2) setTimeout(tick, 1);
        else setImmediate(tick);
      };
      tick();
    });
  }
  const waitMs = Math.max(0, endMs - performance.now());
  const over = new AbortController();
  await Promise.race([
    new Promise<void>((resolve) => {
      drained = resolve;
      if (outstanding === 0) resolve();
    }),
    new Promise((resolve) => setTimeout(resolve, waitMs + DRAIN_MS).unref()),
    new Promise((resolve) => shape.signal?.addEventListener("abort", resolve, { signal: over.signal })),
  ]);
  over.abort();
  if (outstanding > 0) errors["unanswered"] = outstanding;
  const failure = clients.find((client) => client.failure !== undefined)?.failure;
  const generatorBusy =
    shape.ratePerSecond === undefined ? performance.eventLoopUtilization(busyBefore).utilization : undefined;
  const { durationMs } = shape;
  return { calls, errors, shed, durationMs, receivedBytes, latency, timeline, failure, firstError, generatorBusy };
}
