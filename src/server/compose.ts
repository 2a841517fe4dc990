// The composition root: every concrete class is constructed here and nowhere else, so the object graph is one page.
//
// What is closed is closed in the reverse order of construction. When to start and stop is lifecycle.ts.

import type { IncomingMessage, ServerResponse } from "node:http";
import { CompletenessCheckingActionCache } from "../action-cache/completeness-checking-action-cache.ts";
import { StoredActionCache } from "../action-cache/stored-action-cache.ts";
import { systemClock } from "../base/clock.ts";
import { AnnouncingBlobStore } from "../cas/announcing-blob-store.ts";
import { openStorage } from "../cas/storage.ts";
import type { ServerTransport } from "../grpc/server.ts";
import type { Service } from "../grpc/service.ts";
import { createServerTransport } from "../grpc/transport.ts";
import { createActionCacheService } from "../services/action-cache.ts";
import { createByteStreamService } from "../services/byte-stream.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import { createCapabilitiesService } from "../services/capabilities.ts";
import { createContentAddressableStorageService } from "../services/content-addressable-storage.ts";
import { createHealthService, HealthState } from "../services/health.ts";
import { PartialUploads } from "../services/partial-uploads.ts";
import { createExecutionService } from "../services/execution.ts";
import { createOperationsService } from "../services/operations.ts";
import { createReflectionServices } from "../services/reflection.ts";
import type { Logger } from "../telemetry/log.ts";
import { MetricsRegistry } from "../telemetry/metrics.ts";
import { composeExecution, type ExecutionStatus } from "./compose-execution.ts";
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

export async function composeServer(config: ServerConfig, logger: Logger): Promise<ComposedServer> {
  await using cleanup = new AsyncDisposableStack();
  const metrics = new MetricsRegistry();
  const clock = systemClock;
  const { dataDir, maxSizeBytes } = config;
  const storage = await openStorage({ dataDir, maxSizeBytes, clock, logger, metrics });
  cleanup.defer(() => storage.close());
  const blobs = new AnnouncingBlobStore(storage.blobs);
  const actionCache = new CompletenessCheckingActionCache(new StoredActionCache(storage.values), blobs, metrics);
  const { executor, status: execution } = await composeExecution(
    { config, blobs, actionCache, clock, logger, metrics },
    cleanup,
  );
  const { maxQueueDepth, orphanGraceMs } = config;
  const scheduler = new Scheduler({ executor, actionCache, clock, logger, metrics, maxQueueDepth, orphanGraceMs });
  const partialUploads = new PartialUploads({ clock });

  const services: Service[] = [
    createCapabilitiesService({ executes: execution.enabled, maxBlobSizeBytes: 0 }),
    createContentAddressableStorageService({ blobs }),
    createActionCacheService({ actionCache, blobs, clock, metrics }),
    createExecutionService({ scheduler, blobs, clock }),
    createOperationsService({ scheduler, blobs, clock }),
    createByteStreamService({ blobs, partialUploads, clock, maxBlobSizeBytes: 0 }),
  ];
  const health = new HealthState(services.map(({ name }) => name));
  services.push(createHealthService({ state: health }));
  services.push(...createReflectionServices({ serviceNames: services.map(({ name }) => name) }));

  const transport = createServerTransport({
    services,
    http1: notFound,
    defaultMaxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
    logger,
    metrics,
    ...(config.tls === undefined ? {} : { tls: config.tls }),
  });
  const opened = cleanup.move();
  return { transport, health, execution, scheduler, close: () => opened.disposeAsync() };
}

function notFound(_request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(404).end();
}
