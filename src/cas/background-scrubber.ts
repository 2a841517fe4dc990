// Runs the scrubber again and again while the server is up.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { scrub } from "./scrub.ts";
import type { StoreCore } from "./store-core.ts";

/** A hundredth of what a disk gives: 100 GiB take three hours. */
const BYTES_PER_SECOND = 10 * 1024 * 1024;
/** After a start others have more urgent things to read. */
const FIRST_AFTER_MS = 5 * 60_000;
const AGAIN_AFTER_MS = 24 * 60 * 60_000;

export class BackgroundScrubber {
  readonly #core: StoreCore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #abort = new AbortController();
  #cancelTimer: () => void;
  #running: Promise<void> = Promise.resolve();

  constructor(options: { core: StoreCore; clock: Clock; logger: Logger; metrics: MetricsRegistry }) {
    this.#core = options.core;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#cancelTimer = this.#clock.schedule(FIRST_AFTER_MS, () => this.#start());
  }

  async close(): Promise<void> {
    this.#cancelTimer();
    this.#abort.abort();
    await this.#running;
  }

  #start(): void {
    this.#running = this.#run().catch((error: unknown) => {
      this.#logger.error("the scrubber stopped", { reason: String(error) });
    });
  }

  async #run(): Promise<void> {
    const report = await scrub(this.#core, this.#clock, {
      bytesPerSecond: BYTES_PER_SECOND,
      signal: this.#abort.signal,
    });
    if (this.#abort.signal.aborted) return;
    this.#logger.info("scrubbed the store", {
      entries: report.checkedEntries,
      bytes: report.checkedBytes,
      damaged: report.damaged.length,
    });
    this.#cancelTimer = this.#clock.schedule(AGAIN_AFTER_MS, () => this.#start());
  }
}
