// A small gRPC server over node:http2, written for these tests alone and independent of src/grpc.
//
// It buffers without bounds and trusts the machine: it is for one suite at a time.

import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer as createHttp1Server, type RequestListener } from "node:http";
import { createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import { ProtoError } from "../../../src/proto/wire.ts";
import { Status } from "../../../src/proto/status.ts";
import { Code, StatusError, invalidArgument } from "../../../src/base/status.ts";
import type { Fault } from "./faults.ts";

export type Has = (fault: Fault) => boolean;
export type Handler = (call: FakeCall) => Promise<void>;

const MAX_MESSAGE_BYTES = 4 * 1024 * 1024 + 64 * 1024;

export interface FakeServer {
  readonly port: number;
  close(): Promise<void>;
}

export async function startFakeServer(
  handlers: ReadonlyMap<string, Handler>,
  http1: RequestListener,
  has: Has,
): Promise<FakeServer> {
  const http2 = createServer({ settings: { maxConcurrentStreams: 256, initialWindowSize: 1024 * 1024 } });
  const sessions = new Set<ServerHttp2Session>();
  http2.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(8 * 1024 * 1024);
    session.on("error", () => undefined);
    session.on("close", () => sessions.delete(session));
  });
  http2.on("stream", (stream, headers) => void serve(stream as ServerHttp2Stream, headers, handlers, has));
  const http1Server = createHttp1Server(http1);
  const sockets = new Set<Socket>();
  const tcp = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    sniff(socket, http2, http1Server);
  });
  await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
  return {
    port: (tcp.address() as AddressInfo).port,
    close: async () => {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
      http1Server.closeAllConnections();
      await new Promise((resolve) => tcp.close(resolve));
    },
  };
}

function sniff(socket: Socket, http2: Http2Server, http1: ReturnType<typeof createHttp1Server>): void {
  socket.once("readable", () => {
    const first = socket.read() as Buffer | null;
    if (first === null) return;
    socket.unshift(first);
    (first.subarray(0, 3).toString() === "PRI" ? http2 : http1).emit("connection", socket);
  });
}

/** One call, from the server's side. */
export class FakeCall {
  readonly stream: ServerHttp2Stream;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Set when the client has gone. */
  cancelled = false;
  readonly #has: Has;
  #buffer = Buffer.alloc(0);
  #chunks: Buffer[] = [];
  #waitingBytes = 0;
  #neededBytes = 5;
  #ended = false;
  #wake: () => void = () => undefined;
  #responded = false;

