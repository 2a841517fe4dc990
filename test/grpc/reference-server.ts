// The product's handlers of small calls on another transport: `node test/grpc/reference-server.ts node-http2|grpc-js FOLDER`.
//
// native-free-bench/transport/ measures the product against it, so that only the transport differs. Its store is on disk,
// as the product's is by default, in a new folder below the one given as second argument. Prints its port.

import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { Failure } from "../../src/base/status.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage } from "../../src/cas/storage.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import type { Service, UnaryAnswer, UnaryMethod } from "../../src/grpc/service.ts";
import { createCapabilitiesService } from "../../src/services/capabilities.ts";
import { createContentAddressableStorageService } from "../../src/services/content-addressable-storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { createNodeHttp2Transport } from "./node-http2-transport.ts";
import { MAX_REQUEST_BYTES } from "./test-service.ts";

const asIs = (bytes: Buffer): Buffer => bytes;

async function listenNodeHttp2(services: readonly Service[], metrics: MetricsRegistry): Promise<number> {
  const transport = createNodeHttp2Transport({
    services,
    http1: (_request, response) => response.end(),
    defaultMaxRequestBytes: MAX_REQUEST_BYTES,
    logger: silentLogger,
    metrics,
  });
  const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
  return address.kind === "tcp" ? address.port : 0;
}

function listenGrpcJs(services: readonly Service[]): Promise<number> {
  const server = new grpc.Server();
  for (const { methods } of services) {
    const unary = methods.filter((method): method is UnaryMethod => method.kind === "unary");
    const definition = Object.fromEntries(
      unary.map(({ path }) => [
        path,
        {
          path,
          requestStream: false,
          responseStream: false,
          requestSerialize: asIs,
          requestDeserialize: asIs,
          responseSerialize: asIs,
          responseDeserialize: asIs,
        },
      ]),
    );
    const implementation = Object.fromEntries(unary.map((method) => [method.path, handleWith(method)]));
    server.addService(definition, implementation);
  }
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** The handlers that are measured ask nothing of their call. */
function handleWith(method: UnaryMethod): grpc.handleUnaryCall<Buffer, Buffer> {
  return (call, answer) => {
    const response = method.handler(call.request, {} as Parameters<UnaryMethod["handler"]>[1]);
    const pass = (bytes: UnaryAnswer): void => {
      if (bytes instanceof Failure) answer(new Error(bytes.message));
      else answer(null, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    };
    if (response instanceof Promise) void response.then(pass, (error: Error) => answer(error));
    else pass(response);
  };
}

const [kind = "", folder = ""] = process.argv.slice(2);
if (kind !== "node-http2" && kind !== "grpc-js") throw new Error(`"${kind}", expected node-http2 or grpc-js`);
if (folder === "") throw new Error("the folder of the store is not given");
const metrics = new MetricsRegistry();
const storage = await openStorage({
  dataDir: mkdtempSync(join(folder, "reference-")),
  maxSizeBytes: 2 ** 30,
  clock: systemClock,
  logger: silentLogger,
  metrics,
});
const services = [
  createCapabilitiesService({ executes: false, maxBlobSizeBytes: 0 }),
  createContentAddressableStorageService({ blobs: storage.blobs, zstd: new ZstdPool() }),
];
const port = kind === "node-http2" ? await listenNodeHttp2(services, metrics) : await listenGrpcJs(services);
process.stdout.write(`${port}\n`);
