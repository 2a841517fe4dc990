// A key-value store that can delete on a full disk: it keeps a file of some size, and gives it up when a delete finds no room.
//
// LMDB copies the pages it changes, so even a delete needs room; without the reserve a full disk could not evict.

import { statfsSync, statSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../base/clock.ts";
import { Code, StatusError } from "../base/status.ts";
import {
  makesRoom,
  type BorrowedValue,
  type KeyValueEntry,
  type KeyValueOperation,
  type KeyValueStore,
} from "../kv/key-value-store.ts";
import type { Logger } from "../telemetry/log.ts";

/** Room for some thousand evictions; on a small disk a part of it. */
const RESERVE_BYTES = 8 * 1024 * 1024;
const RESERVE_FRACTION = 1 / 64;
/** The reserve is not what fills a disk. */
const WANTED_FREE_FACTOR = 4;
const LOOK_EVERY_MS = 60_000;

export interface ReservedStoreOptions {
  readonly inner: KeyValueStore;
  /** Of the file that is given up. */
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class ReservedStore implements KeyValueStore {
  readonly #options: ReservedStoreOptions;
  readonly #inner: KeyValueStore;
  #cancelTimer: (() => void) | undefined;
  #filling: Promise<void>;

  constructor(options: ReservedStoreOptions) {
    this.#options = options;
    this.#inner = options.inner;
    this.#filling = this.#fill();
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#inner.get(key);
  }

  borrow(key: Uint8Array): BorrowedValue | undefined {
    return this.#inner.borrow(key);
  }

  range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array }): Iterable<KeyValueEntry> {
    return this.#inner.range(options);
  }

  write(operations: readonly KeyValueOperation[]): Promise<void> {
    const written = this.#inner.write(operations);
    if (!makesRoom(operations)) return written;
    return written.catch(async (error: unknown) => {
      if (!(error instanceof StatusError) || error.code !== Code.RESOURCE_EXHAUSTED) throw error;
      await this.#giveUp();
      return this.#inner.write(operations);
    });
  }

  async close(): Promise<void> {
    this.#cancelTimer?.();
    await this.#filling;
    this.#cancelTimer?.();
    await this.#inner.close();
  }

  async #giveUp(): Promise<void> {
    await this.#filling;
    this.#options.logger.warn("the disk is full; gives up the reserve, so that entries can be evicted");
    await rm(this.#options.path, { force: true });
    this.#cancelTimer ??= this.#options.clock.schedule(LOOK_EVERY_MS, () => {
      this.#cancelTimer = undefined;
      this.#filling = this.#fill();
    });
  }

  /** Makes the file where there is room for it, and looks again later where there is not. */
  async #fill(): Promise<void> {
    const { path } = this.#options;
    const { bavail, bsize, blocks } = statfsSync(dirname(path));
    const sizeBytes = Math.floor(Math.min(RESERVE_BYTES, blocks * bsize * RESERVE_FRACTION));
    if (statSync(path, { throwIfNoEntry: false })?.size === sizeBytes) return;
    if (bavail * bsize >= sizeBytes * WANTED_FREE_FACTOR && (await makeFile(path, sizeBytes))) return;
    this.#cancelTimer = this.#options.clock.schedule(LOOK_EVERY_MS, () => (this.#filling = this.#fill()));
  }
}

/** Of random bytes, which no file system packs; false when they do not fit. */
async function makeFile(path: string, sizeBytes: number): Promise<boolean> {
  const temporaryPath = `${path}.tmp`;
  try {
    const file = await open(temporaryPath, "w", 0o600);
    try {
      await file.writeFile(randomBytes(sizeBytes));
    } finally {
      await file.close();
    }
    await rename(temporaryPath, path);
    return true;
  } catch {
    await rm(temporaryPath, { force: true }).catch(() => undefined); // it is tried again
    return false;
  }
}
