// The transport over node:http2: the independent oracle of our own HTTP/2 in contract and differential tests.
//
// Invariant: services cannot tell it from the product's. It shares the gRPC layer and nothing below it; it lacks the attack
// budgets beyond what Node has.

import { createServer, constants, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { ErrorCode } from "../../src/http2/error-code.ts";
import type { HeaderBlock } from "../../src/http2/header-block.ts";
import { sniffProtocol } from "../../src/http2/preface.ts";
import { RequestHeaders } from "../../src/http2/request-headers.ts";
import type { ConnectionFacts, RequestReceiver, RequestStream, WholeResponse } from "../../src/http2/request-stream.ts";
import { Dispatcher } from "../../src/grpc/dispatcher.ts";
import { Http1Handoff } from "../../src/grpc/http1-handoff.ts";
import { Listener, peerName } from "../../src/grpc/listener.ts";
import { MethodTable } from "../../src/grpc/method-table.ts";
import type { ListenAddress, ServerTransport, TransportOptions } from "../../src/grpc/server.ts";

const MAX_CONCURRENT_STREAMS = 1024;
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;
const MAX_HEADER_LIST_BYTES = 32 * 1024;
const PREFACE_TIMEOUT_MS = 10_000;

export function createNodeHttp2Transport(options: TransportOptions): ServerTransport {
  return new NodeHttp2Transport(options);
}

class NodeHttp2Transport implements ServerTransport {
  readonly #dispatcher: Dispatcher;
  readonly #listener: Listener;
  readonly #http1: Http1Handoff;
  readonly #http2: Http2Server;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #facts = new WeakMap<ServerHttp2Session, ConnectionFacts>();
  #nextConnectionId = 1;
  #closing = false;

  constructor(options: TransportOptions) {
    if (options.tls !== undefined) throw new Error("The node:http2 transport does not speak TLS");
    this.#dispatcher = new Dispatcher(new MethodTable(options), options.logger);
    this.#http1 = new Http1Handoff(options.http1);
    this.#listener = new Listener(
      (socket) => this.#accept(socket),
      () => undefined,
    );
    this.#http2 = createServer({
      settings: {
        initialWindowSize: STREAM_WINDOW_BYTES,
        maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
        maxHeaderListSize: MAX_HEADER_LIST_BYTES,
        enablePush: false,
      },
      maxSessionMemory: 1000,
    });
    this.#http2.on("session", (session) => this.#onSession(session));
    this.#http2.on("sessionError", () => undefined);
    this.#http2.on("stream", (stream, headers, _flags, rawHeaders) => {
      // The declared type of the fourth argument is a string array in some releases and unknown in others.
      const flat: readonly string[] = rawHeaders;
      const facts = stream.session === undefined ? undefined : this.#facts.get(stream.session as ServerHttp2Session);
      if (facts === undefined) return;
      const pseudo = {
        method: headers[":method"] ?? "",
        scheme: headers[":scheme"] ?? "",
        path: headers[":path"] ?? "",
        authority: headers[":authority"] ?? "",
      };
      this.#dispatcher.accept(
        new NodeHttp2Stream(stream as ServerHttp2Stream, facts, new RequestHeaders(pseudo, withoutPseudo(flat))),
      );
    });
  }

  get activeCalls(): number {
    return this.#dispatcher.activeCalls;
  }

  listen(address: ListenAddress): Promise<ListenAddress> {
    return this.#listener.listen(address);
  }

  async close({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    this.#closing = true;
    this.#listener.stop();
    this.#http1.drain();
    for (const session of this.#sessions) session.close();
    const closed = this.#allClosed();
    const destroyAll = (): void => {
      for (const session of this.#sessions) session.destroy();
      for (const socket of this.#sockets) socket.destroy();
    };
    if (signal.aborted) destroyAll();
    else signal.addEventListener("abort", destroyAll, { once: true });
    await closed;
    signal.removeEventListener("abort", destroyAll);
  }

  #allClosed(): Promise<void> {
    const waits = [...this.#sockets].map(
      (socket) =>
        new Promise<void>((resolve) => (socket.closed ? resolve() : void socket.once("close", () => resolve()))),
    );
    return Promise.all(waits).then(() => undefined);
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), PREFACE_TIMEOUT_MS);
    timer.unref();
    let peeked: Buffer = Buffer.alloc(0);
    const onEnd = (): void => void socket.destroy();
    const onData = (chunk: Buffer): void => {
      peeked = peeked.length === 0 ? chunk : Buffer.concat([peeked, chunk]);
      const protocol = sniffProtocol(peeked);
      if (protocol === "undecided") return;
      clearTimeout(timer);
      socket.off("data", onData);
      socket.off("end", onEnd);
      socket.pause();
      socket.unshift(peeked);
      if (protocol === "http1") this.#http1.accept(socket);
      else this.#http2.emit("connection", socket);
    };
    socket.on("data", onData);
    socket.on("end", onEnd);
    socket.on("close", () => clearTimeout(timer));
  }

  #onSession(session: ServerHttp2Session): void {
    const { socket } = session;
    this.#facts.set(session, { id: this.#nextConnectionId++, peer: peerName(socket), clientCertificate: undefined });
    this.#sessions.add(session);
    session.on("close", () => this.#sessions.delete(session));
    session.on("error", () => session.destroy());
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    if (this.#closing) session.close();
  }
}

const EMPTY = new Uint8Array(0);

class NodeHttp2Stream implements RequestStream {
  readonly connection: ConnectionFacts;
  readonly headers: RequestHeaders;
  readonly #stream: ServerHttp2Stream;
  #receiver: RequestReceiver | undefined;
  #unconsumedBytes = 0;
  #requestEnded = false;
  #over = false;
  #trailers: HeaderBlock | undefined;

  constructor(stream: ServerHttp2Stream, connection: ConnectionFacts, headers: RequestHeaders) {
    this.#stream = stream;
    this.connection = connection;
    this.headers = headers;
  }

  get maxHeaderListBytes(): number {
    return this.#stream.session?.remoteSettings?.maxHeaderListSize ?? Number.POSITIVE_INFINITY;
  }

  attach(receiver: RequestReceiver): void {
    this.#receiver = receiver;
    const stream = this.#stream;
    stream.on("data", (chunk: Buffer) => {
      this.#unconsumedBytes += chunk.length;
      receiver.onData(chunk);
      if (this.#unconsumedBytes > STREAM_WINDOW_BYTES) stream.pause();
    });
    stream.on("end", () => {
      this.#requestEnded = true;
      // node ends the readable side of a reset stream before it says that it was reset.
      setImmediate(() => {
        if (stream.aborted || (stream.rstCode ?? 0) !== constants.NGHTTP2_NO_ERROR) this.#abort();
        else if (this.#receiver !== undefined) receiver.onEnd();
      });
    });
    stream.on("aborted", () => this.#abort());
    stream.on("close", () => this.#abort());
    stream.on("error", () => this.#abort());
    stream.on("wantTrailers", () => {
      const trailers = this.#trailers;
      if (trailers === undefined || stream.destroyed) return;
      stream.sendTrailers(toNodeHeaders(trailers));
      this.#stopUpload();
    });
  }

  credit(sizeBytes: number): void {
    this.#unconsumedBytes -= sizeBytes;
    if (this.#unconsumedBytes <= STREAM_WINDOW_BYTES / 2 && this.#stream.isPaused()) this.#stream.resume();
  }

  expect(): void {
    // node:http2 credits what the stream's consumer has read, and has no window per stream to raise.
  }

  respond(head: HeaderBlock, response?: WholeResponse): void {
    if (this.#over || this.#stream.destroyed) return;
    const { lead, body = EMPTY, trailers } = response ?? {};
    const slices = lead === undefined ? [body] : [lead.slice(), body];
    if (trailers !== undefined) {
      this.sendHead(head);
      this.#writeAll(slices, undefined);
      this.sendTrailers(trailers);
      return;
    }
    this.#over = true;
    this.#stream.respond(toNodeHeaders(head), { endStream: response === undefined });
    if (response !== undefined) {
      this.#writeAll(slices, undefined);
      this.#stream.end();
    }
    this.#stopUpload();
  }

  sendHead(head: HeaderBlock): void {
    if (this.#over || this.#stream.destroyed) return;
    this.#stream.respond(toNodeHeaders(head), { waitForTrailers: true });
  }

  sendBody(slices: readonly Uint8Array[], taken: () => void): void {
    if (this.#over || this.#stream.destroyed) return;
    this.#writeAll(slices, () => {
      if (!this.#over) taken();
    });
  }

  sendTrailers(trailers: HeaderBlock): void {
    if (this.#over || this.#stream.destroyed) return;
    this.#over = true;
    this.#trailers = trailers;
    this.#stream.end();
  }

  reset(code: ErrorCode): void {
    if (this.#over || this.#stream.destroyed) return;
    this.#over = true;
    this.#stream.close(code);
  }

  release(): void {
    // node:http2 counts streams until they are closed, not until their work is done.
  }

  /** F-63: a reset with NO_ERROR behind the response. At once it would overtake the frames that node has queued. */
  #stopUpload(): void {
    setImmediate(() => {
      if (!this.#requestEnded && !this.#stream.destroyed) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }

  #abort(): void {
    const receiver = this.#receiver;
    this.#receiver = undefined;
    if (receiver === undefined) return;
    const answered = this.#over;
    this.#over = true;
    if (!answered || !this.#stream.writableFinished) receiver.onAbort();
  }

  #writeAll(slices: readonly Uint8Array[], taken: (() => void) | undefined): void {
    this.#stream.cork();
    for (let index = 0; index < slices.length - 1; index++) this.#stream.write(slices[index]);
    this.#stream.write(slices[slices.length - 1], () => taken?.());
    this.#stream.uncork();
  }
}

function toNodeHeaders(block: HeaderBlock): Record<string, string> {
  return Object.fromEntries(block.fields.map(([name, value]) => [name, value]));
}

function withoutPseudo(flat: readonly string[]): string[] {
  const kept: string[] = [];
  for (let index = 0; index < flat.length; index += 2) {
    const name = flat[index] ?? "";
    if (!name.startsWith(":")) kept.push(name.toLowerCase(), flat[index + 1] ?? "");
  }
  return kept;
}
