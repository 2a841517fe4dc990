// The key-value store on LMDB, with commits shared by everybody who writes at the time.
//
// Invariant: a resolved write is on disk. LMDB is opened with overlappingSync and eventTurnBatching off and never with
// noSync or useWritemap: then a commit has synced before its promise resolves, and a failed one rejects a promise
// instead of ending the process (seen with strace, DESIGN.md section 4). Only this file knows that package.

import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { Code, StatusError } from "../base/status.ts";
import { requireFromHere } from "../base/native-addon.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import { assertKey } from "./key-check.ts";
import type { BorrowedValue, KeyValueEntry, KeyValueOperation, KeyValueStore } from "./key-value-store.ts";
import { assertOpenable } from "./lmdb-file.ts";
import { chooseMapSize } from "./map-size.ts";

export interface LmdbStoreOptions {
  /** The data file; LMDB puts its lock file beside it. */
  readonly path: string;
  /** The most the store may take, entries outside this file included; the map is chosen for it. */
  readonly maxStoredBytes?: number;
  /** Address space that the process is going to need for other things, where that is limited. */
  readonly reservedAddressBytes?: number;
  readonly metrics?: MetricsRegistry;
}

/**
 * Two commits at once: while one syncs, the write thread fills the next. One alone left it idle between commits
 * (27,000 instead of 38,000 puts of 1 KiB a second); a third would only make groups smaller.
 */
const MAX_COMMITS_IN_FLIGHT = 2;

/** Bounds what one transaction pins in memory and how long its writer thread keeps a reader of new data waiting. */
const MAX_OPERATIONS_PER_COMMIT = 20_000;

interface LmdbDatabase {
  getBinary(key: Uint8Array): Buffer | undefined;
  getBinaryFast(key: Uint8Array): Uint8Array | undefined;
  /** Of the value of the last getBinaryFast(). */
  readonly lastSize: number;
  put(key: Uint8Array, value: Uint8Array): unknown;
  remove(key: Uint8Array): unknown;
  batch(action: () => void): Promise<boolean>;
  getRange(options: { start?: Uint8Array; end?: Uint8Array }): Iterable<{ key: Buffer; value: Buffer }>;
  getStats(): { readonly entryCount: number };
  getKeys(options: { start: Uint8Array; end: Uint8Array }): Iterable<Buffer>;
  close(): Promise<void>;
}

interface LmdbPackage {
  open(options: Readonly<Record<string, unknown>>): LmdbDatabase;
}

function lmdbPackage(): LmdbPackage {
  return requireFromHere("lmdb") as LmdbPackage;
}

