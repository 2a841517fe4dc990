// Loaded into a server from source (`node --import`): measures how late its event loop is, and why.
//
// SIGUSR2 writes what was measured since the last one to LOOP_DELAY_FILE, as one line of JSON. What the server would begin
// after five minutes, the scrubber, begins at once, so that a run of a minute has it.

import { appendFileSync } from "node:fs";
import { monitorEventLoopDelay, PerformanceObserver } from "node:perf_hooks";

const FIRST_SCRUB_MS = 5 * 60_000;
const path = process.env["LOOP_DELAY_FILE"] ?? "";
const delay = monitorEventLoopDelay({ resolution: 1 });
let collections: number[] = [];

new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) collections.push(duration);
}).observe({ entryTypes: ["gc"] });

const original = globalThis.setTimeout;
globalThis.setTimeout = Object.assign(
  (callback: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) =>
    original(callback, ms === FIRST_SCRUB_MS ? 0 : ms, ...args),
  original,
) as typeof setTimeout;

process.on("SIGUSR2", () => {
  const line = {
    count: delay.count,
    p50: delay.percentile(50) / 1e6,
    p99: delay.percentile(99) / 1e6,
    p999: delay.percentile(99.9) / 1e6,
    max: delay.max / 1e6,
    collections: collections.length,
    longestCollection: Math.max(0, ...collections),
  };
  appendFileSync(path, `${JSON.stringify(line)}\n`);
  delay.reset();
  collections = [];
});
delay.enable();
