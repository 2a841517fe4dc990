// The uploads that are open, so that abandoned ones end.

import type { Clock } from "../base/clock.ts";
import type { LocalUpload } from "./local-upload.ts";

/** A client that lost its connection comes back within seconds; one silent for this long is gone. */
const IDLE_LIMIT_MS = 15 * 60_000;
const LOOK_EVERY_MS = 60_000;
/** A half-filled slab (1 MiB) of an upload silent for this long goes to its file: 1,000 of them would be 1 GiB. */
const FLUSH_AFTER_MS = 2000;
/** Each costs a few hundred bytes and what it received inline; beyond it the upload silent for longest ends. */
const MAX_OPEN_UPLOADS = 100_000;

export class UploadTable {
  readonly #clock: Clock;
  readonly #uploads = new Set<LocalUpload>();
  #cancelTimer: (() => void) | undefined;
  #cancelFlush: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get count(): number {
    return this.#uploads.size;
  }

  add(upload: LocalUpload): void {
    if (this.#uploads.size >= MAX_OPEN_UPLOADS) this.#endOldest();
    this.#uploads.add(upload);
    this.#cancelTimer ??= this.#clock.schedule(LOOK_EVERY_MS, () => this.#expire());
    this.#cancelFlush ??= this.#clock.schedule(FLUSH_AFTER_MS, () => this.#flush());
  }

  delete(upload: LocalUpload): void {
    this.#uploads.delete(upload);
  }

  async close(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelFlush?.();
    await Promise.all([...this.#uploads].map((upload) => upload.abort()));
  }

  #expire(): void {
    this.#cancelTimer = undefined;
    const oldestMs = this.#clock.monotonicMs() - IDLE_LIMIT_MS;
    for (const upload of this.#uploads) {
      if (upload.isIdle && upload.lastActivityMs <= oldestMs) void upload.abort(); // its files are discarded in the background
    }
    if (this.#uploads.size > 0) this.#cancelTimer = this.#clock.schedule(LOOK_EVERY_MS, () => this.#expire());
  }

  #flush(): void {
    this.#cancelFlush = undefined;
    const silentSinceMs = this.#clock.monotonicMs() - FLUSH_AFTER_MS;
    for (const upload of this.#uploads) {
      if (upload.isIdle && upload.lastActivityMs <= silentSinceMs) upload.flush();
    }
    if (this.#uploads.size > 0) this.#cancelFlush = this.#clock.schedule(FLUSH_AFTER_MS, () => this.#flush());
  }

  #endOldest(): void {
    let oldest: LocalUpload | undefined;
    for (const upload of this.#uploads) {
      if (upload.isIdle && (oldest === undefined || upload.lastActivityMs < oldest.lastActivityMs)) oldest = upload;
    }
    if (oldest !== undefined) void oldest.abort();
  }
}
