// HTTP answers: short texts, empty ones, and streams in pull form.
//
// Invariant: every answer has a Content-Length or is chunked; Bazel closes the connection otherwise. What a refused
// client still sends is read and thrown away, up to a bound, because clients do not look at answers before they have
// sent everything.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { once } from "node:events";
import { Code, StatusError, toStatusError } from "../base/status.ts";

/** What a client may still send after a refusal before its connection is cut. */
const MAX_DISCARDED_BYTES = 64 * 1024 * 1024;

/** Bazel shows error bodies; they are for people. */
export function sendText(
  response: ServerResponse,
  status: number,
  text: string,
  headers: OutgoingHttpHeaders = {},
): void {
  const body = Buffer.from(`${text}\n`);
  response.writeHead(status, {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": body.length,
    "X-Content-Type-Options": "nosniff",
    ...headers,
  });
  response.end(response.req.method === "HEAD" ? undefined : body);
}

export function sendEmpty(response: ServerResponse, status: number, headers: OutgoingHttpHeaders = {}): void {
  response.writeHead(status, { ...(status === 204 || status === 304 ? {} : { "Content-Length": 0 }), ...headers });
  response.end();
}

/** 416: no byte of the requested range exists. */
export function sendUnsatisfiable(response: ServerResponse, sizeBytes: number): void {
  sendText(response, 416, `the content has ${sizeBytes} bytes`, { "Content-Range": `bytes */${sizeBytes}` });
}

export function sendBytes(response: ServerResponse, headers: OutgoingHttpHeaders, body: Uint8Array): void {
  response.writeHead(200, { "Content-Length": body.length, ...headers });
  response.end(response.req.method === "HEAD" ? undefined : body);
}

/** Sends one piece and waits until there is room for the next; throws CANCELLED when the client is gone. */
export async function sendPiece(response: ServerResponse, piece: Uint8Array): Promise<void> {
  if (response.destroyed) throw new StatusError(Code.CANCELLED, "the client closed its connection");
  if (response.write(piece)) return;
  const gone = new AbortController();
  const onClose = (): void => gone.abort();
  response.once("close", onClose);
  try {
    await once(response, "drain", { signal: gone.signal });
  } finally {
    response.off("close", onClose);
  }
}

/** Answers with the error's text, unless the answer has begun: then the connection is cut, so that it looks cut. */
export function sendError(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { code, message } = toStatusError(error);
  const status = httpStatus(code, response.req.method === "PUT");
  sendText(response, status, message, status === 503 ? { "Retry-After": 1 } : {});
  discardBody(response.req);
}

/** Reads what is left of a body nobody wants; cuts the connection when that is too much. */
export function discardBody(request: IncomingMessage, maxBytes = MAX_DISCARDED_BYTES): void {
  if (request.readableEnded || request.destroyed) return;
  let discardedBytes = 0;
  request.on("data", (chunk: Uint8Array) => {
    discardedBytes += chunk.length;
    if (discardedBytes > maxBytes) request.destroy();
  });
  request.on("error", () => undefined); // the client went away: just as well
  request.resume();
}

const HTTP_STATUS: Partial<Record<Code, number>> = {
  [Code.INVALID_ARGUMENT]: 400,
  [Code.FAILED_PRECONDITION]: 400,
  [Code.NOT_FOUND]: 404,
  [Code.ALREADY_EXISTS]: 409,
  [Code.UNAUTHENTICATED]: 401,
  [Code.PERMISSION_DENIED]: 403,
  [Code.OUT_OF_RANGE]: 416,
  [Code.UNIMPLEMENTED]: 501,
  [Code.UNAVAILABLE]: 503,
  [Code.DEADLINE_EXCEEDED]: 504,
};

function httpStatus(code: Code, isPut: boolean): number {
  if (code === Code.RESOURCE_EXHAUSTED) return isPut ? 507 : 503;
  return HTTP_STATUS[code] ?? 500;
}
