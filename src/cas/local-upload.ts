// One streamed upload of a blob whose digest is known: counts, verifies, and stores it when it is whole.

import { Code, StatusError } from "../base/status.ts";
import { digestMismatch, formatDigest, type Digest } from "../digest/digest.ts";
import type { BlobUpload } from "./blob-store.ts";
import type { Intake, Received } from "./intake.ts";
import { tooManyBytes } from "./read-bounds.ts";

export interface LocalUploadOptions {
  readonly digest: Digest;
  readonly intake: Intake;
  /** Stores verified bytes; the temporary file is its responsibility from then on. */
  readonly store: (received: Received) => Promise<void>;
  /** Gives back room and file of an upload that has ended, however it ended. */
  readonly release: () => Promise<void>;
  readonly nowMs: () => number;
}

export class LocalUpload implements BlobUpload {
  readonly #options: LocalUploadOptions;
  #state: "open" | "finishing" | "ended" = "open";
  #writing = 0;
  lastActivityMs: number;

  constructor(options: LocalUploadOptions) {
    this.#options = options;
    this.lastActivityMs = options.nowMs();
  }

  get writtenBytes(): number {
    return this.#options.intake.sizeBytes;
  }

  /** Nobody has written for a while and nothing is under way: may be expired. */
  get isIdle(): boolean {
    return this.#state === "open" && this.#writing === 0;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#assertOpen();
    const { digest, intake } = this.#options;
    const total = intake.sizeBytes + chunk.length;
    if (total > digest.sizeBytes) throw tooManyBytes(digest, total);
    this.lastActivityMs = this.#options.nowMs();
    this.#writing++;
    try {
      await intake.write(chunk);
    } catch (error) {
      // Bytes may be missing in the middle now, so there is nothing to resume.
      this.#writing--;
      await this.abort();
      throw error;
    }
    this.#writing--;
    this.lastActivityMs = this.#options.nowMs();
  }

  /** Gives back what memory a silent upload holds. */
  flush(): void {
    if (this.#state === "open") this.#options.intake.flush();
  }

  async finish(): Promise<void> {
    this.#assertOpen();
    this.#state = "finishing";
    const { digest, intake, store } = this.#options;
    try {
      const received = await intake.finish();
      if (received.hash !== digest.hash || received.sizeBytes !== digest.sizeBytes) {
        throw digestMismatch(digest, received.hash, received.sizeBytes);
      }
      await store(received);
    } finally {
      this.#state = "ended";
      await this.#options.release();
    }
  }

  async abort(): Promise<void> {
    if (this.#state !== "open") return;
    this.#state = "ended";
    await this.#options.release();
  }

  #assertOpen(): void {
    if (this.#state === "open") return;
    throw new StatusError(
      Code.ABORTED,
      `The upload of blob "${formatDigest(this.#options.digest)}" has ended: it was finished, failed, or idle for too long`,
    );
  }
}