interface PendingWrite {
  readonly operations: readonly KeyValueOperation[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class LmdbStore implements KeyValueStore {
  readonly #path: string;
  /** What the file can grow to. */
  readonly mapSizeBytes: number;
  readonly #database: LmdbDatabase;
  readonly #commits: Counter | undefined;
  readonly #operations: Counter | undefined;
  readonly #borrowed: { bytes: Buffer; length: number } = { bytes: Buffer.alloc(0), length: 0 };
  #pending: PendingWrite[] = [];
  #commitsInFlight = 0;
  #flushScheduled = false;
  #closed: Promise<void> | undefined;
  #idleWaiters: (() => void)[] = [];

  private constructor(options: LmdbStoreOptions, database: LmdbDatabase, mapSizeBytes: number) {
    this.#path = options.path;
    this.mapSizeBytes = mapSizeBytes;
    this.#database = database;
    this.#commits = options.metrics?.counter("ledge_lmdb_commits_total", "Transactions committed to the index");
    this.#operations = options.metrics?.counter("ledge_lmdb_operations_total", "Puts and deletes in those");
  }

  /** Throws where the library cannot be loaded, which says nothing about any data file. */
  static loadLibrary(): void {
    lmdbPackage();
  }

  /**
   * Throws DamagedIndexError for a file that is no LMDB file, and a StatusError when it is not the file's fault. No other
   * store of this process may have the file open: looking at it would drop the locks LMDB holds.
   */
  static open(options: LmdbStoreOptions): LmdbStore {
    const library = lmdbPackage();
    assertOpenable(options.path);
    const mapSize = chooseMapSize({
      path: options.path,
      maxStoredBytes: options.maxStoredBytes,
      reservedBytes: options.reservedAddressBytes,
    });
    const database = library.open({
      path: options.path,
      noSubdir: true,
      keyEncoding: "binary",
      encoding: "binary",
      cache: false,
      overlappingSync: false,
      eventTurnBatching: false,
      mapSize,
    });
    return new LmdbStore(options, database, mapSize);
  }

  get(key: Uint8Array): Uint8Array | undefined {
    assertKey(key);
    this.#assertOpen();
    return this.#database.getBinary(key);
  }

  /** Keys there should be, as LMDB counts them. */
  get entryCount(): number {
    this.#assertOpen();
    return this.#database.getStats().entryCount;
  }

  borrow(key: Uint8Array): BorrowedValue | undefined {
    assertKey(key);
    this.#assertOpen();
    // One buffer for all reads, longer than the value; a large value has a buffer of its own.
    const bytes = this.#database.getBinaryFast(key);
    if (bytes === undefined) return undefined;
    // Never seen otherwise, but the package has a path on which it hands out plain arrays.
    this.#borrowed.bytes = Buffer.isBuffer(bytes) ? bytes : asBuffer(bytes);
    this.#borrowed.length = this.#database.lastSize;
    return this.#borrowed;
  }

  write(operations: readonly KeyValueOperation[]): Promise<void> {
    for (const operation of operations) assertKey(operation.key);
    this.#assertOpen();
    if (operations.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#pending.push({ operations, resolve, reject });
      this.#scheduleFlush();
    });
  }

  *range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array } = {}): Iterable<KeyValueEntry> {
    this.#assertOpen();
    yield* this.#database.getRange({
      ...(options.from === undefined ? {} : { start: options.from }),
      ...(options.to === undefined ? {} : { end: options.to }),
    });
  }

  /** Keys with from <= key < to, ascending; values are not read. */
  *keys(options: { readonly from: Uint8Array; readonly to: Uint8Array }): Iterable<Uint8Array> {
    this.#assertOpen();
    yield* this.#database.getKeys({ start: options.from, end: options.to });
  }

  close(): Promise<void> {
    this.#closed ??= this.#drainAndClose();
    return this.#closed;
  }

  async #drainAndClose(): Promise<void> {
    while (this.#commitsInFlight > 0 || this.#pending.length > 0) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    }
    await this.#database.close();
  }

  #assertOpen(): void {
    if (this.#closed !== undefined)
      throw new StatusError(Code.UNAVAILABLE, "The index is closed: the server is stopping");
  }

  /** Waits for the end of the turn, so that everything the turn writes shares the commit. */
  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#commitsInFlight >= MAX_COMMITS_IN_FLIGHT) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      void this.#commitPending(); // never rejects: failures go to the writers
    });
  }

  async #commitPending(): Promise<void> {
    const group = this.#takeGroup();
    if (group.length === 0) return;
    this.#commitsInFlight++;
    try {
      const committed = await this.#database.batch(() => this.#apply(group));
      if (!committed) throw new Error("LMDB did not commit");
      this.#commits?.add();
      for (const write of group) write.resolve();
    } catch (error) {
      const status = await this.#explain(error);
      for (const write of group) write.reject(status);
    } finally {
      this.#commitsInFlight--;
      if (this.#pending.length > 0) this.#scheduleFlush();
      else for (const wake of this.#idleWaiters.splice(0)) wake();
    }
  }

  #takeGroup(): PendingWrite[] {
    let operations = 0;
    let count = 0;
    for (const write of this.#pending) {
      // A single write is atomic however large it is, so the first one always goes.
      if (count > 0 && operations + write.operations.length > MAX_OPERATIONS_PER_COMMIT) break;
      operations += write.operations.length;
      count++;
    }
    this.#operations?.add(operations);
    return this.#pending.splice(0, count);
  }

  /** All of it runs in one transaction, and so each write is whole. */
  #apply(group: readonly PendingWrite[]): void {
    for (const { operations } of group) {
      for (const operation of operations) {
        if (operation.type === "put") this.#database.put(operation.key, operation.value);
        else this.#database.remove(operation.key);
      }
    }
  }

  /** LMDB reports a full disk as EIO, so the file system is asked whether it is full or broken. */
  async #explain(error: unknown): Promise<StatusError> {
    const cause = await underlyingError(error);
    if (isFullDisk(cause) || (await isNearlyFull(dirname(this.#path)))) {
      return new StatusError(
        Code.RESOURCE_EXHAUSTED,
        `Cannot write to the index: the disk is full (${cause.message})`,
        {
          cause,
        },
      );
    }
    return new StatusError(Code.INTERNAL, `Cannot write to the index: ${cause.message}`, { cause });
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The package rejects with a wrapper whose `commitError` is a promise that rejects with the reason. */
async function underlyingError(error: unknown): Promise<Error> {
  let reason: unknown = error;
  const commitError = (error as { commitError?: Promise<unknown> }).commitError;
  if (commitError !== undefined) {
    reason = await commitError.then(
      () => error,
      (inner: unknown) => inner,
    );
  }
  return reason instanceof Error ? reason : new Error(String(reason));
}

function isFullDisk(error: Error): boolean {
  const code = (error as { code?: unknown }).code;
  const ENOSPC = 28;
  const EDQUOT = 122;
  const MDB_MAP_FULL = -30_792;
  return code === ENOSPC || code === EDQUOT || code === MDB_MAP_FULL || code === "ENOSPC" || code === "EDQUOT";
}

/** Below this a commit of a few MiB cannot be trusted to fit, whatever the error said. */
const NEARLY_FULL_BYTES = 4 * 1024 * 1024;

async function isNearlyFull(directory: string): Promise<boolean> {
  try {
    const stats = await statfs(directory);
    return stats.bavail * stats.bsize < NEARLY_FULL_BYTES;
  } catch {
    return false; // the first error is the one to report
  }
}
