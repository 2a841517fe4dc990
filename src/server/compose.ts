// The composition root: every concrete class is constructed here and nowhere else, so the object graph is one page.
//
// What is closed is closed in the reverse order of construction. When to start and stop is lifecycle.ts.

import { CompletenessCheckingActionCache } from "../action-cache/completeness-checking-action-cache.ts";
import { StoredActionCache } from "../action-cache/stored-action-cache.ts";
import { systemClock } from "../base/clock.ts";
import type { BuildInfo } from "../base/self.ts";
import { AnnouncingBlobStore } from "../cas/announcing-blob-store.ts";
import { CHUNKING_PARAMS } from "../cas/chunking.ts";
import { openStorage, type StorageStats } from "../cas/storage.ts";
import { digestOf } from "../compute/hash.ts";
import { ZstdPool } from "../compute/zstd-pool.ts";
import type { ServerTransport } from "../grpc/server.ts";
import type { Service } from "../grpc/service.ts";
import { createServerTransport } from "../grpc/transport.ts";
import { createHttpCache } from "../http-cache/http-cache.ts";
import type { StorageStatus } from "../http-cache/status-page.ts";
import { createActionCacheService } from "../services/action-cache.ts";
import { createByteStreamService } from "../services/byte-stream.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import { createCapabilitiesService } from "../services/capabilities.ts";
import { createContentAddressableStorageService } from "../services/content-addressable-storage.ts";
import { createHealthService, HealthState } from "../services/health.ts";
import { leaseCalls, leaseRequests } from "../services/invocation-leases.ts";
import { PartialUploads } from "../services/partial-uploads.ts";
import { createExecutionService } from "../services/execution.ts";
import { createOperationsService } from "../services/operations.ts";
import { createReflectionServices } from "../services/reflection.ts";
import type { Logger } from "../telemetry/log.ts";
import { MetricsRegistry } from "../telemetry/metrics.ts";
import { composeExecution, openRunner, type ExecutionStatus } from "./compose-execution.ts";
import type { ServerConfig } from "./config.ts";

export interface ComposedServer {
  readonly transport: ServerTransport;
  readonly health: HealthState;
  readonly execution: ExecutionStatus;
  /** Drained together with the transport, before anything is closed. */
  readonly scheduler: Scheduler;
  /** Closes what was opened, stores last. The transport is closed before. */
  close(): Promise<void>;
}

/** A message that names no limit of its own: what the batch methods take, and some room around it. */
const DEFAULT_MAX_REQUEST_BYTES = 4 * 1024 * 1024 + 64 * 1024;

/** Of --max-size, for one blob: a larger one would evict most of what there is (in memory each kind has a third). */
const MAX_BLOB_SHARE = 1 / 3;

export interface ServerParts {
  readonly config: ServerConfig;
  readonly buildInfo: BuildInfo;
  readonly logger: Logger;
}

export async function composeServer({ config, buildInfo, logger }: ServerParts): Promise<ComposedServer> {
  await using cleanup = new AsyncDisposableStack();
  const metrics = new MetricsRegistry();
  const clock = systemClock;
  const { dataDir, maxSizeBytes, leaseMs, durability } = config;
  const [storage, runner] = await settleBoth(
    openStorage({ dataDir, maxSizeBytes, leaseMs, durability, clock, logger, metrics }).then((opened) => {
      cleanup.defer(() => opened.close());
      return opened;
    }),
    openRunner(config, logger, cleanup),
  );
  const blobs = new AnnouncingBlobStore(storage.blobs);
  const actionCache = new CompletenessCheckingActionCache(new StoredActionCache(storage.values), blobs, metrics);
  const { executor, status: execution } = await composeExecution(
    { config, blobs, actionCache, clock, logger, metrics },
    runner,
    cleanup,
  );
  const { maxQueueDepth, orphanGraceMs } = config;
  const scheduler = new Scheduler({ executor, actionCache, clock, logger, metrics, maxQueueDepth, orphanGraceMs });
  const maxBlobSizeBytes = Math.floor(maxSizeBytes * MAX_BLOB_SHARE);
  const zstd = new ZstdPool();
  cleanup.defer(() => zstd.close());
  const partialUploads = new PartialUploads({ clock });
  cleanup.defer(() => partialUploads.close());
  metrics.gauge("ledge_partial_uploads", "Interrupted uploads kept to go on.", () => partialUploads.idleCount);
  metrics.gauge("ledge_partial_upload_bytes", "Bytes they have received.", () => partialUploads.idleBytes);

  const services: Service[] = [
    createCapabilitiesService({ executes: execution.enabled, maxBlobSizeBytes, chunking: CHUNKING_PARAMS }),
    createContentAddressableStorageService({ blobs, zstd, chunking: storage.chunking, maxBlobSizeBytes }),
    createActionCacheService({ actionCache, blobs, clock, metrics }),
    createExecutionService({ scheduler, blobs, clock }),
    createOperationsService({ scheduler, blobs, clock }),
    createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes }),
  ];
  const health = new HealthState(services.map(({ name }) => name));
  services.push(createHealthService({ state: health }));
  services.push(...createReflectionServices({ serviceNames: services.map(({ name }) => name) }));

  const http1 = createHttpCache({
    actionCache,
    blobs,
    zstd,
    opaque: storage.opaque,
    digestOf,
    maxBlobSizeBytes,
    maxOpaqueBytes: maxBlobSizeBytes,
    opaquePrefixes: config.httpOpaquePrefixes,
    clock,
    logger,
    metrics,
    storageStatus: () => statusOf(storage.stats()),
    version: buildInfo.version,
    gitCommit: buildInfo.commit ?? "",
  });
  const transport = createServerTransport({
    services: leaseCalls(services, storage.noteCall),
    http1: leaseRequests(http1, storage.noteCall),
    defaultMaxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
    logger,
    metrics,
    maxConnectionAgeMs: config.maxConnectionAgeMs,
    maxConnectionsPerAddress: config.maxConnectionsPerAddress,
    ...(config.tls === undefined ? {} : { tls: config.tls }),
  });
  const opened = cleanup.move();
  return { transport, health, execution, scheduler, close: () => opened.disposeAsync() };
}

/** Waits for both, also when one fails: what the other opened must be known to the clean-up before that runs. */
async function settleBoth<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([first, second]);
  return [await first, await second];
}

function statusOf(stats: StorageStats): StorageStatus {
  const { usedBytes, maxSizeBytes, entryCount } = stats;
  return { currentBytes: usedBytes, reservedBytes: 0, maxBytes: maxSizeBytes, entryCount };
}
