// An ActionExecutor on in-memory stores, with a fake runner unless a test brings a real one.

import { systemClock } from "../../src/base/clock.ts";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import type { BlobStore } from "../../src/cas/blob-store.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { parseDigest, type Digest } from "../../src/digest/digest.ts";
import { ActionResult, Directory, Tree } from "../../src/proto/remote_execution.ts";
import { openStorage, type Storage } from "../../src/cas/storage.ts";
import { startRunner } from "../../src/runner/runner-client.ts";
import type { Runner } from "../../src/runner/runner.ts";
import { createLogger, silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { ActionExecutor, type ActionExecutorOptions } from "../../src/worker/action-executor.ts";
import { BuildDirectories } from "../../src/worker/build-directories.ts";
import { DirectoryCache } from "../../src/worker/directory-cache.ts";
import type { ActionJob, ActionOutcome } from "../../src/worker/executor.ts";
import { FileCache } from "../../src/worker/file-cache.ts";
import { FileThreads } from "../../src/worker/file-threads.ts";
import { RecentTrees } from "../../src/worker/input-tree.ts";
import { TreeCache } from "../../src/worker/tree-cache.ts";
import type { PlatformOffer } from "../../src/worker/platform-properties.ts";
import { FakeRunner, type FakeProgram } from "../runner/fake-runner.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";
import { ActionBuilder } from "./action-builder.ts";

export const TEST_OFFER: PlatformOffer = {
  osFamily: "linux",
  isa: ["x86-64", "x86-avx2"],
  cores: 4,
  memoryBytes: 8 * 1024 ** 3,
  workerName: "test-worker",
  properties: new Map(),
  ignored: new Set(),
  images: new Map(),
  allowNetwork: false,
};

export interface FixtureOptions {
  readonly programs?: Readonly<Record<string, FakeProgram>>;
  /** Real sandboxes and a store on disk, as the server has them. */
  readonly isReal?: boolean;
  /** In memory, unless `isReal`. */
  readonly store?: BlobStore;
  /** Links files from a cache although the fake runner has no users of its own. */
  readonly withFileCache?: boolean;
  readonly slots?: number;
  readonly executor?: Partial<ActionExecutorOptions>;
}

export class ExecutorFixture implements AsyncDisposable {
  readonly store: BlobStore;
  readonly actionCache = new MemoryActionCache();
  readonly metrics = new MetricsRegistry();
  readonly build: ActionBuilder;
  readonly threads: FileThreads;
  readonly buildDirectories: BuildDirectories;
  readonly runner: Runner;
  readonly fileCache: FileCache;
  readonly treeCache: TreeCache;
  readonly executor: ActionExecutor;
  readonly execPath: string;
  readonly #close: () => Promise<void>;

  private constructor(
    parts: Pick<ExecutorFixture, "store" | "threads" | "buildDirectories" | "runner" | "execPath">,
    close: () => Promise<void>,
    options: FixtureOptions,
  ) {
    const { store, threads, buildDirectories, runner } = parts;
    this.store = store;
    this.threads = threads;
    this.buildDirectories = buildDirectories;
    this.runner = runner;
    this.execPath = parts.execPath;
    this.#close = close;
    this.build = new ActionBuilder(store);
    const sharesFiles = options.withFileCache === true || runner.ownerOf(0) !== undefined;
    const directory = buildDirectories.fileCachePath;
    this.fileCache = new FileCache({ directory, store, threads, maxBytes: 1 << 26, maxFiles: 10_000 });
    this.treeCache = new TreeCache({ directory: buildDirectories.treeCachePath, maxEntries: 100_000 });
    const { fileCache, treeCache } = this;
    this.executor = new ActionExecutor({
      slots: options.slots ?? 2,
      workerName: "test-worker",
      store,
      actionCache: this.actionCache,
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
      platform: TEST_OFFER,
      rootModeOf: () => "host",
      mounts: [],
      defaultTimeoutMs: 60_000,
      maxTimeoutMs: 3_600_000,
      limits: { maxLogBytes: 1 << 20 },
      maxOutputEntries: 2000,
      maxOutputBytes: 1 << 30,
      maxKeptEntries: 20_000,
      maxKeptBytes: 1 << 28,
      clock: systemClock,
      logger: silentLogger,
      metrics: this.metrics,
      ...options.executor,
    });
  }

  static async create(options: FixtureOptions = {}): Promise<ExecutorFixture> {
    const folder = await TemporaryFolder.create("executor");
    const execPath = `${folder.path}/data/exec`;
    const slots = options.slots ?? 2;
    const storage = options.isReal === true ? await openTestStorage(`${folder.path}/data`) : undefined;
    const runner = options.isReal === true ? await openTestRunner(execPath, slots) : new FakeRunner(options.programs);
    const threads = new FileThreads();
    const ownerOf = (slot: number) => runner.ownerOf(slot);
    const buildDirectories = await BuildDirectories.open({ path: execPath, slots, ownerOf });
    const store = storage?.blobs ?? options.store ?? new MemoryBlobStore();
    const close = async () => {
      await storage?.close();
      await folder[Symbol.asyncDispose]();
    };
    return new ExecutorFixture({ store, threads, buildDirectories, runner, execPath }, close, options);
  }

  async run(job: ActionJob, options: { signal?: AbortSignal; slot?: number } = {}): Promise<ReadOutcome> {
    const { signal = new AbortController().signal, slot = 0 } = options;
    return this.read(await this.executor.execute(job, { signal, slot }));
  }

  read(outcome: ActionOutcome): ReadOutcome {
    const result = outcome.result === undefined ? undefined : ActionResult.decode(outcome.result);
    return { status: outcome.status, result };
  }

  async bytes(wire: { hash: string; sizeBytes: number } | undefined): Promise<Uint8Array> {
    const digest: Digest = parseDigest(this.build.fn, wire, "digest");
    const bytes = await this.store.get(digest);
    if (bytes === undefined) throw new Error(`blob ${digest.hash} is not in the store`);
    return bytes;
  }

  async text(wire: { hash: string; sizeBytes: number } | undefined): Promise<string> {
    return Buffer.from(await this.bytes(wire)).toString();
  }

  async tree(wire: { hash: string; sizeBytes: number } | undefined): Promise<Tree> {
    return Tree.decode(await this.bytes(wire));
  }

  async directory(wire: { hash: string; sizeBytes: number } | undefined): Promise<Directory> {
    return Directory.decode(await this.bytes(wire));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runner.close();
    await this.buildDirectories.close();
    await this.threads.close();
    await this.#close();
  }
}

function openTestStorage(dataDir: string): Promise<Storage> {
  const metrics = new MetricsRegistry();
  return openStorage({ dataDir, maxSizeBytes: 1 << 30, clock: systemClock, logger: silentLogger, metrics, threads: 1 });
}

async function openTestRunner(buildRootPath: string, slots: number): Promise<Runner> {
  const logger = createLogger({ level: "error", format: "text" });
  const started = await startRunner({ sandbox: "bwrap", buildRootPath, slots, logger });
  if (!started.available) throw new Error(`No sandbox for tests: ${started.reason}; ${started.remedy}`);
  return started.runner;
}

export interface ReadOutcome {
  readonly status: ActionOutcome["status"];
  readonly result: ActionResult | undefined;
}
