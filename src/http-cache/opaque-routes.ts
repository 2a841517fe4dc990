// Below an opaque prefix: any key, any bytes, for clients whose bodies are not action results (ccache, sccache, Gradle).
//
// Invariant: a value is seen whole or not at all. Collections are virtual: every path that ends in a slash is one, and
// making one stores nothing. Source: wire/http-cache.md 5; RFC 4918 for the two WebDAV methods.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { OpaqueInfo, OpaqueStore } from "../cas/opaque-store.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import { acceptBody } from "./put-request.ts";
import { chunksOf, readPlainBody } from "./request-body.ts";
import { declaredSize, parseRange } from "./request-headers.ts";
import { discardBody, sendEmpty, sendPiece, sendText, sendUnsatisfiable } from "./respond.ts";

export interface OpaqueRouteDeps {
  readonly opaque: OpaqueStore;
  readonly maxOpaqueBytes: number;
}

export interface OpaqueRoute {
  readonly key: string;
  readonly path: string;
  readonly isCollection: boolean;
}

export const OPAQUE_METHODS = "GET, HEAD, PUT, DELETE, PROPFIND, MKCOL, OPTIONS";

export async function serveOpaque(
  deps: OpaqueRouteDeps,
  route: OpaqueRoute,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  switch (request.method) {
    case "GET":
    case "HEAD":
      return get(deps.opaque, route, request, response);
    case "PUT":
      return put(deps, route, request, response);
    case "DELETE": {
      const existed = !route.isCollection && (await deps.opaque.delete(route.key));
      return existed ? sendEmpty(response, 204) : sendText(response, 404, `there is no "${route.path}"`);
    }
    case "PROPFIND":
      discardBody(request); // which properties are asked for makes no difference
      return propfind(deps.opaque, route, request, response);
    case "MKCOL":
      discardBody(request);
      return sendEmpty(response, 201);
    case "OPTIONS":
      return sendEmpty(response, 200, { Allow: OPAQUE_METHODS, DAV: "1" });
    default:
      sendText(response, 405, `${request.method} is not possible here`, { Allow: OPAQUE_METHODS });
      return discardBody(request);
  }
}

async function get(
  opaque: OpaqueStore,
  route: OpaqueRoute,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const info = route.isCollection ? undefined : await opaque.find(route.key);
  if (info === undefined) return sendText(response, 404, `there is no "${route.path}"`);
  const range = parseRange(request.headers.range, info.sizeBytes);
  if (range === "unsatisfiable") return sendUnsatisfiable(response, info.sizeBytes);
  const lengthBytes = range === undefined ? info.sizeBytes : range.end - range.start + 1;
  const headers = {
    "Content-Type": "application/octet-stream",
    "Content-Length": lengthBytes,
    "Accept-Ranges": "bytes",
    "Last-Modified": new Date(info.modifiedAtMs).toUTCString(),
    ETag: tagOf(info),
    "Cache-Control": "no-cache",
    ...(range === undefined ? {} : { "Content-Range": `bytes ${range.start}-${range.end}/${info.sizeBytes}` }),
  };
  const status = range === undefined ? 200 : 206;
  if (request.method === "HEAD" || lengthBytes === 0) {
    response.writeHead(status, headers);
    response.end();
    return;
  }
  const reader = await opaque.openRead(route.key, { offsetBytes: range?.start ?? 0, limitBytes: lengthBytes });
  if (reader === undefined) return sendText(response, 404, `there is no "${route.path}"`);
  try {
    // Overwritten since find(): the length that was promised would be wrong.
    if (reader.sizeBytes !== info.sizeBytes) {
      throw new StatusError(Code.UNAVAILABLE, `"${route.path}" changed while it was read: try again`);
    }
    response.writeHead(status, headers);
    for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
      await sendPiece(response, chunk);
    }
    response.end();
  } finally {
    await reader.close();
  }
}

async function put(
  deps: OpaqueRouteDeps,
  route: OpaqueRoute,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (route.isCollection) throw invalidArgument(`"${route.path}/" is a collection: a key does not end in a slash`);
  // An encoding is part of an opaque value: kept as it came, no business of ours.
  const sizeBytes = declaredSize({ ...request.headers, "x-digest-sizebytes": undefined }, "identity");
  if (sizeBytes !== undefined && sizeBytes > deps.maxOpaqueBytes) {
    sendText(response, 413, `the value has ${sizeBytes} bytes, at most ${deps.maxOpaqueBytes} are allowed`);
    return discardBody(request);
  }
  acceptBody(request, response);
  const chunks = sizeBytes === undefined ? chunksOf(request) : readPlainBody(request, sizeBytes);
  await deps.opaque.put(route.key, chunks, deps.maxOpaqueBytes);
  sendEmpty(response, 200);
}

async function propfind(
  opaque: OpaqueStore,
  route: OpaqueRoute,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const depth = request.headers["depth"] ?? "0";
  if (depth !== "0") {
    return sendText(
      response,
      403,
      `PROPFIND with Depth "${String(depth)}": collections cannot be listed, only Depth 0`,
    );
  }
  const info = route.isCollection ? undefined : await opaque.find(route.key);
  if (info === undefined && !route.isCollection) return sendText(response, 404, `there is no "${route.path}"`);
  const body = Buffer.from(multistatus(route, info));
  response.writeHead(207, { "Content-Type": "application/xml; charset=utf-8", "Content-Length": body.length });
  response.end(body);
}

function multistatus(route: OpaqueRoute, info: OpaqueInfo | undefined): string {
  const href = route.path.split("/").map(encodeURIComponent).join("/") + (info === undefined ? "/" : "");
  const properties =
    info === undefined
      ? `<D:resourcetype><D:collection/></D:resourcetype>${modified(0)}`
      : `<D:resourcetype/>${modified(info.modifiedAtMs)}<D:getcontentlength>${info.sizeBytes}</D:getcontentlength>` +
        `<D:getcontenttype>application/octet-stream</D:getcontenttype><D:getetag>${tagOf(info)}</D:getetag>`;
  return (
    `<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:"><D:response><D:href>${href}</D:href>` +
    `<D:propstat><D:prop>${properties}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>` +
    "</D:response></D:multistatus>\n"
  );
}

function modified(atMs: number): string {
  return `<D:getlastmodified>${new Date(atMs).toUTCString()}</D:getlastmodified>`;
}

function tagOf(info: OpaqueInfo): string {
  return `"${info.sizeBytes.toString(36)}-${Math.floor(info.modifiedAtMs).toString(36)}"`;
}
