// Says whether the file system has room to write, before it says ENOSPC.
//
// The size limit is the operator's word; the disk may be shared with others and fill up earlier. Below a reserve writes
// are refused and reads go on; the next look that finds more room lets writes in again. Nothing has to be restarted.

import { statfsSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import { formatBytes } from "../base/units.ts";
import { Code, StatusError, type StatusDetail } from "../base/status.ts";
import { RetryInfo } from "../proto/error_details.ts";

/** Between two looks at the disk; a fast writer brings some 100 MB meanwhile, which the reserve covers. */
const LOOK_EVERY_MS = 100;
/** Room for eviction to commit and for what arrives between two looks. */
const RESERVE_BYTES = 256 * 1024 * 1024;
/** On a small file system the reserve is this part of it. */
const RESERVE_FRACTION = 0.05;
const RETRY_AFTER_SECONDS = 5;

export interface SpaceGuardOptions {
  readonly directory: string;
  readonly clock: Clock;
  /** Replaced by tests. */
  readonly look?: (directory: string) => { readonly freeBytes: number; readonly totalBytes: number };
}

export class SpaceGuard {
  readonly #options: SpaceGuardOptions;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #missingBytes = 0;
  #freeBytes = 0;

  constructor(options: SpaceGuardOptions) {
    this.#options = options;
  }

  /** How far free space is below the reserve; 0 when writes are welcome. */
  missingBytes(): number {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#lookedAtMs >= LOOK_EVERY_MS) {
      this.#lookedAtMs = nowMs;
      const { freeBytes, totalBytes } = (this.#options.look ?? lookAtDisk)(this.#options.directory);
      this.#freeBytes = freeBytes;
      this.#missingBytes = Math.max(0, Math.min(RESERVE_BYTES, totalBytes * RESERVE_FRACTION) - freeBytes);
    }
    return this.#missingBytes;
  }

  assertRoom(): void {
    if (this.missingBytes() === 0) return;
    throw noRoom(`the file system has only ${formatBytes(this.#freeBytes)} left; reads go on`);
  }
}

/** RESOURCE_EXHAUSTED with a hint when to come back. */
export function noRoom(reason: string): StatusError {
  return new StatusError(Code.RESOURCE_EXHAUSTED, `Cannot store: ${reason}`, { details: [retryAfter()] });
}

function retryAfter(): StatusDetail {
  return {
    typeUrl: "type.googleapis.com/google.rpc.RetryInfo",
    value: RetryInfo.encode({ retryDelay: { seconds: RETRY_AFTER_SECONDS } }),
  };
}

function lookAtDisk(directory: string): { freeBytes: number; totalBytes: number } {
  const stats = statfsSync(directory);
  return { freeBytes: stats.bavail * stats.bsize, totalBytes: stats.blocks * stats.bsize };
}
