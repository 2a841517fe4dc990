// The product's transport: sockets to connections of our own HTTP/2, HTTP/1.1 to node:http.
//
// Invariant: every accepted socket is in #sockets until it is closed, and every connection in #drivers; `close` ends
// when both are empty. What a connection does with its octets is src/http2/; what a call is, dispatcher.ts.

import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { Connection } from "../http2/connection.ts";
import type { AgeLimit } from "../http2/connection-watch.ts";
import { ConnectionDriver } from "../http2/connection-driver.ts";
import { LimitCounters } from "../http2/budgets.ts";
import { CLIENT_PREFACE, mayBeHttp1 } from "../http2/preface.ts";
import { canShareReadBuffer, withSharedReadBuffer } from "../http2/read-buffer-socket.ts";
import type { ConnectionFacts } from "../http2/request-stream.ts";
import type { Counter } from "../telemetry/metrics.ts";
import { AddressLimits } from "./address-limits.ts";
import { Dispatcher } from "./dispatcher.ts";
import { Http1Handoff } from "./http1-handoff.ts";
import { Listener, peerName } from "./listener.ts";
import { MethodTable } from "./method-table.ts";
import type { ListenAddress, ServerTransport, TransportOptions } from "./server.ts";
import type { ClientCertificate } from "./service.ts";
import { sniffFirstOctets } from "./sniffing.ts";
import { clientCertificateOf, TlsAcceptor } from "./tls-acceptor.ts";

/** Bazel and Buck2 put 100 calls on a connection; executions and uploads of several clients behind a proxy are more. */
const MAX_CONCURRENT_STREAMS = 1024;
const TICK_MS = 500;
/** What calls under way get when their connection is too old: long uploads and executions must survive. */
const AGE_GRACE_MS = 10 * 60_000;
/** Connections that began together, as after a restart, must not end together. */
const AGE_JITTER = 0.1;

export function createServerTransport(options: TransportOptions): ServerTransport {
  return new Transport(options);
}

