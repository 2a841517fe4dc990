// From a configuration to a server that accepts, and from a signal to a clean end.
//
//   lock → compose → listen on every address → port file → SERVING
//   signal → NOT_SERVING → stop accepting → calls end, or --drain-timeout passes → close stores → unlock
//
// Invariant: the port file exists only once every address accepts, and the data directory is unlocked only after
// everything that uses it is closed.

import { unlink } from "node:fs/promises";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { formatAddress, type ListenAddress } from "../grpc/server.ts";
import type { Logger } from "../telemetry/log.ts";
import { composeServer, type ComposedServer, type ServerParts } from "./compose.ts";
import type { ExecutionStatus } from "./compose-execution.ts";
import type { ServerConfig } from "./config.ts";
import { lockDataDir, waitForDataDirLock, type DataDirLock } from "./data-dir-lock.ts";

/** A predecessor closes its stores after its drain timeout. */
const PREDECESSOR_MARGIN_MS = 10_000;

export interface RunningServer {
  /** With the ports the kernel chose, in the order of the configuration. */
  readonly addresses: readonly ListenAddress[];
  readonly execution: ExecutionStatus;
  /** Ends the server as drawn above. Resolves when nothing of it is left. */
  stop(): Promise<void>;
}

/** Throws, with everything undone, when any step fails. */
export async function startServer(parts: ServerParts): Promise<RunningServer> {
  const { config, logger } = parts;
  await using undo = new AsyncDisposableStack();
  if (config.dataDir !== ":memory:") {
    const lock = await takeLock(config);
    undo.defer(() => lock.release());
  }
  const server = await composeServer(parts);
  undo.defer(() => server.close());
  undo.defer(() => server.transport.close({ signal: AbortSignal.abort() }));
  const addresses: ListenAddress[] = [];
  for (const address of config.listen) addresses.push(await server.transport.listen(address));
  if (config.portFile !== undefined) await writePortFile(config.portFile, addresses, undo);
  server.health.setServing(true);

  const rest = undo.move();
  return {
    addresses,
    execution: server.execution,
    async stop() {
      await using _rest = rest;
      await drain(server, config, logger);
    },
  };
}

/**
 * With sockets that were handed over, the server before us may still be draining: clients wait in the sockets' backlog
 * meanwhile, so waiting for the directory refuses nobody. Otherwise two servers are a mistake, and said at once.
 */
function takeLock(config: ServerConfig): Promise<DataDirLock> {
  const handedOver = config.listen.some(({ kind }) => kind === "fd");
  return handedOver
    ? waitForDataDirLock(config.dataDir, config.drainTimeoutMs + PREDECESSOR_MARGIN_MS)
    : lockDataDir(config.dataDir);
}

async function drain(server: ComposedServer, config: ServerConfig, logger: Logger): Promise<void> {
  // First, so that a load balancer that watches sends nothing more, and its own Watch call ends.
  server.health.setServing(false);
  const { activeCalls } = server.transport;
  logger.info("stops accepting", { activeCalls, drainTimeoutMs: config.drainTimeoutMs });
  const timeout = new AbortController();
  const timer = setTimeout(() => {
    logger.warn("drain timeout: closes what is under way", { activeCalls: server.transport.activeCalls });
    timeout.abort();
  }, config.drainTimeoutMs);
  const { signal } = timeout;
  await Promise.all([server.transport.close({ signal }), server.scheduler.drain({ signal })]);
  clearTimeout(timer);
}

async function writePortFile(
  path: string,
  addresses: readonly ListenAddress[],
  undo: AsyncDisposableStack,
): Promise<void> {
  await writeFileAtomic(path, addresses.map((address) => `${formatAddress(address)}\n`).join(""));
  // A file that names a port nobody listens on any more would send clients astray.
  undo.defer(() => unlink(path).catch(() => undefined));
}
