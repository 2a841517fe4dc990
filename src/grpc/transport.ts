// The product's transport: sockets to connections of our own HTTP/2, HTTP/1.1 to node:http.
//
// Invariant: every accepted socket is in #sockets until it is closed, and every connection in #drivers; `close` ends
// when both are empty. What a connection does with its octets is src/http2/; what a call is, dispatcher.ts.

import type { Socket } from "node:net";
import { Connection } from "../http2/connection.ts";
import { ConnectionDriver } from "../http2/connection-driver.ts";
import { LimitCounters } from "../http2/budgets.ts";
import { CLIENT_PREFACE, mayBeHttp1, sniffProtocol } from "../http2/preface.ts";
import { canShareReadBuffer, withSharedReadBuffer } from "../http2/read-buffer-socket.ts";
import type { ConnectionFacts } from "../http2/request-stream.ts";
import type { Counter } from "../telemetry/metrics.ts";
import { Dispatcher } from "./dispatcher.ts";
import { Http1Handoff } from "./http1-handoff.ts";
import { Listener, peerName } from "./listener.ts";
import { MethodTable } from "./method-table.ts";
import type { ListenAddress, ServerTransport, TransportOptions } from "./server.ts";

/** Bazel and Buck2 put 100 calls on a connection; executions and uploads of several clients behind a proxy are more. */
const MAX_CONCURRENT_STREAMS = 1024;
const PREFACE_TIMEOUT_MS = 10_000;
const TICK_MS = 500;

export function createServerTransport(options: TransportOptions): ServerTransport {
  return new Transport(options);
}

class Transport implements ServerTransport {
  readonly #options: TransportOptions;
  readonly #dispatcher: Dispatcher;
  readonly #listener: Listener;
  readonly #http1: Http1Handoff;
  readonly #limits: LimitCounters;
  readonly #accepted: Counter;
  readonly #sockets = new Set<Socket>();
  readonly #drivers = new Set<ConnectionDriver>();
  #shareReadBuffer = false;
  #nextConnectionId = 1;
  #ticker: NodeJS.Timeout | undefined;
  #closing = false;
  #onAllClosed: (() => void) | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#dispatcher = new Dispatcher(new MethodTable(options), options.logger);
    this.#http1 = new Http1Handoff(options.http1);
    this.#listener = new Listener((socket) => this.#accept(socket));
    this.#limits = new LimitCounters(options.metrics);
    this.#accepted = options.metrics.counter("ledge_connections_total", "Connections accepted.");
    options.metrics.gauge("ledge_connections", "Connections that are open.", () => this.#sockets.size);
    options.metrics.gauge("ledge_http2_streams", "HTTP/2 streams that are open or worked on.", () =>
      this.#streamCount(),
    );
    options.metrics.gauge("ledge_grpc_calls", "gRPC calls under way.", () => this.activeCalls);
  }

  get activeCalls(): number {
    return this.#dispatcher.activeCalls;
  }

  async listen(address: ListenAddress): Promise<ListenAddress> {
    this.#shareReadBuffer = await canShareReadBuffer();
    if (!this.#shareReadBuffer) this.#options.logger.warn("this Node cannot share a read buffer; receiving is slower");
    this.#ticker ??= setInterval(() => this.#tick(), TICK_MS);
    this.#ticker.unref();
    return this.#listener.listen(address);
  }

  async close({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    this.#closing = true;
    this.#listener.stop();
    this.#http1.drain();
    for (const driver of this.#drivers) driver.shutDown("the server is shutting down", performance.now());
    const allClosed = new Promise<void>((resolve) => {
      this.#onAllClosed = resolve;
      if (this.#sockets.size === 0) resolve();
    });
    const destroyAll = (): void => {
      for (const socket of this.#sockets) socket.destroy();
    };
    if (signal.aborted) destroyAll();
    else signal.addEventListener("abort", destroyAll, { once: true });
    await allClosed;
    signal.removeEventListener("abort", destroyAll);
    clearInterval(this.#ticker);
  }

  #streamCount(): number {
    let count = 0;
    for (const driver of this.#drivers) count += driver.connection.openStreams;
    return count;
  }

  #tick(): void {
    const nowMs = performance.now();
    for (const driver of this.#drivers) driver.tick(nowMs);
  }

  #accept(socket: Socket): void {
    this.#accepted.value++;
    this.#track(socket);
    const timer = setTimeout(() => socket.destroy(), PREFACE_TIMEOUT_MS);
    timer.unref();
    let peeked: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      peeked = peeked.length === 0 ? chunk : Buffer.concat([peeked, chunk]);
      const protocol = sniffProtocol(peeked);
      if (protocol === "undecided") return;
      clearTimeout(timer);
      socket.off("data", onData);
      socket.off("end", onEnd);
      socket.pause();
      if (protocol === "http2")
        process.nextTick(() => this.#startHttp2(socket, peeked.subarray(CLIENT_PREFACE.length)));
      else this.#startHttp1(socket, peeked);
    };
    const onEnd = (): void => void socket.destroy();
    socket.on("data", onData);
    socket.on("end", onEnd);
    socket.on("close", () => clearTimeout(timer));
    socket.on("error", () => socket.destroy());
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#untrack(socket));
  }

  #untrack(socket: Socket): void {
    this.#sockets.delete(socket);
    if (this.#sockets.size === 0) this.#onAllClosed?.();
  }

  #startHttp1(socket: Socket, peeked: Buffer): void {
    // Octets that can be no request of ours get no answer in a protocol that nobody spoke (T-6).
    if (!mayBeHttp1(peeked)) {
      socket.destroy();
      return;
    }
    socket.unshift(peeked);
    this.#http1.accept(socket);
  }

  #startHttp2(socket: Socket, rest: Buffer): void {
    if (socket.destroyed) return;
    const facts = { id: this.#nextConnectionId++, peer: peerName(socket), clientCertificate: undefined };
    const unread: Buffer | null = socket.read() as Buffer | null;
    const first = unread === null ? rest : Buffer.concat([rest, unread]);
    if (!this.#shareReadBuffer) {
      const driver = this.#drive(socket, facts);
      socket.on("data", (chunk: Buffer) => void driver.onRead(chunk, chunk.length));
      driver.onRead(first, first.length);
      socket.resume();
      return;
    }
    // Nothing is read before the resume below, so the driver is there when the callback runs.
    const moved = withSharedReadBuffer(socket, (octets, count) => driver.onRead(octets, count));
    this.#sockets.delete(socket);
    this.#track(moved);
    const driver = this.#drive(moved, facts);
    driver.onRead(first, first.length);
    moved.resume();
  }

  #drive(socket: Socket, facts: ConnectionFacts): ConnectionDriver {
    let wantFlush = (): void => undefined;
    const connection = new Connection({
      facts,
      maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
      limits: this.#limits,
      nowMs: performance.now(),
      onRequest: (stream) => this.#dispatcher.accept(stream),
      wantFlush: () => wantFlush(),
      onBug: (error) => this.#onBug(error),
    });
    const driver = new ConnectionDriver({ socket, connection, onClosed: () => this.#drivers.delete(driver) });
    wantFlush = () => driver.wantFlush();
    this.#drivers.add(driver);
    if (this.#closing) driver.shutDown("the server is shutting down", performance.now());
    return driver;
  }

  #onBug(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#options.logger.error("the transport failed on a connection", { error: text });
  }
}