  constructor(stream: ServerHttp2Stream, metadata: Readonly<Record<string, unknown>>, has: Has) {
    this.stream = stream;
    this.metadata = metadata;
    this.#has = has;
    stream.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#waitingBytes += chunk.length;
      this.#wake();
    });
    stream.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    stream.on("close", () => {
      this.cancelled = true;
      this.#wake();
    });
    stream.on("error", () => undefined);
  }

  async read(): Promise<Buffer | undefined> {
    for (;;) {
      if (this.#buffer.length + this.#waitingBytes >= this.#neededBytes || this.#ended) {
        this.#buffer = Buffer.concat([this.#buffer, ...this.#chunks.splice(0)]);
        this.#waitingBytes = 0;
      }
      const message = this.#take();
      if (message !== undefined) return message;
      if (this.cancelled) throw new StatusError(Code.CANCELLED, "the client has gone");
      if (this.#ended) return this.#atEnd();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The one message of a unary call. */
  async request(): Promise<Buffer> {
    const message = await this.read();
    if (message === undefined) throw invalidArgument("the call has no message");
    return message;
  }

  async write(message: Uint8Array): Promise<void> {
    if (this.stream.destroyed) return;
    this.#respond();
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    await new Promise<void>((resolve) => {
      this.stream.once("close", resolve);
      this.stream.write(Buffer.concat([prefix, message]), () => {
        this.stream.off("close", resolve);
        resolve();
      });
    });
  }

  finish(error: StatusError | undefined): void {
    if (this.stream.destroyed || this.stream.closed) return;
    const trailers: Record<string, string> = { "grpc-status": String(error?.code ?? 0) };
    if (error !== undefined) trailers["grpc-message"] = encodeURIComponent(error.message.slice(0, 500).toWellFormed());
    if (error !== undefined && error.details.length > 0) {
      trailers["grpc-status-details-bin"] = Buffer.from(
        Status.encode({ code: error.code, message: error.message, details: error.details }),
      ).toString("base64");
    }
    if (!this.#responded) {
      this.stream.respond({ ":status": 200, "content-type": "application/grpc", ...trailers }, { endStream: true });
    } else {
      this.stream.on("wantTrailers", () => this.stream.sendTrailers(trailers));
      this.stream.end();
    }
    // Whoever still sends is told to stop, without an error.
    if (!this.#ended) setTimeout(() => this.stream.close(), 20);
  }

  #take(): Buffer | undefined {
    if (this.#buffer.length < 5) return undefined;
    if (this.#buffer[0] !== 0 && !this.#has("grpc.flag-ignored")) {
      const known = this.metadata["grpc-encoding"] === undefined;
      throw new StatusError(known ? Code.INTERNAL : Code.UNIMPLEMENTED, "compressed messages are not taken");
    }
    const size = this.#buffer.readUInt32BE(1);
    if (size > MAX_MESSAGE_BYTES) throw new StatusError(Code.RESOURCE_EXHAUSTED, `a message of ${size} bytes`);
    this.#neededBytes = 5 + size;
    if (this.#buffer.length < this.#neededBytes) return undefined;
    this.#neededBytes = 5;
    const message = this.#buffer.subarray(5, 5 + size);
    this.#buffer = this.#buffer.subarray(5 + size);
    return message;
  }

  #atEnd(): Buffer | undefined {
    if (this.#buffer.length === 0) return undefined;
    if (this.#has("grpc.cut-message-accepted")) return Buffer.alloc(0);
    throw new StatusError(Code.INTERNAL, "the stream ended inside a message");
  }

  #respond(): void {
    if (this.#responded) return;
    this.#responded = true;
    this.stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  }
}

async function serve(
  stream: ServerHttp2Stream,
  headers: Record<string, unknown>,
  handlers: ReadonlyMap<string, Handler>,
  has: Has,
): Promise<void> {
  const call = new FakeCall(stream, headers, has);
  if (!String(headers["content-type"]).startsWith("application/grpc")) {
    stream.respond({ ":status": 415 }, { endStream: true });
    return;
  }
  const handler = handlers.get(String(headers[":path"]));
  const deadline = deadlineOf(headers["grpc-timeout"], has);
  try {
    if (handler === undefined) {
      throw new StatusError(has("grpc.unimplemented-is-unknown") ? Code.UNKNOWN : Code.UNIMPLEMENTED, "no such method");
    }
    await Promise.race([handler(call), deadline.expired]);
    call.finish(undefined);
  } catch (error) {
    call.finish(toStatus(error));
  } finally {
    deadline.clear();
  }
}

function toStatus(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  if (error instanceof ProtoError) return invalidArgument(error.message);
  return new StatusError(Code.INTERNAL, error instanceof Error ? (error.stack ?? error.message) : String(error));
}

function deadlineOf(header: unknown, has: Has): { expired: Promise<never>; clear: () => void } {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_resolve, reject) => {
    const match = /^(\d{1,8})([HMSmun])$/.exec(typeof header === "string" ? header : "");
    if (match === null || has("grpc.deadline-ignored")) return;
    const unitMs = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 0.001, n: 0.000001 }[match[2] as "H"];
    timer = setTimeout(
      () => reject(new StatusError(Code.DEADLINE_EXCEEDED, "the deadline has passed")),
      Math.min(Number(match[1]) * unitMs, 2 ** 31 - 1),
    );
  });
  expired.catch(() => undefined);
  return { expired, clear: () => clearTimeout(timer) };
}
