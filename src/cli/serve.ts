// `ledge serve`: starts the server, says where it is, and ends it on SIGTERM or SIGINT.

import { assertAddressSpace } from "../base/address-space.ts";
import { allowAssetsBelow } from "../base/embedded-assets.ts";
import type { ServerParts } from "../server/compose.ts";
import type { RunningServer } from "../server/lifecycle.ts";
import { createLogger, type Logger } from "../telemetry/log.ts";
import { readServeArguments } from "./serve-config.ts";
import { buildInfo, versionText } from "./version.ts";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** What a shell reports for a process that died of the signal. */
const SIGNAL_EXIT_CODES = { SIGTERM: 143, SIGINT: 130 } as const;
/** timeout(1) signals its child and then the whole group: the same signal this soon is the first one heard twice. */
const ECHO_MS = 50;
/** How long things that forgot to close may keep the process after its work is done. */
const LINGER_MS = 2000;

/** Returns the exit code once the server has ended. */
export async function runServe(args: readonly string[]): Promise<number> {
  const { config, installBubblewrap, notes } = readServeArguments(args);
  const logger = createLogger({ level: config.logLevel, format: config.logFormat });
  for (const note of notes) logger.warn(note);
  const signaled = untilSignal(logger);
  if (installBubblewrap && config.slots > 0 && config.sandbox !== "none") {
    await (await import("./bubblewrap-install.ts")).installBubblewrapIfMissing(config.bwrapPath);
  }
  if (!hasAddressSpace(logger)) return 1;
  // Loaded only now: what comes with it opens native add-ons, and the data directory is one of the places to extract them.
  if (config.dataDir !== ":memory:") allowAssetsBelow(config.dataDir);
  const { startServer } = await import("../server/lifecycle.ts");
  const { bannerFields, bannerText } = await import("../server/banner.ts");

  const server = await Promise.race([
    startOrExplain({ config, buildInfo: buildInfo(), logger }, startServer),
    signaled,
  ]);
  if (server === undefined) return endSoon(1);
  // Nothing was served yet, so nothing has to be finished: what is half open ends with the process, as after a kill.
  if (typeof server === "string") process.exit(0);
  const facts = { version: versionText(), config, addresses: server.addresses, execution: server.execution };
  // Whoever wants JSON reads the log with a program, perhaps stdout and stderr as one.
  if (config.logFormat === "json") logger.info("ready", bannerFields(facts));
  else process.stdout.write(bannerText(facts));
  const signal = await signaled;
  await server.stop();
  logger.info("stopped", { signal });
  return endSoon(0);
}

/** Says what is wrong before threads start, which would end the process without a word. */
function hasAddressSpace(logger: Logger): boolean {
  try {
    assertAddressSpace();
    return true;
  } catch (error) {
    logger.error(error instanceof Error ? error.message : String(error));
    return false;
  }
}

/** Returns `exitCode`, and sees to it that nothing that forgot to close keeps the process for long. */
function endSoon(exitCode: number): number {
  setTimeout(() => process.exit(exitCode), LINGER_MS).unref();
  return exitCode;
}

/** Says why when it cannot start. */
async function startOrExplain(
  parts: ServerParts,
  start: (parts: ServerParts) => Promise<RunningServer>,
): Promise<RunningServer | undefined> {
  try {
    return await start(parts);
  } catch (error) {
    parts.logger.error(error instanceof Error ? error.message : String(error));
    parts.logger.debug("stack", { stack: error instanceof Error ? error.stack : undefined });
    return undefined;
  }
}

/** Resolves with the first signal; the second one ends the process at once. */
function untilSignal(logger: Logger): Promise<string> {
  return new Promise((resolve) => {
    let first: { readonly signal: string; readonly atMs: number } | undefined;
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        const nowMs = performance.now();
        if (first === undefined) {
          first = { signal, atMs: nowMs };
          resolve(signal);
        } else if (signal !== first.signal || nowMs - first.atMs > ECHO_MS) {
          logger.warn("second signal: exits at once", { signal });
          process.exit(SIGNAL_EXIT_CODES[signal]);
        }
      });
    }
  });
}
