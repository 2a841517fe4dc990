// The HTTP/1.1 side of the recording proxy: one request forwarded, and what a trace keeps of it.
//
// Invariant: method, path, fields and body pass unchanged; of the path a trace keeps the store and the hash, never the
// prefix, which may name a person or hold a token. Bodies pass in pieces: the slower side sets the pace.

import {
  request as startHttp,
  type Agent,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type ServerResponse,
} from "node:http";
import { request as startHttps } from "node:https";
import type { Target } from "../client/target.ts";
import type { TraceCall } from "./trace-format.ts";

export interface HttpForwarding {
  readonly upstream: Target;
  readonly agent: Agent;
  readonly keepBytes: boolean;
  /** Of the incoming connection. */
  readonly connection: number;
  readonly begunMs: number;
  readonly onCall: (call: TraceCall) => void;
}

/** Fields about one connection, not about the request. */
const HOP_BY_HOP = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"]);

const CACHE_PATH = /(?:^|\/)(ac|cas)\/([0-9a-f]{32,128})$/;

export function forwardHttp(incoming: IncomingMessage, answer: ServerResponse, context: HttpForwarding): void {
  const atMs = performance.now();
  const kept: Buffer[] = [];
  let [sent, received, isWritten] = [0, 0, false];
  const write = (code: number): void => {
    if (isWritten) return;
    isWritten = true;
    const endMs = performance.now();
    context.onCall({
      at: round(atMs - context.begunMs),
      took: round(endMs - atMs),
      connection: context.connection,
      method: incoming.method ?? "",
      code,
      sent: [sent],
      received,
      ...describePath(incoming.url ?? "", sent > 0 ? sent : received),
      ...(context.keepBytes ? { messages: [Buffer.concat(kept).toString("base64")] } : {}),
    });
  };
  const outgoing = startUpstream(incoming, context, (response) => {
    answer.writeHead(response.statusCode ?? 502, passed(response.headers));
    response.on("data", (chunk: Buffer) => (received += chunk.length));
    response.on("close", () => write(response.statusCode ?? 0));
    // A broken response must not look whole.
    response.on("error", () => answer.destroy());
    response.on("aborted", () => answer.destroy());
    response.pipe(answer);
  });
  outgoing.on("error", (error) => {
    if (!answer.headersSent) answer.writeHead(502, { "content-type": "text/plain" }).end(`${error.message}\n`);
    else answer.destroy();
    write(502);
  });
  // The client went away: nobody waits for the rest.
  answer.on("close", () => {
    if (!answer.writableFinished) outgoing.destroy();
  });
  incoming.on("data", (chunk: Buffer) => {
    sent += chunk.length;
    if (context.keepBytes) kept.push(chunk);
  });
  incoming.pipe(outgoing);
}

function startUpstream(
  incoming: IncomingMessage,
  { upstream, agent }: HttpForwarding,
  onResponse: (response: IncomingMessage) => void,
): ReturnType<typeof startHttp> {
  const start = upstream.tls ? startHttps : startHttp;
  const where =
    upstream.socketPath === undefined
      ? { host: upstream.host, port: upstream.port }
      : { socketPath: upstream.socketPath };
  const { url: path = "/", method = "GET" } = incoming;
  return start({ ...where, method, path, agent, headers: passed(incoming.headers) }, onResponse);
}

function passed(headers: IncomingMessage["headers"]): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name)));
}

function describePath(url: string, sizeBytes: number): Pick<TraceCall, "path" | "digests"> {
  const [, store, hash] = CACHE_PATH.exec(url.split("?")[0]!) ?? [];
  if (store === undefined || hash === undefined) return { path: "/" };
  return { path: `/${store}`, digests: [{ hash, size: sizeBytes }] };
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
