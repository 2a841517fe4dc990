// Runs one action: reads it, builds its input root, runs it, collects its outputs, stores its result.
//
// Invariant: a result goes into the action cache only when the command ended by itself with exit code 0, the action may
// be cached, and every output is in the CAS. Whatever happens, pins are released and the build directory leaves the
// slot. When an action runs is the scheduler's business; how a process is isolated the runner's.

import type { Clock } from "../base/clock.ts";
import { Code, StatusError, invalidArgument, toStatusError } from "../base/status.ts";
import type { ActionCache } from "../action-cache/action-cache.ts";
import type { BlobStore, Pin } from "../cas/blob-store.ts";
import type { Digest, DigestFunction } from "../digest/digest.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import { ActionResult, type ActionResultInit } from "../proto/remote_execution.ts";
import {
  DEFAULT_INPUT_ROOT_PATH_INSIDE,
  RunnerLostError,
  type Mount,
  type Runner,
  type RunLimits,
  type RunResult,
  type RunSpec,
} from "../runner/runner.ts";
import type { Logger } from "../telemetry/log.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { parseAction, parseCommand, type ActionFields, type CommandFields } from "./action-command.ts";
import { actionEnvironment } from "./action-environment.ts";
import { mountsOfAction, type ConfiguredMount } from "./action-mounts.ts";
import type { BuildDirectories, BuildDirectory } from "./build-directories.ts";
import { ExecutionTimeline, executionMetadata } from "./execution-metadata.ts";
import type { ActionJob, ActionOutcome, Executor } from "./executor.ts";
import type { FileThreads } from "./file-threads.ts";
import { materializeInputRoot, type InputRoot, type InputRootSource } from "./input-root.ts";
import { KeptDirectories, type LeftRoot } from "./kept-directories.ts";
import { collect } from "./outputs.ts";
import { NextDirectories, type TakenDirectory } from "./next-directories.ts";
import { interpretPlatform, type PlatformDemand, type PlatformOffer } from "./platform-properties.ts";
import type { MountedSubtree } from "./read-only-subtrees.ts";
import { runnerVerdict } from "./run-verdict.ts";

export interface ActionExecutorOptions {
  readonly slots: number;
  readonly workerName: string;
  readonly store: BlobStore;
  readonly actionCache: ActionCache;
  readonly runner: Runner;
  readonly threads: FileThreads;
  readonly buildDirectories: BuildDirectories;
  readonly inputRoots: InputRootSource;
  /** Hashes messages of ours (compute/hash.ts). */
  readonly digestOf: (fn: DigestFunction, data: Uint8Array) => Digest;
  readonly platform: PlatformOffer;
  readonly rootModeOf: (instanceName: string) => "host" | "input-root" | { readonly image: string };
  readonly mounts: readonly ConfiguredMount[];
  readonly defaultTimeoutMs: number;
  readonly maxTimeoutMs: number;
  readonly limits: Omit<RunLimits, "timeoutMs">;
  readonly maxOutputEntries: number;
  readonly maxOutputBytes: number;
  /** Bounds of what stays on the disk for the next actions (kept-directories.ts). */
  readonly maxKeptEntries: number;
  readonly maxKeptBytes: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
}

/** Everything about an action that does not depend on files. */
interface ParsedAction extends CommandFields {
  readonly action: ActionFields;
  readonly demand: PlatformDemand;
  readonly mounts: readonly Mount[];
  readonly timeoutMs: number;
}

/** A run interrupted by the loss of the runner has had no effect on anything but its build directory. */
const MAX_ATTEMPTS = 2;
/** Messages of this size do not occur; a blob named as a Command by mistake can be anything. */
const MAX_COMMAND_BYTES = 64 * 1024 * 1024;
/** What a sandbox mounts over an input root that is the root file system. */
const MOUNT_POINTS = ["dev", "proc", "tmp"];

export class ActionExecutor implements Executor {
  readonly slots: number;
  readonly unavailableReason = undefined;
  readonly #options: ActionExecutorOptions;
  readonly #nextDirectories: NextDirectories;
  readonly #keptDirectories: KeptDirectories;
  #nextRun = 1;

  constructor(options: ActionExecutorOptions) {
    this.slots = options.slots;
    this.#options = options;
    this.#nextDirectories = new NextDirectories(options);
    const { maxKeptEntries: maxEntries, maxKeptBytes: maxBytes } = options;
    this.#keptDirectories = new KeptDirectories({ ...options, maxEntries, maxBytes });
  }

  async prepare(job: ActionJob): Promise<void> {
    await this.#parse(job);
  }

