// The HTTP/1.1 cache: Bazel's /cas and /ac, an opaque key-value store, /status and /metrics.
//
// Invariant: every request gets exactly one answer, and an error of one never reaches another. Routes are route.ts; what
// each does is in a file of its own. Source: wire/http-cache.md.

import type { IncomingMessage, ServerResponse } from "node:http";
import { Code, invalidArgument, toStatusError } from "../base/status.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { getAc, putAc, type AcRouteDeps } from "./ac-routes.ts";
import { getCas, putCas, type CasRouteDeps } from "./cas-routes.ts";
import { METRICS_CONTENT_TYPE, renderMetrics } from "./metrics-page.ts";
import { serveOpaque, type OpaqueRouteDeps } from "./opaque-routes.ts";
import { holdBody } from "./put-request.ts";
import { discardBody, sendBytes, sendError, sendText } from "./respond.ts";
import { parseRoute, type Route } from "./route.ts";
import { renderStatus, type StorageStatus } from "./status-page.ts";

export interface HttpCacheDeps extends AcRouteDeps, CasRouteDeps, OpaqueRouteDeps {
  /** Below these paths lies the opaque store; they begin with "/". */
  readonly opaquePrefixes: readonly string[];
  readonly metrics: MetricsRegistry;
  readonly logger: Logger;
  readonly storageStatus: () => StorageStatus;
  readonly version: string;
  readonly gitCommit: string;
}

export function createHttpCache(deps: HttpCacheDeps): (request: IncomingMessage, response: ServerResponse) => void {
  const opaquePrefixes = deps.opaquePrefixes.map(checkPrefix);
  const count = requestCounter(deps.metrics);
  return (request, response) => {
    holdBody(request, response);
    response.on("error", () => undefined); // the client went away; whoever writes next hears of it
    response.once("close", () => count(request.method ?? "", response.statusCode));
    serve(deps, opaquePrefixes, request, response).catch((error: unknown) => {
      // A client that went away needs no answer, and its error no line in the log.
      if (request.destroyed && !request.readableEnded) return;
      const { code, message } = toStatusError(error);
      if (code === Code.INTERNAL || code === Code.DATA_LOSS || code === Code.UNKNOWN) {
        deps.logger.error("HTTP request failed", { method: request.method, url: request.url, error: message });
      }
      sendError(response, error);
    });
  };
}

async function serve(
  deps: HttpCacheDeps,
  opaquePrefixes: readonly string[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const route = parseRoute(request.url ?? "", opaquePrefixes);
  if (route.kind === "opaque") return serveOpaque(deps, route, request, response);
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (isRead) return serveRead(deps, route, request, response);
  if (request.method === "PUT" && route.kind === "cas") return putCas(deps, route, request, response);
  if (request.method === "PUT" && route.kind === "ac") return putAc(deps, route, request, response);
  const allow = route.kind === "cas" || route.kind === "ac" ? "GET, HEAD, PUT" : "GET, HEAD";
  sendText(response, 405, `${request.method} is not possible here, only ${allow}`, { Allow: allow });
  discardBody(request);
}

async function serveRead(
  deps: HttpCacheDeps,
  route: Exclude<Route, { kind: "opaque" }>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  switch (route.kind) {
    case "cas":
      return getCas(deps, route, request, response);
    case "ac":
      return getAc(deps, route, request, response);
    case "status": {
      const facts = { ...deps, storage: deps.storageStatus(), nowMs: deps.clock.nowMs() };
      return sendBytes(response, { "Content-Type": "application/json" }, Buffer.from(renderStatus(facts)));
    }
    case "metrics":
      return sendBytes(response, { "Content-Type": METRICS_CONTENT_TYPE }, Buffer.from(renderMetrics(deps.metrics)));
  }
}

function checkPrefix(prefix: string): string {
  const trimmed = prefix.replace(/\/$/, "");
  if (!/^(\/[^/]+)+$/.test(trimmed)) throw invalidArgument(`opaque prefix "${prefix}" is not a path such as "/opaque"`);
  return trimmed;
}

/** Methods that clients make up share one series, so that they cannot make up series. */
const COUNTED_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "PUT", "DELETE", "PROPFIND", "MKCOL", "OPTIONS"]);

function requestCounter(metrics: MetricsRegistry): (method: string, status: number) => void {
  return (method, status) => {
    const labels = { method: COUNTED_METHODS.has(method) ? method : "other", code: String(status) };
    metrics.counter("ledge_http_requests_total", "HTTP requests by method and status.", labels).add();
  };
}
