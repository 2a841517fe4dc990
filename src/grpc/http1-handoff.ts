// Hands sockets that speak HTTP/1.1 to a node:http server that never listens itself (F-7, P-40 to P-46).

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";

const HEADERS_TIMEOUT_MS = 10_000;
/** Node looks every 30 s, which would triple the timeout. */
const CHECK_INTERVAL_MS = 2_500;
/** Bazel's pool reuses connections; Node's 5 s race with it. */
const KEEP_ALIVE_TIMEOUT_MS = 120_000;
const MAX_HEADER_BYTES = 32 * 1024;

export class Http1Handoff {
  readonly #server: Server;

  constructor(handler: (request: IncomingMessage, response: ServerResponse) => void) {
    this.#server = createServer(
      {
        // Uploads of big blobs over slow links take longer than Node's 300 s.
        requestTimeout: 0,
        headersTimeout: HEADERS_TIMEOUT_MS,
        connectionsCheckingInterval: CHECK_INTERVAL_MS,
        keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
        maxHeaderSize: MAX_HEADER_BYTES,
        insecureHTTPParser: false,
        requireHostHeader: true,
      },
      handler,
    );
    // The handler answers 100 itself, after it has looked at the headers: a refusal must come before the body.
    this.#server.on("checkContinue", handler);
    // A server that does not listen never starts the check that enforces headersTimeout (P-42).
    this.#server.emit("listening");
  }

  /** Serves `socket`, whose unread octets include those that were peeked at. */
  accept(socket: Socket): void {
    this.#server.emit("connection", socket);
    socket.resume();
  }

  /** Closes connections without a request now and the others after theirs. */
  drain(): void {
    this.#server.closeIdleConnections();
    // Responses under way say "Connection: close", and node closes behind them.
    this.#server.keepAliveTimeout = 1;
    this.#server.close(() => undefined);
  }
}
