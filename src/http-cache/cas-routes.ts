// /cas/{hash}: blobs over HTTP.
//
// Invariant: a PUT is answered with 200 only when the blob was verified and is readable. Whether the body is compressed
// on the way is between client and server; the blob is the same.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { BlobStore } from "../cas/blob-store.ts";
import { MIN_COMPRESSIBLE_BYTES, type Zstd } from "../base/zstd.ts";
import { parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { acceptBody, readPutHeaders, type PutRequest } from "./put-request.ts";
import { readBody, readWholeBody } from "./request-body.ts";
import { acceptsZstd, matchesETag, parseRange } from "./request-headers.ts";
import { discardBody, sendBytes, sendEmpty, sendPiece, sendText, sendUnsatisfiable } from "./respond.ts";

export interface CasRouteDeps {
  readonly blobs: BlobStore;
  readonly zstd: Zstd;
  /** 0 = no limit. */
  readonly maxBlobSizeBytes: number;
}

/** Blobs up to here are handled whole. */
const WHOLE_BYTES = 64 * 1024;
const MAX_WHOLE_PUT_BYTES = 512 * 1024;

export async function getCas(
  deps: CasRouteDeps,
  route: { readonly fn: DigestFunction; readonly hash: string },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const sizeBytes = await deps.blobs.findSize(route.fn, route.hash);
  if (sizeBytes === undefined) return sendText(response, 404, `blob "${route.hash}" is not in the CAS`);
  const digest: Digest = { fn: route.fn, hash: route.hash, sizeBytes };
  const tag = `"${route.hash}"`;
  const headers: OutgoingHttpHeaders = {
    "Content-Type": "application/octet-stream",
    "Cache-Control": "public, max-age=31536000, immutable",
    ETag: tag,
    "Accept-Ranges": "bytes",
    Vary: "Accept-Encoding",
  };
  if (matchesETag(request.headers["if-none-match"], tag)) return sendEmpty(response, 304, headers);
  if (request.method === "HEAD") {
    response.writeHead(200, { ...headers, "Content-Length": sizeBytes });
    response.end();
    return;
  }
  const range = request.headers.range;
  const zstd = acceptsZstd(request.headers["accept-encoding"]);
  if (zstd && range === undefined && sizeBytes >= MIN_COMPRESSIBLE_BYTES) {
    return sendCompressed(deps, digest, response, { ...headers, "Content-Encoding": "zstd" });
  }
  await sendPlain(deps.blobs, digest, response, { headers, range });
}

async function sendPlain(
  blobs: BlobStore,
  digest: Digest,
  response: ServerResponse,
  options: { readonly headers: OutgoingHttpHeaders; readonly range: string | undefined },
): Promise<void> {
  const range = parseRange(options.range, digest.sizeBytes);
  if (range === "unsatisfiable") return sendUnsatisfiable(response, digest.sizeBytes);
  if (range === undefined && digest.sizeBytes <= WHOLE_BYTES) {
    const data = await blobs.get(digest);
    if (data === undefined) return sendText(response, 404, `blob "${digest.hash}" is not in the CAS`);
    return sendBytes(response, options.headers, data);
  }
  const offsetBytes = range?.start ?? 0;
  const lengthBytes = range === undefined ? digest.sizeBytes : range.end - range.start + 1;
  await using reader = disposable(await blobs.openRead(digest, { offsetBytes, limitBytes: lengthBytes }));
  response.writeHead(range === undefined ? 200 : 206, {
    ...options.headers,
    "Content-Length": lengthBytes,
    ...(range === undefined ? {} : { "Content-Range": `bytes ${range.start}-${range.end}/${digest.sizeBytes}` }),
  });
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
    await sendPiece(response, chunk);
  }
  response.end();
}

async function sendCompressed(
  { blobs, zstd }: CasRouteDeps,
  digest: Digest,
  response: ServerResponse,
  headers: OutgoingHttpHeaders,
): Promise<void> {
  if (digest.sizeBytes <= WHOLE_BYTES) {
    const data = await blobs.get(digest);
    if (data === undefined) return sendText(response, 404, `blob "${digest.hash}" is not in the CAS`);
    return sendBytes(response, headers, await zstd.compress(data));
  }
  await using reader = disposable(await blobs.openRead(digest));
  const compressor = zstd.createCompressor(digest.sizeBytes);
  try {
    response.writeHead(200, headers);
    for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
      for await (const piece of compressor.push(chunk)) await sendPiece(response, piece);
    }
    for await (const piece of compressor.finish()) await sendPiece(response, piece);
    response.end();
  } finally {
    compressor.close();
  }
}

export async function putCas(
  deps: CasRouteDeps,
  route: { readonly fn: DigestFunction; readonly hash: string },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const put = readPutHeaders(request, response);
  if (put === undefined) return;
  const digest = parseDigest(route.fn, { hash: route.hash, sizeBytes: put.sizeBytes }, `blob "${route.hash}"`);
  if (deps.maxBlobSizeBytes > 0 && put.sizeBytes > deps.maxBlobSizeBytes) {
    sendText(response, 413, `the blob has ${put.sizeBytes} bytes, at most ${deps.maxBlobSizeBytes} are allowed`);
    return discardBody(request);
  }
  if (await deps.blobs.has(digest)) {
    // Bazel puts every output of every action, without asking first: most of them are here already.
    sendEmpty(response, 200);
    return discardBody(request, Number.POSITIVE_INFINITY);
  }
  acceptBody(request, response);
  await store(deps, digest, request, put);
  sendEmpty(response, 200);
}

async function store(deps: CasRouteDeps, digest: Digest, request: IncomingMessage, put: PutRequest): Promise<void> {
  const { blobs, zstd } = deps;
  if (put.sizeBytes <= MAX_WHOLE_PUT_BYTES) return blobs.put(digest, await readWholeBody(request, put, zstd));
  const upload = await blobs.openUpload(digest);
  try {
    for await (const slab of readBody(request, put, zstd)) await upload.write(slab);
    await upload.finish();
  } finally {
    await upload.abort();
  }
}

/** A reader that closes at the end of its scope. */
function disposable<T extends { close(): Promise<void> }>(resource: T): T & AsyncDisposable {
  return Object.assign(resource, { [Symbol.asyncDispose]: () => resource.close() });
}
