// `ledge serve`: starts the server, says where it is, and ends it on SIGTERM or SIGINT.

import { allowAssetsBelow } from "../base/embedded-assets.ts";
import { createLogger, type Logger } from "../telemetry/log.ts";
import { readServeArguments } from "./serve-config.ts";
import { buildInfo, versionText } from "./version.ts";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** What a shell reports for a process that died of the signal. */
const SIGNAL_EXIT_CODES = { SIGTERM: 143, SIGINT: 130 } as const;
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
  // Loaded only now: what comes with it opens native add-ons, and the data directory is one of the places to extract them.
  if (config.dataDir !== ":memory:") allowAssetsBelow(config.dataDir);
  const { startServer } = await import("../server/lifecycle.ts");
  const { bannerText } = await import("../server/banner.ts");

  let server;
  try {
    server = await startServer({ config, buildInfo: buildInfo(), logger });
  } catch (error) {
    logger.error(error instanceof Error ? error.message : String(error));
    logger.debug("stack", { stack: error instanceof Error ? error.stack : undefined });
    return 1;
  }
  process.stdout.write(
    bannerText({ version: versionText(), config, addresses: server.addresses, execution: server.execution }),
  );
  const signal = await signaled;
  await server.stop();
  logger.info("stopped", { signal });
  setTimeout(() => process.exit(), LINGER_MS).unref();
  return 0;
}

/** Resolves with the first signal; the second one ends the process at once. */
function untilSignal(logger: Logger): Promise<string> {
  return new Promise((resolve) => {
    let received = false;
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        if (received) {
          logger.warn("second signal: exits at once", { signal });
          process.exit(SIGNAL_EXIT_CODES[signal]);
        }
        received = true;
        resolve(signal);
      });
    }
  });
}
