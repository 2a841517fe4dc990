// All services of V's half on a real transport, with @grpc/grpc-js as the client.

import { Client, credentials, Metadata, type ServiceError, type StatusObject } from "@grpc/grpc-js";
import { CompletenessCheckingActionCache } from "../../src/action-cache/completeness-checking-action-cache.ts";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { AnnouncingBlobStore } from "../../src/cas/announcing-blob-store.ts";
import type { BlobStore } from "../../src/cas/blob-store.ts";
import { MemoryOpaqueStore } from "../../src/cas/memory-opaque-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { createHttpCache } from "../../src/http-cache/http-cache.ts";
import type { MessageType } from "../../src/proto/wire.ts";
import { createActionCacheService } from "../../src/services/action-cache.ts";
import { createByteStreamService } from "../../src/services/byte-stream.ts";
import { createCapabilitiesService } from "../../src/services/capabilities.ts";
import { createContentAddressableStorageService } from "../../src/services/content-addressable-storage.ts";
import { createHealthService, HealthState } from "../../src/services/health.ts";
import { PartialUploads } from "../../src/services/partial-uploads.ts";
import { createReflectionServices } from "../../src/services/reflection.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

export interface MethodDescriptor<I, II, O, OI> {
  readonly path: string;
  readonly input: MessageType<I, II>;
  readonly output: MessageType<O, OI>;
}

export const MAX_BLOB_SIZE_BYTES = 50_000_000;

export class Served {
  readonly port: number;
  readonly partialUploads: PartialUploads;
  readonly #client: Client;
  readonly #close: () => Promise<void>;

  static async start(inner: BlobStore): Promise<Served> {
    const blobs = new AnnouncingBlobStore(inner);
    const metrics = new MetricsRegistry();
    const clock = systemClock;
    const actionCache = new CompletenessCheckingActionCache(new MemoryActionCache(), blobs, metrics);
    const partialUploads = new PartialUploads({ clock });
    const zstd = new ZstdPool({ threads: 1 });
    const maxBlobSizeBytes = MAX_BLOB_SIZE_BYTES;
    const state = new HealthState();
    state.setServing(true);
    const transport = createServerTransport({
      services: [
        createCapabilitiesService({ executes: false, maxBlobSizeBytes }),
        createContentAddressableStorageService({ blobs, zstd }),
        createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes }),
        createActionCacheService({ actionCache, blobs, clock, metrics }),
        createHealthService({ state }),
        ...createReflectionServices({ serviceNames: [] }),
      ],
      http1: createHttpCache({
        blobs,
        zstd,
        actionCache,
        opaque: new MemoryOpaqueStore(),
        opaquePrefixes: ["/opaque"],
        maxOpaqueBytes: maxBlobSizeBytes,
        maxBlobSizeBytes,
        clock,
        digestOf,
        metrics,
        logger: silentLogger,
        storageStatus: () => ({ currentBytes: 0, reservedBytes: 0, maxBytes: 0, entryCount: 0 }),
        version: "",
        gitCommit: "",
      }),
      defaultMaxRequestBytes: 4 * 1024 * 1024 + 64 * 1024,
      logger: silentLogger,
      metrics,
    });
    const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
    if (address.kind !== "tcp") throw new Error("not a TCP address");
    return new Served(address.port, partialUploads, async () => {
      await transport.close({ signal: AbortSignal.abort() });
      await zstd.close();
    });
  }

  private constructor(port: number, partialUploads: PartialUploads, close: () => Promise<void>) {
    this.port = port;
    this.partialUploads = partialUploads;
    this.#close = close;
    const options = { "grpc.max_send_message_length": -1 };
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), options);
  }

  async close(): Promise<void> {
    this.#client.close();
    await this.#close();
    await this.partialUploads.close();
  }

  /** `request` may be bytes that are no message. */
  unary<I, II, O, OI>(method: MethodDescriptor<I, II, O, OI>, request: II | Uint8Array): Promise<O> {
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, response?: Buffer): void => {
        if (error !== null) reject(error);
        else resolve(method.output.decode(response!));
      };
      this.#client.makeUnaryRequest(
        method.path,
        asBuffer,
        asBuffer,
        bytesOf(method, request),
        new Metadata(),
        {},
        done,
      );
    });
  }

  /** Sends all messages, half-closes unless told otherwise, and resolves with the responses when the call is over. */
  stream<I, II, O, OI>(
    method: MethodDescriptor<I, II, O, OI>,
    requests: readonly (II | Uint8Array)[],
    options: { readonly halfClose?: boolean; readonly metadata?: Metadata } = {},
  ): Promise<O[]> {
    return new Promise((resolve, reject) => {
      const metadata = options.metadata ?? new Metadata();
      const call = this.#client.makeBidiStreamRequest<Buffer, Buffer>(method.path, asBuffer, asBuffer, metadata);
      const responses: O[] = [];
      call.on("data", (bytes: Buffer) => responses.push(method.output.decode(bytes)));
      call.on("error", reject);
      call.on("status", (status: StatusObject) => {
        if (status.code === 0) resolve(responses);
      });
      for (const request of requests) call.write(bytesOf(method, request));
      if (options.halfClose !== false) call.end();
    });
  }
}

function bytesOf<I, II, O, OI>(method: MethodDescriptor<I, II, O, OI>, request: II | Uint8Array): Buffer {
  return Buffer.from(request instanceof Uint8Array ? request : method.input.encode(request));
}

function asBuffer(bytes: Buffer): Buffer {
  return bytes;
}