class Transport implements ServerTransport {
  readonly #options: TransportOptions;
  readonly #dispatcher: Dispatcher;
  readonly #listener: Listener;
  readonly #http1: Http1Handoff;
  readonly #limits: LimitCounters;
  readonly #addresses: AddressLimits;
  readonly #accepted: Counter;
  /** With the address that each counts for. */
  readonly #sockets = new Map<Socket, string | undefined>();
  /** Sockets whose protocol is not known yet. */
  readonly #undecided = new Set<Socket>();
  readonly #drivers = new Set<ConnectionDriver>();
  #tls: TlsAcceptor | undefined;
  #shareReadBuffer = false;
  #nextConnectionId = 1;
  #ticker: NodeJS.Timeout | undefined;
  #closing = false;
  #onAllClosed: (() => void) | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#dispatcher = new Dispatcher(new MethodTable(options), options.logger);
    this.#http1 = new Http1Handoff(options.http1);
    this.#limits = new LimitCounters(options.metrics);
    this.#addresses = new AddressLimits({ maxConnections: options.maxConnectionsPerAddress });
    this.#listener = new Listener(
      (socket) => this.#accept(socket),
      () => this.#limits.count("connections"),
    );
    this.#accepted = options.metrics.counter("ledge_connections_total", "Connections accepted.");
    options.metrics.gauge("ledge_connections", "Connections that are open.", () => this.#sockets.size);
    options.metrics.gauge("ledge_http2_streams", "HTTP/2 streams that are open or worked on.", () =>
      this.#streamCount(),
    );
    options.metrics.gauge(
      "ledge_grpc_upload_bytes",
      "Bytes reserved for request messages that are still arriving.",
      () => this.#dispatcher.uploadMemory.usedBytes,
    );
    options.metrics.gauge("ledge_grpc_calls", "gRPC calls under way.", () => this.activeCalls);
  }

  get activeCalls(): number {
    return this.#dispatcher.activeCalls;
  }

  async listen(address: ListenAddress): Promise<ListenAddress> {
    this.#shareReadBuffer = await canShareReadBuffer();
    if (!this.#shareReadBuffer) this.#options.logger.warn("this Node cannot share a read buffer; receiving is slower");
    if (this.#options.tls !== undefined && this.#tls === undefined) {
      this.#tls = await TlsAcceptor.open(this.#options.tls, this.#options.logger);
      this.#tls.onSecured((socket) => this.#onSecured(socket));
    }
    this.#ticker ??= setInterval(() => this.#tick(), TICK_MS);
    this.#ticker.unref();
    return this.#listener.listen(address);
  }

  async close({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    this.#closing = true;
    this.#listener.stop();
    this.#http1.drain();
    for (const socket of this.#undecided) socket.destroy();
    for (const driver of this.#drivers) driver.shutDown("the server is shutting down", performance.now());
    const allClosed = new Promise<void>((resolve) => {
      this.#onAllClosed = resolve;
      if (this.#sockets.size === 0) resolve();
    });
    const destroyAll = (): void => {
      for (const socket of this.#sockets.keys()) socket.destroy();
    };
    if (signal.aborted) destroyAll();
    else signal.addEventListener("abort", destroyAll, { once: true });
    await allClosed;
    signal.removeEventListener("abort", destroyAll);
    clearInterval(this.#ticker);
    this.#tls?.close();
  }

  #streamCount(): number {
    let count = 0;
    for (const driver of this.#drivers) count += driver.connection.openStreams;
    return count;
  }

  #tick(): void {
    const nowMs = performance.now();
    for (const driver of this.#drivers) driver.tick(nowMs);
    this.#addresses.tick(nowMs);
  }

  #accept(socket: Socket): void {
    this.#accepted.value++;
    const { remoteAddress } = socket;
    if (!this.#mayEnter(remoteAddress)) {
      // As the kernel's own limits do: at once, and without a word that would cost us something.
      socket.on("error", () => undefined);
      socket.destroy();
      return;
    }
    this.#track(socket, remoteAddress);
    this.#undecided.add(socket);
    socket.on("error", () => socket.destroy());
    if (this.#tls !== undefined) this.#tls.accept(socket);
    else sniffFirstOctets(socket, (protocol, octets) => this.#onClearOctets(socket, protocol, octets));
  }

  /** L-16. An address that may is counted until its socket, or the one that takes over its handle, is closed. */
  #mayEnter(remoteAddress: string | undefined): boolean {
    const nowMs = performance.now();
    if (this.#tls !== undefined && !this.#addresses.handshake(remoteAddress, nowMs)) {
      this.#limits.count("tls_handshakes");
      return false;
    }
    if (this.#addresses.open(remoteAddress, nowMs)) return true;
    this.#limits.count("address_connections");
    return false;
  }

  #onClearOctets(socket: Socket, protocol: "http2" | "http1", octets: Buffer): void {
    this.#undecided.delete(socket);
    if (protocol === "http1") return this.#startHttp1(socket, octets);
    const facts = this.#newFacts(socket, undefined);
    const first = octets.subarray(CLIENT_PREFACE.length);
    if (!this.#shareReadBuffer) return this.#startReadingEvents(socket, facts, first);
    // Nothing is read before the resume below, so the driver is there when the callback runs.
    const moved = withSharedReadBuffer(socket, (read, count) => driver.onRead(read, count));
    this.#track(moved, this.#sockets.get(socket));
    this.#sockets.delete(socket);
    const driver = this.#drive(moved, facts);
    driver.onRead(first, first.length);
    moved.resume();
  }

  /** P-45: ALPN decides; inside TLS the preface must match (F-2). */
  #onSecured(socket: TLSSocket): void {
    socket.on("error", () => socket.destroy());
    if (socket.alpnProtocol !== "h2") return this.#http1.accept(socket);
    sniffFirstOctets(socket, (protocol, octets) => {
      if (protocol !== "http2") return void socket.destroy();
      const facts = this.#newFacts(socket, clientCertificateOf(socket));
      this.#startReadingEvents(socket, facts, octets.subarray(CLIENT_PREFACE.length));
    });
  }

  #startReadingEvents(socket: Socket, facts: ConnectionFacts, first: Uint8Array): void {
    const driver = this.#drive(socket, facts);
    socket.on("data", (chunk: Buffer) => void driver.onRead(chunk, chunk.length));
    driver.onRead(first, first.length);
    socket.resume();
  }

  #newFacts(socket: Socket, clientCertificate: ClientCertificate | undefined): ConnectionFacts {
    return { id: this.#nextConnectionId++, peer: peerName(socket), clientCertificate };
  }

  #track(socket: Socket, address: string | undefined): void {
    this.#sockets.set(socket, address);
    socket.once("close", () => this.#untrack(socket));
  }

  #untrack(socket: Socket): void {
    this.#addresses.close(this.#sockets.get(socket));
    this.#sockets.delete(socket);
    this.#undecided.delete(socket);
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

  #drive(socket: Socket, facts: ConnectionFacts): ConnectionDriver {
    let wantFlush = (): void => undefined;
    const connection = new Connection({
      facts,
      maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
      limits: this.#limits,
      nowMs: performance.now(),
      age: this.#newAgeLimit(),
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

  #newAgeLimit(): AgeLimit | undefined {
    const { maxConnectionAgeMs = 0 } = this.#options;
    if (maxConnectionAgeMs === 0) return undefined;
    return { maxAgeMs: maxConnectionAgeMs * (1 + AGE_JITTER * (2 * Math.random() - 1)), graceMs: AGE_GRACE_MS };
  }

  #onBug(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#options.logger.error("the transport failed on a connection", { error: text });
  }
}
