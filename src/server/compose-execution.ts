// The half of the composition root that runs actions: runner process, build directories, executor.
//
// Whether this server executes is decided here, by trying a real sandbox: `auto` goes on as a cache when none works,
// `require` refuses to start, `none` runs actions without isolation and says so loudly.

import { hostname } from "node:os";
import { join } from "node:path";
import type { ActionCache } from "../action-cache/action-cache.ts";
import type { Clock } from "../base/clock.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { digestOf } from "../compute/hash.ts";
import { startRunner, type StartedRunner } from "../runner/runner-client.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { ActionExecutor } from "../worker/action-executor.ts";
import { BuildDirectories } from "../worker/build-directories.ts";
import { DirectoryCache } from "../worker/directory-cache.ts";
import type { Executor } from "../worker/executor.ts";
import { FileCache } from "../worker/file-cache.ts";
import { FileThreads } from "../worker/file-threads.ts";
import { RecentTrees } from "../worker/input-tree.ts";
import { TreeCache } from "../worker/tree-cache.ts";
import type { ServerConfig } from "./config.ts";
import { configuredMounts, platformOffer, rootModeOf } from "./platform.ts";

/** Whether actions run here, and if not, why; the words go to the operator and to clients that call Execute. */
export type ExecutionStatus =
  | { readonly enabled: true; readonly slots: number; readonly isolation: string }
  | { readonly enabled: false; readonly reason: string };

export interface ExecutionParts {
  readonly config: ServerConfig;
  readonly blobs: BlobStore;
  readonly actionCache: ActionCache;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
}

export interface ComposedExecution {
  readonly executor: Executor;
  readonly status: ExecutionStatus;
}

/** Copies of blobs that input roots link to; a tenth of the store, since they come on top of it. */
const FILE_CACHE_SHARE = 0.1;
const FILE_CACHE_MAX_FILES = 200_000;
/** Names and inodes of subtrees kept for mounting; a root file system of BuildStream has 50,000. */
const TREE_CACHE_MAX_ENTRIES = 400_000;
/** Input directories kept on the disk for the next actions, of all slots together: names, and 200 bytes of memory each. */
const MAX_KEPT_ENTRIES = 100_000;
/** They are links to the store's files or copies of them, beside the file cache. */
const KEPT_SHARE = 0.1;
/** Outputs of one action. A tree of more files or more bytes is a runaway command, not a build step. */
const MAX_OUTPUT_ENTRIES = 1_000_000;
const MAX_OUTPUT_BYTES = 64 * 1024 ** 3;
/** Processes of one action at a time; compilers of a big link step use a few hundred. */
const MAX_PIDS = 8192;

/** What a try at running actions came to: a runner, or why there is none. */
export type RunnerOrReason = AvailableRunner | { readonly available: false; readonly reason: string };

/**
 * Starts the runner and lets it try a sandbox; needs nothing but the configuration, so that it goes on while the stores
 * open. Throws with --sandbox=require when none works. What it opens is closed by `cleanup`.
 */
export async function openRunner(
  config: ServerConfig,
  logger: Logger,
  cleanup: AsyncDisposableStack,
): Promise<RunnerOrReason> {
  const without = (reason: string) => ({ available: false, reason }) as const;
  if (config.slots === 0) return without("this server was started with --slots 0");
  if (config.dataDir === ":memory:") return without("with --data-dir :memory: there is no place for build directories");
  const started = await startRunner({
    sandbox: config.sandbox === "none" || config.sandbox === "own" ? config.sandbox : "bwrap",
    bwrapPath: config.bwrapPath,
    buildRootPath: buildRootPath(config),
    slots: config.slots,
    logger,
  });
  if (!started.available) return without(explainMissingSandbox(config, logger, started));
  cleanup.defer(() => started.runner.close());
  if (config.sandbox === "none") {
    logger.warn("--sandbox=none: actions run without isolation and can read and change what this user can");
  } else for (const warning of started.warnings) logger.warn("sandbox", { warning });
  return started;
}

/** What it opens is closed by `cleanup`. */
export async function composeExecution(
  parts: ExecutionParts,
  started: RunnerOrReason,
  cleanup: AsyncDisposableStack,
): Promise<ComposedExecution> {
  if (!started.available) {
    sweepBuildDirectories(parts.config, parts.logger, cleanup);
    return cacheOnly(started.reason);
  }
  const executor = await openExecutor(parts, started, cleanup);
  return { executor, status: { enabled: true, slots: parts.config.slots, isolation: isolationText(started) } };
}