  async execute(
    job: ActionJob,
    options: { readonly signal: AbortSignal; readonly slot: number },
  ): Promise<ActionOutcome> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(job, options.slot, options.signal);
      } catch (error) {
        if (!(error instanceof RunnerLostError)) throw error;
        this.#options.logger.warn("the runner was lost", {
          action: job.actionDigest.hash,
          attempt,
          error: error.message,
        });
        if (attempt < MAX_ATTEMPTS) continue;
        const message = `The runner was lost ${attempt} times while this action ran: ${error.message}`;
        return { result: undefined, status: new StatusError(Code.UNAVAILABLE, message, { cause: error }) };
      }
    }
  }

  /** One action from its digest to its result: every line is a step. Rejects only with RunnerLostError. */
  async #attempt(job: ActionJob, slot: number, signal: AbortSignal): Promise<ActionOutcome> {
    const { buildDirectories, clock, runner } = this.#options;
    const timeline = new ExecutionTimeline(job.queuedAtMs, clock.nowMs());
    const { directory, isMade } = this.#nextDirectories.take(slot);
    const held: Pin[] = [];
    const pin = (digests: Iterable<Digest>) => void held.push(this.#options.store.pin(digests));
    let result: ActionResultInit | undefined;
    let status: StatusError | undefined;
    let left: LeftRoot | undefined;
    try {
      const parsed = await this.#parse(job);
      timeline.inputFetchStartedAtMs = clock.nowMs();
      const inputRoot = await this.#materialize(job, parsed, { directory, isMade }, slot, pin);
      for (const { tree } of inputRoot.mounts) held.push(tree);
      timeline.inputFetchedAtMs = clock.nowMs();
      signal.throwIfAborted();
      const spec = this.#runSpec(job, parsed, directory, slot, inputRoot);
      this.#nextDirectories.make(slot);
      const { layout } = inputRoot;
      const startedAtMs = clock.nowMs();
      const run = await runner.run(spec, { signal });
      this.#nextDirectories.prepareSandbox(spec);
      timeline.run = run;
      this.#count(run);
      if (run.outcome.kind === "exited") left = { directory, layout, startedAtMs };
      const verdict = runnerVerdict(run.outcome, parsed.timeoutMs);
      status = verdict.status;
      timeline.outputUploadStartedAtMs = clock.nowMs();
      const { streams, outputs } = await this.#collect(job, verdict.hasOutputs ? parsed : undefined, directory, {
        ...inputRoot,
        logBytes: run.logBytes,
      });
      timeline.outputUploadedAtMs = clock.nowMs();
      result = { exitCode: verdict.exitCode, ...streams, executionMetadata: this.#metadata(timeline) };
      if (outputs instanceof StatusError) throw outputs;
      result = { ...result, ...outputs };
      if (verdict.isCacheable && job.cacheable) await this.#remember(job, result);
    } catch (error) {
      if (error instanceof RunnerLostError) throw error;
      status ??= toStatusError(error);
    } finally {
      for (const pinned of held) pinned.release();
      if (left === undefined) await buildDirectories.discard(directory);
      else this.#keptDirectories.keep(slot, left);
    }
    return { result: result === undefined ? undefined : ActionResult.encode(result), status };
  }

  async #parse(job: ActionJob): Promise<ParsedAction> {
    const { store, platform, metrics } = this.#options;
    const action = parseAction(job.actionDigest.fn, job.action);
    const { commandDigest } = action;
    if (commandDigest.sizeBytes > MAX_COMMAND_BYTES) {
      throw invalidArgument(
        `Command.size_bytes is ${commandDigest.sizeBytes}, at most ${MAX_COMMAND_BYTES} are accepted`,
      );
    }
    const bytes = await store.get(commandDigest);
    if (bytes === undefined) throw missingBlobs([commandDigest], "Command");
    const command = parseCommand(bytes);
    const properties = action.platform ?? command.platform;
    const demand = interpretPlatform(properties, platform, (name) =>
      metrics.counter("ledge_platform_properties_ignored_total", "Platform properties without effect", { name }),
    );
    const mounts = mountsOfAction(this.#options.mounts, properties);
    const timeoutMs = this.#timeoutMs(action.timeoutMs);
    return { ...command, action, demand, mounts, timeoutMs };
  }

  #timeoutMs(requestedMs: number | undefined): number {
    const { defaultTimeoutMs, maxTimeoutMs } = this.#options;
    if (requestedMs === undefined) return Math.min(defaultTimeoutMs, maxTimeoutMs);
    if (requestedMs <= maxTimeoutMs) return requestedMs;
    throw invalidArgument(
      `Action.timeout is ${requestedMs / 1000} s, at most ${maxTimeoutMs / 1000} s are accepted (--max-action-timeout)`,
    );
  }

  async #materialize(
    job: ActionJob,
    parsed: ParsedAction,
    taken: TakenDirectory,
    slot: number,
    pin: (digests: Iterable<Digest>) => void,
  ): Promise<InputRoot> {
    const { paths, files, directories } = parsed.outputs;
    const supply = await this.#keptDirectories.supplyFor(slot);
    const made = materializeInputRoot(this.#options.inputRoots, {
      digest: parsed.action.inputRootDigest,
      ...taken,
      owner: this.#options.runner.ownerOf(slot),
      workingDirectory: parsed.workingDirectory,
      outputs: [...paths, ...files, ...directories].map(({ names }) => names),
      mountPoints: this.#rootMode(job, parsed) === "input-root" ? MOUNT_POINTS : [],
      supply,
      pin,
    });
    made.catch((error: unknown) => {
      this.#keptDirectories.abandon(slot);
      if (toStatusError(error).code === Code.RESOURCE_EXHAUSTED) this.#keptDirectories.discardAll();
    });
    return made;
  }

  #rootMode(job: ActionJob, { demand }: ParsedAction): RunSpec["rootMode"] {
    return demand.imagePath === undefined ? this.#options.rootModeOf(job.instanceName) : { image: demand.imagePath };
  }

  #runSpec(
    job: ActionJob,
    parsed: ParsedAction,
    directory: BuildDirectory,
    slot: number,
    { mounts }: InputRoot,
  ): RunSpec {
    const { demand } = parsed;
    const { limits } = this.#options;
    const rootMode = this.#rootMode(job, parsed);
    const inside = rootMode === "input-root" ? "" : (demand.inputRootPathInside ?? DEFAULT_INPUT_ROOT_PATH_INSIDE);
    return {
      id: `${job.actionDigest.hash.slice(0, 12)}-${this.#nextRun++}`,
      slot,
      inputRootPath: directory.rootPath,
      rootMode,
      ...(demand.inputRootPathInside === undefined ? {} : { inputRootPathInside: demand.inputRootPathInside }),
      mounts: [...mounts.map((mount) => subtreeMount(mount, inside)), ...parsed.mounts],
      arguments: parsed.arguments,
      environment: actionEnvironment(parsed.environment, demand.environment),
      workingDirectory: parsed.workingDirectory.join("/"),
      stdoutPath: directory.stdoutPath,
      stderrPath: directory.stderrPath,
      network: demand.network,
      limits: { ...limits, ...narrowerMemory(limits.memoryBytes, demand.memoryBytes), timeoutMs: parsed.timeoutMs },
      ...(demand.unixUid === undefined ? {} : { unixUid: demand.unixUid }),
      ...(demand.unixGid === undefined ? {} : { unixGid: demand.unixGid }),
    };
  }

  /** stdout and stderr are kept whatever happened, outputs only with `parsed`. */
  #collect(
    job: ActionJob,
    parsed: ParsedAction | undefined,
    directory: BuildDirectory,
    { tree, logBytes }: Pick<InputRoot, "tree"> & { readonly logBytes: number | undefined },
  ) {
    const { store, threads, digestOf, maxOutputEntries, maxOutputBytes } = this.#options;
    const collector = { store, threads, digestOf, maxEntries: maxOutputEntries, maxBytes: maxOutputBytes };
    const isRoot = this.#options.rootModeOf(job.instanceName) === "input-root";
    const inputNames = new Set(tree.directories.get(tree.rootDigest.hash)?.directories.map(({ name }) => name));
    return collect(collector, {
      directory,
      outputs: parsed?.outputs,
      fn: job.actionDigest.fn,
      mountPoints: isRoot ? MOUNT_POINTS.filter((name) => !inputNames.has(name)) : [],
      logBytes,
    });
  }

  /** A result that cannot be stored is still a result; the next equal action runs again. */
  async #remember(job: ActionJob, result: ActionResultInit): Promise<void> {
    const { actionCache, workerName, clock, logger } = this.#options;
    const { instanceName, actionDigest } = job;
    try {
      await actionCache.put(
        { instanceName, fn: actionDigest.fn, hash: actionDigest.hash },
        ActionResult.encode(result),
        {
          writer: "executor",
          worker: workerName,
          writtenAtMs: clock.nowMs(),
          ...definedFields({
            toolInvocationId: job.toolInvocationId,
            targetId: job.targetId,
            actionMnemonic: job.actionMnemonic,
          }),
        },
      );
    } catch (error) {
      logger.warn("an action result was not cached", {
        action: actionDigest.hash,
        error: toStatusError(error).message,
      });
    }
  }

  #metadata(timeline: ExecutionTimeline) {
    return executionMetadata(this.#options.workerName, timeline, this.#options.clock.nowMs());
  }

  #count({ outcome }: RunResult): void {
    const { metrics } = this.#options;
    metrics.counter("ledge_actions_executed_total", "Actions run, by how they ended", { outcome: outcome.kind }).add();
  }
}

function subtreeMount({ path, tree }: MountedSubtree, inside: string): Mount {
  return { source: tree.path, destination: `${inside}/${path}`, writable: false, optional: false };
}

function narrowerMemory(operator: number | undefined, demanded: number | undefined): { memoryBytes?: number } {
  const bytes = Math.min(operator ?? Number.POSITIVE_INFINITY, demanded ?? Number.POSITIVE_INFINITY);
  return Number.isFinite(bytes) ? { memoryBytes: bytes } : {};
}

function definedFields<T extends Record<string, string | undefined>>(fields: T): { [Key in keyof T]?: string } {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [Key in keyof T]?: string };
}
