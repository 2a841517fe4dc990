// What a PUT says about its body before the body comes: encoding, size, and whether the client waits to be asked for it.
//
// Invariant: `accept` is called before the body is read, so that a client with `Expect: 100-continue` sends nothing that
// is refused.

import type { IncomingMessage, ServerResponse } from "node:http";
import { sendText } from "./respond.ts";
import { bodyEncoding, declaredSize, type BodyEncoding } from "./request-headers.ts";

export interface PutRequest {
  readonly sizeBytes: number;
  readonly encoding: BodyEncoding;
}

/** Undefined when the request was answered: 411 without a size. Throws INVALID_ARGUMENT for headers that make no sense. */
export function readPutHeaders(request: IncomingMessage, response: ServerResponse): PutRequest | undefined {
  const encoding = bodyEncoding(request.headers);
  const sizeBytes = declaredSize(request.headers, encoding);
  if (sizeBytes !== undefined) return { sizeBytes, encoding };
  sendText(response, 411, "send Content-Length, or X-Digest-SizeBytes with a chunked body", { Connection: "close" });
  return undefined;
}

/**
 * To be called before anything else. Whether a client that waits for `100 Continue` sends its body after another answer
 * is up to it, so what comes next on the connection could be either: it is closed unless the body was asked for.
 */
export function holdBody(request: IncomingMessage, response: ServerResponse): void {
  if (awaitsContinue(request)) response.shouldKeepAlive = false;
}

/** Asks for the body where the client waits for that. */
export function acceptBody(request: IncomingMessage, response: ServerResponse): void {
  if (!awaitsContinue(request)) return;
  response.shouldKeepAlive = true;
  response.writeContinue();
}

function awaitsContinue(request: IncomingMessage): boolean {
  return request.headers.expect?.toLowerCase() === "100-continue";
}
