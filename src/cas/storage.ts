// Opens everything that stores: one call for the composition root, one object to close.

import { mkdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { ADDRESS_BYTES_PER_THREAD } from "../base/address-space.ts";
import { syncDirectory } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import { IngestPool } from "../compute/ingest-pool.ts";
import type { KeyValueStore } from "../kv/key-value-store.ts";
import { LazyStore } from "../kv/lazy-store.ts";
import type { Logger } from "../telemetry/log.ts";
import { MetricsRegistry } from "../telemetry/metrics.ts";
import { AccessLog } from "./access-log.ts";
import { BackgroundScrubber } from "./background-scrubber.ts";
import type { BlobStore } from "./blob-store.ts";
import { Chunking } from "./chunking.ts";
import { checkDataVersion } from "./data-version.ts";
import { adoptFiles, isAdoptionPending, requestAdoption } from "./file-adoption.ts";
import { migrateEntries } from "./entry-migration.ts";
import { FileStore, type Durability } from "./file-store.ts";
import { markCleanStop, markRebuilt, markServing, openIndex, SERVING_AFTER_MS } from "./index-recovery.ts";
import { shrinkIndex } from "./index-shrinking.ts";
import { NO_LEASE } from "./lease-context.ts";
import { LocalBlobStore } from "./local-blob-store.ts";
import { LocalOpaqueStore } from "./local-opaque-store.ts";
import { LocalValueStore } from "./local-value-store.ts";
import { MemoryBlobStore } from "./memory-blob-store.ts";
import { MemoryOpaqueStore } from "./memory-opaque-store.ts";
import { MemoryValueStore } from "./memory-value-store.ts";
import type { OpaqueStore } from "./opaque-store.ts";
import { sweepOrphans } from "./orphan-sweep.ts";
import { ReservedStore } from "./reserved-store.ts";
import { scrub, type ScrubOptions, type ScrubReport } from "./scrub.ts";
import { SpaceGuard } from "./space-guard.ts";
import { reportStorage, type StorageReport } from "./storage-report.ts";
import { StoreCore } from "./store-core.ts";
import type { ValueStore } from "./value-store.ts";

export interface StorageOptions {
  /** Absolute; `:memory:` keeps everything in memory, without native code. */
  readonly dataDir: string;
  readonly maxSizeBytes: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  /** Entries asked for within this time are not evicted; uploads are refused instead. */
  readonly protectRecentMs?: number;
  /** How long what an invocation touched stays after its last call; 0 or absent = no leases. */
  readonly leaseMs?: number;
  /** lazy: answers before what was written is on the disk; a crash may lose the last seconds, never tear a blob. */
  readonly durability?: Durability;
  /** What small uploads under way may keep in memory. */
  readonly intakeMemoryBytes?: number;
  /** Ingest threads; the number of cores when left out. */
  readonly threads?: number;
}

export interface StorageStats {
  readonly usedBytes: number;
  readonly maxSizeBytes: number;
  readonly entryCount: number;
  readonly openUploads: number;
  /** False while the index is still being read; everything is answered right meanwhile. */
  readonly isLoaded: boolean;
  readonly indexMemoryBytes: number;
}

export interface Storage {
  /** Notes a call of the invocation and returns its number for lease-context.ts. */
  readonly noteCall: (invocation: string) => number;
  readonly blobs: BlobStore;
  readonly opaque: OpaqueStore;
  /** What `StoredActionCache` of action-cache/ keeps its records in. */
  readonly values: ValueStore;
  /** SplitBlob and SpliceBlob. */
  readonly chunking: Chunking;
  stats(): StorageStats;
  /** Hashes everything again and drops what is damaged. */
  scrub(options?: ScrubOptions): Promise<ScrubReport>;
  /** Evicts the entries that were not asked for the longest time, of so many bytes. */
  evict(bytes: number): Promise<void>;
  /** Evicts until everything is within --max-size; resolves with the bytes on disk of what stays in the index file. */
  evictToLimits(): Promise<number>;
  /** Counts and bytes by kind, size and age. */
  report(): Promise<StorageReport>;
  /** Resolves when the index is in memory; nothing has to wait for it. */
  readonly loaded: Promise<void>;
  /** Ends uploads, writes what is pending, releases everything. Idempotent. */
  close(): Promise<void>;
}

/** A build that asked for a blob comes back to it within minutes; half of it would break builds on a full store. */
const DEFAULT_PROTECT_RECENT_MS = 10 * 60_000;

export const MEMORY_DATA_DIR = ":memory:";

export async function openStorage(options: StorageOptions): Promise<Storage> {
  if (options.dataDir === MEMORY_DATA_DIR) return openMemoryStorage(options);
  // Nobody is served yet, so nothing is leased and nothing was asked for just now.
  const openAlone = () =>
    openLocalStorage({ ...options, protectRecentMs: 0, leaseMs: 0, metrics: new MetricsRegistry() });
  await shrinkIndex({ ...options, openAlone });
  return openLocalStorage(options);
}

function openMemoryStorage(options: StorageOptions): Storage {
  // A third each: the twins do not share a limit, and no kind can starve another.
  const maxBytes = Math.floor(options.maxSizeBytes / 3);
  const blobs = new MemoryBlobStore({ maxBytes });
  const opaque = new MemoryOpaqueStore({ maxBytes, clock: options.clock });
  const values = new MemoryValueStore({ maxBytes });
  const stats = (): StorageStats => ({
    usedBytes: blobs.bytes + opaque.bytes + values.bytes,
    maxSizeBytes: options.maxSizeBytes,
    entryCount: blobs.count + opaque.count + values.count,
    openUploads: 0,
    isLoaded: true,
    indexMemoryBytes: 0,
  });
  registerGauges(options.metrics, stats);
  return {
    noteCall: () => NO_LEASE,
    blobs,
    opaque,
    values,
    chunking: new Chunking({ blobs, values, chunkFile: async () => [] }),
    stats,
    // Memory is not scrubbed, and evicts by itself.
    scrub: async () => ({ checkedEntries: 0, checkedBytes: 0, damaged: [] }),
    evict: async () => undefined,
    evictToLimits: async () => 0,
    report: async () => ({ kinds: [], sizes: [], ages: [] }),
    loaded: Promise.resolve(),
    close: async () => undefined,
  };
}

async function openLocalStorage(options: StorageOptions): Promise<Storage> {
  const { dataDir, clock, logger, metrics } = options;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await checkDataVersion(dataDir);
  const files = await FileStore.open(dataDir, options.durability);
  const indexFilePath = join(dataDir, "index.mdb");
  const {
    store: lmdb,
    isRebuilt,
    wasUnclean,
  } = await openIndex({
    dataDir,
    path: indexFilePath,
    maxStoredBytes: options.maxSizeBytes,
    reservedAddressBytes: (options.threads ?? availableParallelism()) * ADDRESS_BYTES_PER_THREAD,
    logger,
    metrics,
  });
  const beforeCommit = () => files.syncCommitted();
  const reserved = new ReservedStore({ inner: lmdb, path: join(dataDir, "reserve"), clock, logger });
  const store = options.durability === "lazy" ? new LazyStore({ inner: reserved, beforeCommit, logger }) : reserved;
  if (isRebuilt) {
    await requestAdoption(reserved);
    await markRebuilt(dataDir);
  }
  await migrateEntries(reserved, logger);
  await syncDirectory(dataDir); // the index file's name, before anything in it is acknowledged
  const ingest = new IngestPool(options.threads === undefined ? {} : { threads: options.threads });
  const guard = new SpaceGuard({ directory: dataDir, clock });
  const core = new StoreCore({
    store,
    files,
    ingest,
    guard,
    maxSizeBytes: options.maxSizeBytes,
    protectRecentMs: options.protectRecentMs ?? DEFAULT_PROTECT_RECENT_MS,
    leaseMs: options.leaseMs ?? 0,
    indexFilePath,
    indexMapBytes: lmdb.mapSizeBytes,
    clock,
    logger,
    metrics,
  });
  const { intakeMemoryBytes } = options;
  const blobs = new LocalBlobStore(core, intakeMemoryBytes === undefined ? {} : { intakeMemoryBytes });
  const values = new LocalValueStore(core);
  const opaque = new LocalOpaqueStore({ blobs, values, clock });
  const chunking = new Chunking({ blobs, values, chunkFile: (fn, path, params) => ingest.chunkFile(fn, path, params) });
  const accessLog = new AccessLog({ table: core.table, store, clock, logger });
  const scrubber = new BackgroundScrubber({ core, clock, logger, metrics });
  let isClosing = false;
  let marking: Promise<void> = Promise.resolve();
  const cancelMark = clock.schedule(SERVING_AFTER_MS, () => (marking = markServing(dataDir)));
  const syncMark = wasUnclean ? accessLog.syncMark : undefined;
  const loaded = loadIndex({ core, accessLog, logger });
  const isStopped = () => isClosing;
  const abort = new AbortController();
  const swept = loaded
    .then(() => checkRecent({ core, clock, logger, syncMark, signal: abort.signal }))
    .then(() => sweep({ core, store, logger, isStopped }));
  const stats = (): StorageStats => ({
    usedBytes: core.usedBytes,
    maxSizeBytes: options.maxSizeBytes,
    entryCount: core.table.index.count,
    openUploads: blobs.openUploads,
    isLoaded: core.table.isLoaded,
    indexMemoryBytes: core.table.index.bytes,
  });
  registerGauges(metrics, stats);
  let closing: Promise<void> | undefined;
  const close = async () => {
    isClosing = true;
    abort.abort();
    cancelMark();
    await marking;
    core.table.stop();
    await Promise.all([swept, scrubber.close()]);
    await blobs.close();
    await accessLog.close();
    await core.table.drain();
    await files.close();
    await store.close();
    await ingest.close();
    await markCleanStop(dataDir);
  };
  return {
    noteCall: (invocation) => core.table.invocations.noteCall(invocation),
    blobs,
    opaque,
    values,
    chunking,
    stats,
    scrub: (scrubOptions) => loaded.then(() => scrub(core, clock, scrubOptions)),
    evict: (bytes) => loaded.then(() => core.evict(bytes)),
    evictToLimits: async () => {
      await loaded;
      await core.evictToLimits();
      return core.table.inlineDiskBytes;
    },
    report: () => loaded.then(() => reportStorage(core)),
    loaded,
    close: () => (closing ??= close()),
  };
}

async function loadIndex(options: { core: StoreCore; accessLog: AccessLog; logger: Logger }): Promise<void> {
  try {
    await options.core.table.load();
    await options.accessLog.start();
  } catch (error) {
    // Look-ups go on to ask the disk; what the scan could not read is missed or refused one by one.
    options.logger.error("cannot read the whole index", { reason: String(error) });
  }
}

/**
 * After a stop that was not clean: what had been stored or asked for since the last mark is hashed again, so that nobody is
 * told of a blob that did not reach the disk. Reads check their bytes meanwhile, as always.
 */
async function checkRecent(options: {
  core: StoreCore;
  clock: Clock;
  logger: Logger;
  syncMark: number | undefined;
  signal: AbortSignal;
}): Promise<void> {
  const { core, clock, logger, syncMark, signal } = options;
  if (syncMark === undefined || !core.table.isLoaded) return;
  try {
    const { checkedEntries, damaged } = await scrub(core, clock, { sinceAccess: syncMark, signal });
    logger.info("checked what was stored shortly before the last stop", {
      entries: checkedEntries,
      damaged: damaged.length,
    });
  } catch (error) {
    logger.error("cannot check what was stored shortly before the last stop", { reason: String(error) });
  }
}

/** Files without an entry: adopted after the index was made anew, removed otherwise. */
async function sweep(options: {
  core: StoreCore;
  store: KeyValueStore;
  logger: Logger;
  isStopped: () => boolean;
}): Promise<void> {
  const { core, store, logger, isStopped } = options;
  if (!core.table.isLoaded) return;
  try {
    if (isAdoptionPending(store)) {
      const { adopted, quarantined } = await adoptFiles(core, store, isStopped);
      logger.warn("looked through the files for blobs whose records were lost", { adopted, quarantined });
    } else {
      const removed = await sweepOrphans(core, isStopped);
      if (removed > 0) logger.info("removed files that no entry named", { count: removed });
    }
  } catch (error) {
    logger.error("cannot look through the files", { reason: String(error) });
  }
}

function registerGauges(metrics: MetricsRegistry, stats: () => StorageStats): void {
  metrics.gauge(
    "ledge_store_used_bytes",
    "Bytes on disk taken by blobs, action results and values",
    () => stats().usedBytes,
  );
  metrics.gauge("ledge_store_limit_bytes", "The size limit (--max-size)", () => stats().maxSizeBytes);
  metrics.gauge("ledge_store_entries", "Blobs, action results and values", () => stats().entryCount);
  metrics.gauge("ledge_open_uploads", "Streamed uploads under way", () => stats().openUploads);
}