/** Also a server that executes nothing clears what a killed one left. */
function sweepBuildDirectories(config: ServerConfig, logger: Logger, cleanup: AsyncDisposableStack): void {
  if (config.dataDir === ":memory:") return;
  try {
    const leftovers = BuildDirectories.removeLeftovers(buildRootPath(config));
    cleanup.defer(() => leftovers.close());
  } catch (error) {
    logger.warn("build directories of an earlier start cannot be removed", {
      path: buildRootPath(config),
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}

function buildRootPath({ dataDir }: ServerConfig): string {
  return join(dataDir, "exec");
}

type AvailableRunner = Extract<StartedRunner, { available: true }>;

async function openExecutor(
  parts: ExecutionParts,
  { runner }: AvailableRunner,
  cleanup: AsyncDisposableStack,
): Promise<Executor> {
  const { config, blobs: store, actionCache, clock, logger, metrics } = parts;
  const threads = new FileThreads();
  cleanup.defer(() => threads.close());
  const ownerOf = (slot: number) => runner.ownerOf(slot);
  const buildDirectories = await BuildDirectories.open({
    path: buildRootPath(config),
    slots: config.slots,
    ownerOf,
  });
  cleanup.defer(() => buildDirectories.close());
  const fileCache = new FileCache({
    directory: buildDirectories.fileCachePath,
    store,
    threads,
    maxBytes: Math.floor(config.maxSizeBytes * FILE_CACHE_SHARE),
    maxFiles: FILE_CACHE_MAX_FILES,
  });
  const trees = { directory: buildDirectories.treeCachePath, maxEntries: TREE_CACHE_MAX_ENTRIES };
  // Nothing is mounted for actions that run without a sandbox.
  const treeCache = config.sandbox === "none" ? undefined : new TreeCache(trees);
  // An action of our own user could write what it is linked to.
  const sharesFiles = ownerOf(0) !== undefined;
  const workerName = hostname();
  return new ActionExecutor({
    slots: config.slots,
    workerName,
    store,
    actionCache,
    runner,
    threads,
    buildDirectories,
    inputRoots: {
      store,
      directoryCache: new DirectoryCache(),
      recentTrees: new RecentTrees(),
      threads,
      fileCache,
      treeCache,
      sharesFiles,
    },
    digestOf,
    platform: platformOffer(workerName, config.platform),
    rootModeOf: (instanceName) => rootModeOf(config.platform, instanceName),
    mounts: configuredMounts(config.platform),
    defaultTimeoutMs: config.defaultActionTimeoutMs,
    maxTimeoutMs: config.maxActionTimeoutMs,
    limits: { maxLogBytes: config.maxLogBytes, maxPids: MAX_PIDS },
    maxOutputEntries: MAX_OUTPUT_ENTRIES,
    maxOutputBytes: MAX_OUTPUT_BYTES,
    maxKeptEntries: MAX_KEPT_ENTRIES,
    maxKeptBytes: Math.floor(config.maxSizeBytes * KEPT_SHARE),
    clock,
    logger,
    metrics,
  });
}

function explainMissingSandbox(
  config: ServerConfig,
  logger: Logger,
  { reason, remedy }: { readonly reason: string; readonly remedy: string },
): string {
  if (config.sandbox === "require") {
    throw new Error(`--sandbox=require, but no sandbox works here: ${reason}. To mend it: ${remedy}`);
  }
  logger.warn("no sandbox works here; this server is a cache only", { reason, remedy });
  return `${reason}. To mend it: ${remedy}`;
}

function isolationText({ condition }: AvailableRunner): string {
  const { availability } = condition;
  if (!availability.available || availability.profile === undefined) return "WITHOUT any isolation (--sandbox=none)";
  const { bwrapVersion } = availability.profile;
  if (condition.ownBuilder) return `each in a sandbox of our own (bwrap ${bwrapVersion} for what that cannot do)`;
  return `each in a bubblewrap sandbox (bwrap ${bwrapVersion})`;
}

function cacheOnly(reason: string): ComposedExecution {
  const refuse = async (): Promise<never> => {
    throw new Error(`this server does not execute actions: ${reason}`);
  };
  return {
    executor: { slots: 0, unavailableReason: reason, prepare: refuse, execute: refuse },
    status: { enabled: false, reason },
  };
}
