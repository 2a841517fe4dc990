// The seam of the server transport: sockets in, calls out, HTTP/1.1 handed on.
//
// Implementations: transport.ts (product) and one over node:http2 in test/grpc/ (oracle).

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import type { Service } from "./service.ts";

/** Where to listen: one of these forms. Port 0 lets the kernel choose. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  /** An inherited listening socket (socket activation). */
  | { readonly kind: "fd"; readonly fd: number };

export interface TransportOptions {
  readonly services: readonly Service[];
  /** Serves HTTP/1.1 requests on the same sockets. */
  readonly http1: (request: IncomingMessage, response: ServerResponse) => void;
  /** Bytes of one request message where the method does not say (4 MiB + 64 KiB). */
  readonly defaultMaxRequestBytes: number;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  readonly tls?: TlsOptions;
  /** After about this long (10 % more or less) a connection is asked to end; 0 or absent: never. */
  readonly maxConnectionAgeMs?: number;
  /** Connections of one client address; 0: any number. Absent: 512, and any number from this machine itself. */
  readonly maxConnectionsPerAddress?: number | undefined;
}

export interface TlsOptions {
  readonly certPath: string;
  readonly keyPath: string;
  readonly clientCaPath?: string;
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
}

export interface ServerTransport {
  /** Starts accepting; resolves to the address with the real port. Throws with a message that names the address. */
  listen(address: ListenAddress): Promise<ListenAddress>;
  /** Calls under way. */
  readonly activeCalls: number;
  /** Stops accepting, lets calls under way finish until `signal` aborts, then closes every connection. */
  close(options: { readonly signal: AbortSignal }): Promise<void>;
}

/** `grpc://127.0.0.1:8980` for people and `--port-file` alike, without the scheme: `127.0.0.1:8980`, `unix:/path`. */
export function formatAddress(address: ListenAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  if (address.kind === "fd") return `fd:${address.fd}`;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
