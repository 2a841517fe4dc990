// What the transport contracts share: a server with the test service, and a grpc-js client for it.

import { connect as connectSocket } from "node:net";
import { text } from "node:stream/consumers";
import * as grpc from "@grpc/grpc-js";
import { afterEach } from "vitest";
import {
  formatAddress,
  type ListenAddress,
  type ServerTransport,
  type TransportOptions,
} from "../../src/grpc/server.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { MAX_REQUEST_BYTES, TestService } from "./test-service.ts";

export type CreateTransport = (options: TransportOptions) => ServerTransport;

export const asIs = (bytes: Buffer): Buffer => bytes;
export const path = (method: string): string => `/test.Echo/${method}`;

export interface Running {
  readonly transport: ServerTransport;
  readonly address: ListenAddress;
  readonly service: TestService;
  readonly client: grpc.Client;
}

export interface UnaryResult {
  readonly error: grpc.ServiceError | null;
  readonly response: Buffer | undefined;
}

/** Starts servers for the tests of one describe block, and ends them after each test. */
export class TransportFixture {
  readonly cleanups: (() => Promise<void> | void)[] = [];
  readonly #create: CreateTransport;

  constructor(create: CreateTransport) {
    this.#create = create;
    afterEach(async () => {
      for (const cleanup of this.cleanups.splice(0).toReversed()) await cleanup();
    });
  }

  async start(address: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0 }): Promise<Running> {
    const service = new TestService();
    const transport = this.#create({
      services: [service.definition],
      http1: (request, response) => {
        void text(request).then((body) => response.end(`${request.method} ${request.url} ${body.length}`));
      },
      defaultMaxRequestBytes: MAX_REQUEST_BYTES,
      logger: silentLogger,
      metrics: new MetricsRegistry(),
    });
    const bound = await transport.listen(address);
    const client = new grpc.Client(formatAddress(bound), grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      "grpc.use_local_subchannel_pool": 1,
    });
    this.cleanups.push(
      () => transport.close({ signal: AbortSignal.abort() }),
      () => client.close(),
    );
    return { transport, address: bound, service, client };
  }
}

export interface UnaryOptions {
  readonly metadata?: grpc.Metadata;
  readonly call?: grpc.CallOptions;
}

export function unary(
  client: grpc.Client,
  method: string,
  body: Uint8Array,
  options: UnaryOptions = {},
): Promise<UnaryResult> {
  const { metadata = new grpc.Metadata(), call = {} } = options;
  return new Promise((resolve) => {
    client.makeUnaryRequest(path(method), asIs, asIs, Buffer.from(body), metadata, call, (error, response) => {
      resolve({ error, response });
    });
  });
}

export async function succeed(
  client: grpc.Client,
  method: string,
  body: Uint8Array,
  metadata?: grpc.Metadata,
): Promise<Buffer> {
  const { error, response } = await unary(client, method, body, metadata === undefined ? {} : { metadata });
  if (error !== null) throw error;
  if (response === undefined) throw new Error("no response");
  return response;
}

export function http2Address(address: ListenAddress): string {
  return address.kind === "tcp" ? `http://127.0.0.1:${address.port}` : "http://unix";
}

/** Resolves when a connection is accepted, rejects when it is refused. */
export function connectTo(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(port, "127.0.0.1").once("error", reject);
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
  });
}
