// Listening sockets: addresses in, accepted sockets out, everything closed in the end.
//
// Invariant: `listen` either accepts on the address or throws naming it; a socket file left by a dead server is replaced,
// one that answers is not.

import { readFileSync } from "node:fs";
import { lstat, unlink } from "node:fs/promises";
import { connect, createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { formatAddress, type ListenAddress } from "./server.ts";

/** Node's default of 511 loses connections when a big build starts (128 clients × 100 connections). */
const BACKLOG = 4096;

const KEEP_ALIVE_DELAY_MS = 60_000;

/**
 * L-16: connections of one listening socket; more are closed at once. What one address may have of them is
 * address-limits.ts. An idle connection costs about 12 KiB, so this many cost 200 MiB.
 */
const MAX_CONNECTIONS = 16_384;

/**
 * descriptors that connections leave to files, to the database and to LMDB's commits; of a small limit, half.
 * Above that, connections are closed as they come: a client that is told so tries again, a file that cannot be opened
 * fails a build.
 */
const RESERVED_DESCRIPTORS = 1024;

export class Listener {
  readonly #onSocket: (socket: Socket) => void;
  /** A connection was closed at once, as there are too many. */
  readonly #onDrop: () => void;
  readonly #servers: Server[] = [];

  constructor(onSocket: (socket: Socket) => void, onDrop: () => void) {
    this.#onSocket = onSocket;
    this.#onDrop = onDrop;
  }

  async listen(address: ListenAddress): Promise<ListenAddress> {
    const server = createServer(
      {
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
        allowHalfOpen: true,
      },
      this.#onSocket,
    );
    try {
      if (address.kind === "unix") await removeStaleSocket(address.path);
      await startListening(server, address);
    } catch (error) {
      throw new Error(`Cannot listen on ${formatAddress(address)}: ${explain(error)}`, { cause: error });
    }
    // Running out of descriptors makes accept fail for a while; the server goes on listening.
    server.on("error", () => undefined);
    server.maxConnections = Math.min(MAX_CONNECTIONS, descriptorsForConnections());
    server.on("drop", () => this.#onDrop());
    this.#servers.push(server);
    return boundAddress(server, address);
  }

  /** Stops accepting. Connections go on. */
  stop(): void {
    for (const server of this.#servers) server.close();
  }
}

/** Node raises the soft limit to the hard one when it starts; where /proc does not tell, nothing is known of a limit. */
function descriptorsForConnections(): number {
  let limits = "";
  try {
    limits = readFileSync("/proc/self/limits", "latin1");
  } catch {
    return MAX_CONNECTIONS;
  }
  const limit = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.NaN);
  if (Number.isNaN(limit)) return MAX_CONNECTIONS;
  return Math.max(limit - RESERVED_DESCRIPTORS, Math.floor(limit / 2));
}

/** With the port the kernel chose; for an inherited socket, what it is bound to. */
function boundAddress(server: Server, address: ListenAddress): ListenAddress {
  const bound = server.address();
  if (bound === null || address.kind === "unix") return address;
  if (typeof bound === "string") return { kind: "unix", path: bound };
  return { kind: "tcp", host: address.kind === "tcp" ? address.host : bound.address, port: bound.port };
}

function startListening(server: Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const listening = (): void => {
      server.off("error", reject);
      resolve();
    };
    if (address.kind === "fd") server.listen({ fd: address.fd } as ListenOptions, listening);
    else if (address.kind === "unix") server.listen({ path: address.path, backlog: BACKLOG }, listening);
    else server.listen({ host: address.host, port: address.port, backlog: BACKLOG }, listening);
  });
}

async function removeStaleSocket(path: string): Promise<void> {
  const entry = await lstat(path).catch(() => undefined);
  if (entry === undefined) return;
  if (!entry.isSocket()) throw new Error("a file that is no socket is in the way");
  const answers = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => resolve(true)).once("error", () => resolve(false));
    probe.once("close", () => probe.destroy());
    probe.once("connect", () => probe.destroy());
  });
  if (answers) throw new Error("another server listens there");
  await unlink(path);
}

function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? error.code : undefined;
  if (code === "EADDRINUSE") return "the address is in use by another process";
  if (code === "EACCES") return "permission denied";
  if (code === "EADDRNOTAVAIL") return "this machine has no such address";
  if (code === "ENOTFOUND") return "the host name is unknown";
  return error.message;
}

/** The peer of `socket` as the logs name it. */
export function peerName(socket: Socket): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return "unix:";
  const host = remoteAddress.startsWith("::ffff:") ? remoteAddress.slice(7) : remoteAddress;
  return host.includes(":") ? `[${host}]:${remotePort}` : `${host}:${remotePort}`;
}
