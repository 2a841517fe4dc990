// One HTTP/1.1 request to the HTTP cache protocol: status, headers, body; nothing is decoded or followed.
//
// A refused upload is an answer like any other: the response counts even when the connection breaks while the body is
// still being sent.

import { Agent, request as httpStart, type IncomingMessage } from "node:http";
import { Agent as TlsAgent, request as httpsStart } from "node:https";

export interface HttpTarget {
  /** `http://127.0.0.1:8980` or with a prefix, without a slash at the end. */
  readonly baseUrl: string;
  /** Its pool of connections, to be destroyed by whoever made the target. */
  readonly agent: Agent;
}

export function httpTarget(baseUrl: string, ca?: Buffer): HttpTarget {
  const options = { keepAlive: true, maxSockets: 32 };
  const agent = baseUrl.startsWith("https:")
    ? new TlsAgent({ ...options, ...(ca === undefined ? {} : { ca }) })
    : new Agent(options);
  return { baseUrl: baseUrl.replace(/\/$/, ""), agent };
}

export interface HttpRequest {
  readonly method: string;
  /** From the slash on, appended to the base URL. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Sends the body without Content-Length. */
  readonly chunked?: boolean;
  readonly timeoutMs: number;
  readonly onSend?: (sizeBytes: number) => void;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export function httpRequest(target: HttpTarget, request: HttpRequest): Promise<HttpAnswer> {
  const base = new URL(target.baseUrl);
  const isTls = base.protocol === "https:";
  const body = request.body;
  if (body !== undefined) request.onSend?.(body.length);
  return new Promise((resolve, reject) => {
    const start = isTls ? httpsStart : httpStart;
    const outgoing = start({
      host: base.hostname.replace(/^\[|\]$/g, ""),
      port: base.port === "" ? (isTls ? 443 : 80) : base.port,
      method: request.method,
      // Not through URL: a check may ask for "/../".
      path: `${base.pathname.replace(/\/$/, "")}${request.path}`,
      agent: target.agent,
      headers: {
        ...(body === undefined || request.chunked === true ? {} : { "content-length": String(body.length) }),
        ...request.headers,
      },
    });
    let response: IncomingMessage | undefined;
    const timer = setTimeout(
      () => outgoing.destroy(new Error(`no answer within ${request.timeoutMs} ms`)),
      request.timeoutMs,
    );
    outgoing.on("error", (error) => {
      if (response !== undefined) return;
      clearTimeout(timer);
      reject(error);
    });
    outgoing.on("response", (incoming) => {
      response = incoming;
      const chunks: Buffer[] = [];
      const finish = (): void => {
        clearTimeout(timer);
        resolve({ status: incoming.statusCode ?? 0, headers: flatten(incoming), body: Buffer.concat(chunks) });
      };
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("end", finish);
      incoming.on("error", finish);
    });
    if (body === undefined) outgoing.end();
    else if (request.chunked === true) {
      outgoing.write(body);
      outgoing.end();
    } else outgoing.end(body);
  });
}

function flatten(incoming: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(incoming.headers))
    headers[name] = Array.isArray(value) ? value.join(", ") : (value ?? "");
  return headers;
}
