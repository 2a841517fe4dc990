// A transparent proxy of gRPC, and of the HTTP cache protocol on the same port, that writes down what passes through it.
//
// Invariant: messages, order, status, trailers and cancellation pass unchanged; headers pass and are never written down.
// Bounds: a direction reads on only when the other side took the message before, so a call holds one message each way.

import { createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { Agent, createServer as createHttpServer } from "node:http";
import { Agent as TlsAgent } from "node:https";
import { createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import { sniffProtocol } from "../../src/http2/preface.ts";
import { Http2Channel, type Call } from "../client/http2-channel.ts";
import { frameMessage, MessageReader } from "../client/message-framing.ts";
import type { Target } from "../client/target.ts";
import { describeRequest } from "./describe-request.ts";
import { forwardHttp } from "./recording-http.ts";
import type { TraceCall } from "./trace-format.ts";

export interface RecordingProxy {
  readonly port: number;
  close(): Promise<void>;
}

export interface RecordingOptions {
  readonly upstream: Target;
  readonly host: string;
  readonly port: number;
  readonly keepBytes: boolean;
  readonly onCall: (call: TraceCall) => void;
}

/** Hop-by-hop fields and those that the outgoing connection sets itself. */
const NOT_FORWARDED = new Set(["te", "content-type", "user-agent", "connection", "host"]);

export async function startRecordingProxy(options: RecordingOptions): Promise<RecordingProxy> {
  const begunMs = performance.now();
  const server: Http2Server = createServer({ settings: { initialWindowSize: 1024 * 1024 } });
  const connectionOf = new WeakMap<Socket, number>();
  let connections = 0;
  const channels = new Set<Http2Channel>();
  server.on("session", (session) => {
    const connection = connections++;
    // One outgoing connection for each incoming one: what a client multiplexes stays multiplexed.
    const channel = new Http2Channel(options.upstream, { maxMessageBytes: 256 * 1024 * 1024 });
    channels.add(channel);
    session.on("error", () => undefined);
    session.on("close", () => {
      channels.delete(channel);
      channel.close();
    });
    session.on(
      "stream",
      (stream, headers) =>
        void forward(stream as ServerHttp2Stream, headers, { ...options, channel, connection, begunMs }),
    );
  });
  const agent = options.upstream.tls
    ? new TlsAgent({ keepAlive: true, ca: options.upstream.certificateAuthority })
    : new Agent({ keepAlive: true });
  const httpServer = createHttpServer((incoming, answer) => {
    const connection = connectionOf.get(incoming.socket) ?? connections++;
    connectionOf.set(incoming.socket, connection);
    forwardHttp(incoming, answer, { ...options, agent, connection, begunMs });
  });
  const sockets = new Set<Socket>();
  const listener = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    sniff(socket, (protocol) => (protocol === "http2" ? server : httpServer).emit("connection", socket));
  });
  await new Promise<void>((resolve, reject) => {
    listener.once("error", reject);
    listener.listen(options.port, options.host, resolve);
  });
  return {
    port: (listener.address() as AddressInfo).port,
    close: async () => {
      for (const channel of channels) channel.close();
      agent.destroy();
      await new Promise<void>((resolve) => {
        listener.close(() => resolve());
        // Connections of clients that stay would keep the proxy open for ever; what they wait for may still end.
        setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, CLOSE_MS);
      });
    },
  };
}

const CLOSE_MS = 500;

/** Reads until the first octets say what they are, and puts them back; the socket never flows, or HTTP/2 misses them. */
function sniff(socket: Socket, onProtocol: (protocol: "http1" | "http2") => void): void {
  let seen: Buffer = Buffer.alloc(0);
  const onReadable = (): void => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    seen = Buffer.concat([seen, chunk]);
    const protocol = sniffProtocol(seen);
    if (protocol === "undecided") return;
    socket.off("readable", onReadable);
    socket.unshift(seen);
    onProtocol(protocol);
  };
  socket.on("readable", onReadable);
}

interface ForwardContext extends RecordingOptions {
  readonly channel: Http2Channel;
  readonly connection: number;
  readonly begunMs: number;
}

async function forward(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  context: ForwardContext,
): Promise<void> {
  stream.on("error", () => undefined);
  const atMs = performance.now();
  const path = String(headers[":path"]);
  const sent: number[] = [];
  const messages: string[] = [];
  let description = {};
  let received = 0;
  let call: Call;
  try {
    call = await context.channel.start(path, { metadata: forwarded(headers) });
  } catch (error) {
    stream.respond(
      {
        ":status": 200,
        "content-type": "application/grpc",
        "grpc-status": "14",
        "grpc-message": encodeURIComponent(error instanceof Error ? error.message : String(error)),
      },
      { endStream: true },
    );
    return;
  }
  stream.on("aborted", () => call.cancel());
  const upwards = async (): Promise<void> => {
    const reader = new MessageReader(256 * 1024 * 1024);
    for await (const chunk of stream) {
      for (const message of reader.push(chunk as Buffer)) {
        if (sent.length === 0) description = describeRequest(path, message);
        sent.push(message.length);
        if (context.keepBytes) messages.push(Buffer.from(message).toString("base64"));
        await call.send(message);
      }
    }
    call.end();
  };
  // A client that breaks off ends the iteration with an error; the call is cancelled by "aborted".
  void upwards().catch(() => undefined);
  let responded = false;
  for (let message = await call.receive(); message !== undefined; message = await call.receive()) {
    received += message.length;
    if (!responded) stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    responded = true;
    if (stream.destroyed) break;
    await new Promise<void>((resolve) => {
      stream.once("close", resolve);
      stream.write(frameMessage(message), () => {
        stream.off("close", resolve);
        resolve();
      });
    });
  }
  const outcome = await call.outcome;
  finish(stream, responded, { "grpc-status": String(outcome.code), ...trailersOf(outcome) });
  context.onCall({
    at: round(atMs - context.begunMs),
    took: round(performance.now() - atMs),
    connection: context.connection,
    path,
    code: outcome.code,
    sent,
    received,
    ...description,
    ...(context.keepBytes ? { messages } : {}),
  });
}

function finish(stream: ServerHttp2Stream, responded: boolean, trailers: Record<string, string>): void {
  if (stream.destroyed || stream.closed) return;
  if (!responded) {
    stream.respond({ ":status": 200, "content-type": "application/grpc", ...trailers }, { endStream: true });
    return;
  }
  stream.on("wantTrailers", () => {
    stream.sendTrailers(trailers);
    // An early answer: the client must hear that nobody reads on.
    if (!stream.readableEnded) setImmediate(() => stream.close());
  });
  stream.end();
}

function forwarded(headers: IncomingHttpHeaders): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith(":") && !NOT_FORWARDED.has(name) && value !== undefined)
      metadata[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return metadata;
}

function trailersOf(outcome: Awaited<Call["outcome"]>): Record<string, string> {
  const trailers: Record<string, string> = {};
  if (outcome.message !== "") trailers["grpc-message"] = encodeURIComponent(outcome.message);
  const source = outcome.trailers.size > 0 ? outcome.trailers : outcome.headers;
  const details = source.get("grpc-status-details-bin");
  if (details !== undefined) trailers["grpc-status-details-bin"] = details;
  return trailers;
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
