// /{instance}/ac/{hash}: action results over HTTP, the same entries that gRPC sees under that instance name.
//
// Invariant: the same checks as gRPC: what is stored is a checked ActionResult, what is answered is complete.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { ActionCache, ActionKey } from "../action-cache/action-cache.ts";
import { prepareActionResult } from "../action-cache/prepare-action-result.ts";
import type { Clock } from "../base/clock.ts";
import { invalidArgument } from "../base/status.ts";
import type { Zstd } from "../base/zstd.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import type { Digest, DigestFunction } from "../digest/digest.ts";
import { acceptBody, readPutHeaders } from "./put-request.ts";
import { readWholeBody } from "./request-body.ts";
import { discardBody, sendBytes, sendEmpty, sendText } from "./respond.ts";

export interface AcRouteDeps {
  readonly actionCache: ActionCache;
  readonly blobs: BlobStore;
  readonly zstd: Zstd;
  readonly clock: Clock;
  readonly digestOf: (fn: DigestFunction, data: Uint8Array) => Digest;
}

/** As for UpdateActionResult: a result naming 100,000 outputs has some 10 MiB. */
const MAX_RESULT_BYTES = 16 * 1024 * 1024;

export async function getAc(deps: AcRouteDeps, key: ActionKey, response: ServerResponse): Promise<void> {
  const result = await deps.actionCache.get(key);
  if (result === undefined) return sendText(response, 404, `no result of action "${key.hash}" is cached`);
  sendBytes(response, { "Content-Type": "application/octet-stream", "Cache-Control": "no-cache" }, result);
}

export async function putAc(
  deps: AcRouteDeps,
  key: ActionKey,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const put = readPutHeaders(request, response);
  if (put === undefined) return;
  if (put.sizeBytes > MAX_RESULT_BYTES) {
    sendText(response, 413, `the action result has ${put.sizeBytes} bytes, at most ${MAX_RESULT_BYTES} are allowed`);
    return discardBody(request);
  }
  if (request.headers["content-type"] === "application/json") {
    throw invalidArgument("action results in JSON are not supported: send the serialized ActionResult");
  }
  acceptBody(request, response);
  const body = await readWholeBody(request, put, deps.zstd);
  const writer = peerOf(request);
  const { result, worker } = await prepareActionResult(body, {
    fn: key.fn,
    blobs: deps.blobs,
    digestOf: deps.digestOf,
    defaultWorker: writer,
  });
  await deps.actionCache.put(key, result, { writer, worker, writtenAtMs: deps.clock.nowMs() });
  sendEmpty(response, 200);
}

function peerOf(request: IncomingMessage): string {
  const { remoteAddress, remotePort } = request.socket;
  if (remoteAddress === undefined) return "unix:";
  return remoteAddress.includes(":") ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
}
