// /{instance}/ac/{hash}: action results over HTTP, the same entries that gRPC sees under that instance name.
//
// Invariant: the same checks as gRPC: what is stored is a checked ActionResult, what is answered is complete. JSON is
// only another form of the body. Source: wire/http-cache.md 3.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { ActionCache, ActionKey } from "../action-cache/action-cache.ts";
import { actionResultFromJson, actionResultToJson } from "../action-cache/action-result-json.ts";
import { prepareActionResult } from "../action-cache/prepare-action-result.ts";
import type { Clock } from "../base/clock.ts";
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

const JSON_TYPE = "application/json";

export async function getAc(
  deps: AcRouteDeps,
  key: ActionKey,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const result = await deps.actionCache.get(key);
  if (result === undefined) return sendText(response, 404, `no result of action "${key.hash}" is cached`);
  const headers = { "Cache-Control": "no-cache", Vary: "Accept" };
  if (request.headers.accept === JSON_TYPE) {
    return sendBytes(response, { ...headers, "Content-Type": JSON_TYPE }, Buffer.from(actionResultToJson(result)));
  }
  sendBytes(response, { ...headers, "Content-Type": "application/octet-stream" }, result);
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
  acceptBody(request, response);
  const body = await readWholeBody(request, put, deps.zstd);
  const writer = peerOf(request);
  const isJson = request.headers["content-type"] === JSON_TYPE;
  const serialized = isJson ? actionResultFromJson(Buffer.from(body).toString()) : body;
  const { result, worker } = await prepareActionResult(serialized, {
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
