// Uploads that were cut off, kept by name for a while so that they can go on where they stopped.
//
//            acquire                release(keep)             acquire
//   (none) ───────────► in use by a call ───────────► idle ───────────► in use …
//                          │ release(drop)              │ expired, or too many
//                          ▼                            ▼
//                       aborted                      aborted
//
// Invariant: an upload is written by one call at a time. What is idle holds no thread and no descriptor (BlobUpload),
// and is bounded in count and in bytes: the least recently used goes first.

import type { BlobUpload } from "../cas/blob-store.ts";
import type { Clock } from "../base/clock.ts";

export interface PartialUploadsOptions {
  readonly clock: Clock;
  /** Idle uploads; at half of it a fleet of 500 builders behind one broken link would start over. */
  readonly maxIdle?: number;
  /** Bytes received by idle uploads, all together. */
  readonly maxIdleBytes?: number;
  /** A client that has not come back by then retries from the start. Bazel gives up after minutes. */
  readonly maxIdleMs?: number;
}

const DEFAULT_MAX_IDLE = 1000;
const DEFAULT_MAX_IDLE_BYTES = 4 * 1024 ** 3;
const DEFAULT_MAX_IDLE_MS = 10 * 60_000;

interface Entry {
  readonly upload: BlobUpload;
  /** Set while a call writes it. */
  owner: Owner | undefined;
  idleSinceMs: number;
  /** What QueryWriteStatus said last: where a client may rightly go on, though more has arrived since. */
  reportedBytes: number;
}

interface Owner {
  /** Asks the call to give up the upload. */
  readonly interrupt: () => void;
  readonly released: Promise<void>;
}

export interface UploadLease {
  readonly upload: BlobUpload;
  /** Offsets at which a client may rightly begin, besides 0 and the bytes written. */
  readonly reportedBytes: number;
  /** Keeps what was received for a later call. */
  keep(): Promise<void>;
  /** Drops it; also right after the upload was finished. */
  drop(): Promise<void>;
}

export class PartialUploads {
  readonly #clock: Clock;
  readonly #maxIdle: number;
  readonly #maxIdleBytes: number;
  readonly #maxIdleMs: number;
  /** In order of last use, as far as idle ones are concerned. */
  readonly #entries = new Map<string, Entry>();
  #idleCount = 0;
  #idleBytes = 0;
  #cancelSweep: (() => void) | undefined;

  constructor(options: PartialUploadsOptions) {
    this.#clock = options.clock;
    this.#maxIdle = options.maxIdle ?? DEFAULT_MAX_IDLE;
    this.#maxIdleBytes = options.maxIdleBytes ?? DEFAULT_MAX_IDLE_BYTES;
    this.#maxIdleMs = options.maxIdleMs ?? DEFAULT_MAX_IDLE_MS;
  }

  get idleCount(): number {
    return this.#idleCount;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** Bytes received under this name so far, for QueryWriteStatus; 0 when nothing is known. */
  report(key: string): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) return 0;
    entry.reportedBytes = entry.upload.writtenBytes;
    return entry.reportedBytes;
  }

  /**
   * The upload of that name, or a new one. A call that begins at 0 while another call writes the same name gets one of
   * its own: two writers with one name are legal. A call that goes on takes the upload away from the one that holds it,
   * which most likely has lost its connection. `interrupt` is called when that happens to this call.
   */
  async acquire(
    key: string,
    options: { readonly resume: boolean; readonly open: () => Promise<BlobUpload>; readonly interrupt: () => void },
  ): Promise<UploadLease> {
    for (;;) {
      const entry = this.#entries.get(key);
      if (entry === undefined) break;
      if (entry.owner === undefined) return this.#own(key, this.#leaveIdle(entry), options.interrupt);
      if (!options.resume) break;
      entry.owner.interrupt();
      await entry.owner.released;
    }
    const upload = await options.open();
    return this.#own(key, { upload, owner: undefined, idleSinceMs: 0, reportedBytes: 0 }, options.interrupt);
  }

  /** Drops everything that is idle. */
  async close(): Promise<void> {
    this.#cancelSweep?.();
    const idle = [...this.#entries].filter(([, entry]) => entry.owner === undefined);
    await Promise.all(idle.map(([key, entry]) => this.#evict(key, entry)));
  }

  #own(key: string, entry: Entry, interrupt: () => void): UploadLease {
    const { promise: released, resolve } = Promise.withResolvers<void>();
    const owner: Owner = { interrupt, released };
    entry.owner = owner;
    if (!this.#entries.has(key)) this.#entries.set(key, entry);
    let isOver = false;
    const release = async (keep: boolean): Promise<void> => {
      if (isOver) return;
      isOver = true;
      entry.owner = undefined;
      try {
        await this.#settle(key, entry, keep);
      } finally {
        resolve();
      }
    };
    return {
      upload: entry.upload,
      reportedBytes: entry.reportedBytes,
      keep: () => release(true),
      drop: () => release(false),
    };
  }

  async #settle(key: string, entry: Entry, keep: boolean): Promise<void> {
    const registered = this.#entries.get(key);
    const isWorthKeeping = keep && entry.upload.writtenBytes > 0;
    if (registered === entry) this.#entries.delete(key);
    else if (registered !== undefined && isWorthKeeping) {
      // Two calls wrote under one name: the one still at work stays registered, of two idle ones the longer.
      if (registered.owner !== undefined || registered.upload.writtenBytes >= entry.upload.writtenBytes) {
        return entry.upload.abort();
      }
      await this.#evict(key, registered);
    }
    if (!isWorthKeeping) return entry.upload.abort();
    entry.idleSinceMs = this.#clock.monotonicMs();
    this.#entries.set(key, entry); // at the end: most recently used
    this.#idleCount++;
    this.#idleBytes += entry.upload.writtenBytes;
    await this.#enforceBounds();
  }

  #leaveIdle(entry: Entry): Entry {
    this.#idleCount--;
    this.#idleBytes -= entry.upload.writtenBytes;
    return entry;
  }

  async #enforceBounds(): Promise<void> {
    const expiredBeforeMs = this.#clock.monotonicMs() - this.#maxIdleMs;
    for (const [key, entry] of this.#entries) {
      if (entry.owner !== undefined) continue;
      const isOverBounds = this.#idleCount > this.#maxIdle || this.#idleBytes > this.#maxIdleBytes;
      if (!isOverBounds && entry.idleSinceMs > expiredBeforeMs) break;
      await this.#evict(key, entry);
    }
    if (this.#idleCount === 0) {
      this.#cancelSweep?.();
      this.#cancelSweep = undefined;
    } else if (this.#cancelSweep === undefined) {
      this.#cancelSweep = this.#clock.schedule(this.#maxIdleMs / 10, () => {
        this.#cancelSweep = undefined;
        void this.#enforceBounds(); // aborting reports nothing, and nobody waits for it
      });
    }
  }

  async #evict(key: string, entry: Entry): Promise<void> {
    this.#leaveIdle(entry);
    this.#entries.delete(key);
    await entry.upload.abort();
  }
}
