// The key-value store on LMDB, with commits shared by everybody who writes at the time.
//
// Invariant: a resolved write is on disk. LMDB is opened with overlappingSync and eventTurnBatching off and never with
// noSync or useWritemap: then a commit has synced before its promise resolves, and a failed one rejects a promise
// instead of ending the process (seen with strace, DESIGN.md section 4). After a failure other than a full disk nothing is
// written any more: what a failed sync has lost cannot be known. Only this file knows that package.

import { accessSync, constants, statfsSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { Code, StatusError } from "../base/status.ts";
import { formatBytes } from "../base/units.ts";
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

/** How long a failed commit may take to say why. */
const REASON_MS = 500;
/** A commit that takes longer has failed without a word; slow disks take seconds. */
const COMMIT_TIMEOUT_MS = 60_000;
/** How long a store that broke may take to close. */
const CLOSE_BROKEN_MS = 1000;

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
  /** Why nothing is written any more; undefined while all is well. */
  #failure: StatusError | undefined;
  /** Rejects with it, and never resolves. */
  readonly #broken = Promise.withResolvers<never>();

  private constructor(options: LmdbStoreOptions, database: LmdbDatabase, mapSizeBytes: number) {
    this.#path = options.path;
    this.mapSizeBytes = mapSizeBytes;
    this.#database = database;
    this.#broken.promise.catch(() => undefined); // commits under way hear of it, when there are any
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
    try {
      return this.#database.getBinary(key);
    } catch (error) {
      throw explainRead(error);
    }
  }

  /** Keys there should be, as LMDB counts them. */
  get entryCount(): number {
    this.#assertOpen();
    return this.#database.getStats().entryCount;
  }

  borrow(key: Uint8Array): BorrowedValue | undefined {
    assertKey(key);
    this.#assertOpen();
    const bytes = this.#borrowBytes(key);
    if (bytes === undefined) return undefined;
    // Never seen otherwise, but the package has a path on which it hands out plain arrays.
    this.#borrowed.bytes = Buffer.isBuffer(bytes) ? bytes : asBuffer(bytes);
    this.#borrowed.length = this.#database.lastSize;
    return this.#borrowed;
  }

  /** One buffer for all reads, longer than the value; a large value has a buffer of its own. */
  #borrowBytes(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#database.getBinaryFast(key);
    } catch (error) {
      throw explainRead(error);
    }
  }

  write(operations: readonly KeyValueOperation[]): Promise<void> {
    for (const operation of operations) assertKey(operation.key);
    this.#assertOpen();
    if (operations.length === 0) return Promise.resolve();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
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
    const closing = this.#database.close();
    if (this.#failure === undefined) return closing;
    // It may wait for a commit that never ends; what was committed is on the disk.
    await Promise.race([
      closing.catch(() => undefined),
      new Promise((resolve) => setTimeout(resolve, CLOSE_BROKEN_MS)),
    ]);
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
    let timer: NodeJS.Timeout | undefined;
    try {
      this.#assertWritable(group);
      const batch = this.#database.batch(() => this.#apply(group));
      batch.catch(underlyingError); // the race may be over when it fails
      timer = setTimeout(() => this.#break(internal("a commit did not end")), COMMIT_TIMEOUT_MS);
      const committed = await Promise.race([batch, this.#broken.promise]);
      if (!committed) throw new Error("LMDB did not commit");
      this.#commits?.add();
      for (const write of group) write.resolve();
    } catch (error) {
      const status = await this.#explain(error);
      // The package leaves the promises of later commits open for good, and what a failed sync lost cannot be known.
      if (status.code === Code.INTERNAL) this.#break(status);
      for (const write of group) write.reject(status);
    } finally {
      clearTimeout(timer);
      this.#commitsInFlight--;
      if (this.#pending.length > 0) this.#scheduleFlush();
      else for (const wake of this.#idleWaiters.splice(0)) wake();
    }
  }

  /**
   * Throws on a file system that became read-only or has no room for the commit. LMDB would find out by itself, but says
   * EIO for both, and after that nothing is written any more.
   */
  #assertWritable(group: readonly PendingWrite[]): void {
    try {
      accessSync(this.#path, constants.W_OK);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StatusError(Code.UNAVAILABLE, `Cannot write to the index: ${reason}; reads go on`, { cause: error });
    }
    const { bavail, bsize, blocks } = statfsSync(dirname(this.#path));
    const neededBytes = roomFor(group, blocks * bsize);
    if (bavail * bsize >= neededBytes) return;
    throw new StatusError(
      Code.RESOURCE_EXHAUSTED,
      `Cannot write to the index: the disk is full (${formatBytes(bavail * bsize)} left, ${formatBytes(neededBytes)} needed)`,
    );
  }

  /** From now on this store is only read from. */
  #break(status: StatusError): void {
    if (this.#failure !== undefined) return;
    this.#failure = status;
    this.#broken.reject(status);
    for (const write of this.#pending.splice(0)) write.reject(status);
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
    if (error instanceof StatusError) return error;
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
    return internal(cause.message, cause);
  }
}

/** After a failed write of its root page LMDB reads no more, until the file is opened again. */
function explainRead(error: unknown): unknown {
  // Its number is that of an invalid argument.
  if (!(error instanceof Error && error.message.includes("MDB_PANIC"))) return error;
  const message =
    "Cannot read the index: writing its root page has failed; what was stored is there when ledge is started again on a disk that works";
  return new StatusError(Code.UNAVAILABLE, message, { cause: error });
}

function internal(reason: string, cause?: unknown): StatusError {
  const message = `Cannot write to the index: ${reason}; writes are refused until ledge is started again on a disk that works`;
  return new StatusError(Code.INTERNAL, message, { cause });
}

/** What is left for others who write to the disk at the same time; on a small one a part of it. */
const MARGIN_BYTES = 8 * 1024 * 1024;
/** A delete copies a few pages, and so does a put beside its value. */
const BYTES_PER_OPERATION = 4096;
/** Deletes make room; they may use nearly all there is. */
const DELETE_MARGIN_BYTES = 256 * 1024;

function roomFor(group: readonly PendingWrite[], diskBytes: number): number {
  let bytes = 0;
  let puts = 0;
  let count = 0;
  for (const { operations } of group) {
    for (const operation of operations) {
      count++;
      if (operation.type === "delete" || operation.isSmaller === true) continue;
      puts++;
      bytes += operation.value.length;
    }
  }
  // Operations of one commit share most of the pages they copy.
  const copied = Math.min(count, 512) * BYTES_PER_OPERATION;
  if (puts === 0) return Math.min(copied, DELETE_MARGIN_BYTES);
  return bytes + copied + Math.min(MARGIN_BYTES, diskBytes / 32);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The package rejects with a wrapper whose `commitError` is a promise that rejects with the reason, or never settles. */
async function underlyingError(error: unknown): Promise<Error> {
  let reason: unknown = error;
  const commitError = (error as { commitError?: Promise<unknown> }).commitError;
  if (commitError !== undefined) {
    const patience = new Promise((resolve) => setTimeout(resolve, REASON_MS, error));
    reason = await Promise.race([commitError.then(() => error), patience]).catch((inner: unknown) => inner);
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
