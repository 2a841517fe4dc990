// Drives the scheduler's state: asks the action cache, prepares, runs on slots, wakes who watches, keeps the time.
//
// Invariant: after every change of the state the driver wakes the watchers of what changed and fills free slots. The
// rules are scheduler-state.ts; how an action runs is the executor's business.

import { randomUUID } from "node:crypto";
import type { ActionCache } from "../action-cache/action-cache.ts";
import type { Clock } from "../base/clock.ts";
import { Code, StatusError, notFound, toStatusError } from "../base/status.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import type { ActionJob, ActionOutcome, Executor } from "../worker/executor.ts";
import { DurationEstimates } from "./duration-estimates.ts";
import { Stage, type Inlining, type Operation, type OperationEnd, type QueuePosition, type Task } from "./operation.ts";
import { SchedulerState } from "./scheduler-state.ts";

export interface SchedulerOptions {
  readonly executor: Executor;
  /** With completeness checking: what it returns can be handed to a client. */
  readonly actionCache: ActionCache;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  readonly maxQueueDepth: number;
  readonly orphanGraceMs: number;
  /** 5 minutes unless a test says otherwise. */
  readonly retentionMs?: number;
  /** How often a watcher is told the current state again; 20 s. */
  readonly keepAliveMs?: number;
}

export interface ExecuteJob {
  readonly job: ActionJob;
  readonly inlining: Inlining;
  readonly doNotCache: boolean;
  readonly skipCacheLookup: boolean;
  /** Smaller runs sooner. */
  readonly priority: number;
}

/** One state of an operation, as a client is to see it. */
export interface OperationView {
  readonly operation: Operation;
  readonly stage: Stage;
  readonly end: OperationEnd | undefined;
  /** Only in stage QUEUED, and only when it is still queued. */
  readonly position: QueuePosition | undefined;
}

const DEFAULT_RETENTION_MS = 5 * 60_000;
/** Clients give up on a silent stream after 60 s; a third of it survives one lost message. */
const DEFAULT_KEEP_ALIVE_MS = 20_000;
/** How exact orphan grace and retention are. */
const SWEEP_INTERVAL_MS = 1000;
/** Waiters cost about 1 KiB each; more than this is a client that has lost count. */
const MAX_UNFINISHED_OPERATIONS = 65_536;
const MAX_FINISHED_OPERATIONS = 16_384;
const MAX_FINISHED_BYTES = 32 * 1024 * 1024;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #state: SchedulerState;
  readonly #estimates = new DurationEstimates();
  readonly #aborts = new Map<Task, AbortController>();
  readonly #listeners = new Map<Operation, Set<() => void>>();
  /** Resolved whenever a task ends; drain waits on it. */
  #taskEnded = Promise.withResolvers<void>();
  #cancelSweep: () => void = () => undefined;
  readonly #hits: Counter;
  readonly #merged: Counter;
  readonly #submitted: Counter;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#state = new SchedulerState({
      slots: options.executor.slots,
      maxQueueDepth: options.maxQueueDepth,
      maxUnfinishedOperations: MAX_UNFINISHED_OPERATIONS,
      maxFinishedOperations: MAX_FINISHED_OPERATIONS,
      maxFinishedBytes: MAX_FINISHED_BYTES,
      retentionMs: options.retentionMs ?? DEFAULT_RETENTION_MS,
      orphanGraceMs: options.orphanGraceMs,
    });
    const { metrics } = options;
    this.#submitted = metrics.counter("ledge_executions_requested_total", "Execute calls that became operations");
    this.#hits = metrics.counter("ledge_executions_cached_total", "Operations answered from the action cache");
    this.#merged = metrics.counter("ledge_executions_merged_total", "Operations that joined an equal one in flight");
    metrics.gauge("ledge_queue_depth", "Actions that wait for a slot", () => this.#state.queueDepth);
    metrics.gauge("ledge_actions_executing", "Actions in a slot", () => this.#state.executingCount);
    this.#scheduleSweep();
  }

  /** How many actions run at once, and why none when it is 0. */
  get slots(): number {
    return this.#options.executor.slots;
  }

  get unavailableReason(): string | undefined {
    return this.#options.executor.unavailableReason;
  }

  get queueDepth(): number {
    return this.#state.queueDepth;
  }

  get executingCount(): number {
    return this.#state.executingCount;
  }

  /**
   * Makes an operation of a request, in stage CACHE_CHECK or, when an equal action is in flight, in that one's stage.
   * Throws RESOURCE_EXHAUSTED or UNAVAILABLE; everything later ends the operation.
   */
  submit({ job, inlining, doNotCache, skipCacheLookup, priority }: ExecuteJob): Operation {
    const { instanceName, actionDigest } = job;
    const id = `operations/${randomUUID()}`;
    const useCache = !doNotCache && !skipCacheLookup;
    const { operation, task, isNew } = this.#state.submit(
      {
        name: instanceName === "" ? id : `${instanceName}/${id}`,
        job,
        inlining,
        mergeKey: doNotCache ? undefined : `${instanceName}\n${actionDigest.fn}\n${actionDigest.hash}`,
        useCache,
        priority,
        invocation: job.toolInvocationId ?? "",
        expectedMs: this.#estimates.estimateMs(job),
      },
      this.#nowMs(),
    );
    this.#submitted.add();
    if (isNew) void this.#check(task, useCache); // never rejects
    else this.#merged.add();
    return operation;
  }

  /** Throws NOT_FOUND. */
  get(name: string): Operation {
    const operation = this.#state.find(name);
    if (operation === undefined) {
      throw notFound(`Operation ${JSON.stringify(name.slice(0, 200))} is unknown, was deleted, or ended too long ago`);
    }
    return operation;
  }

  /** In the order of creation. */
  list(): Iterable<Operation> {
    return this.#state.list();
  }

  /** The current state. */
  view(operation: Operation): OperationView {
    return { ...this.#viewAt(operation, operation.stage), end: operation.end };
  }

  /** Resolves when the operation has left CACHE_CHECK, `timeoutMs` have passed or `signal` aborts. */
  async pastCacheCheck(operation: Operation, timeoutMs: number, signal: AbortSignal): Promise<void> {
    if (operation.stage === Stage.CACHE_CHECK) await this.#changeWithin(operation, timeoutMs, signal);
  }

  /** Yields the current state, then every stage it comes to and the state again every 20 s, and ends with the end. */
  watch(operation: Operation, signal: AbortSignal): AsyncGenerator<OperationView> {
    return this.#watch(operation, operation.stage, signal);
  }

  /** The same from the beginning: also the stages it has passed already. A cache hit is a single, final state. */
  watchFromStart(operation: Operation, signal: AbortSignal): AsyncGenerator<OperationView> {
    return this.#watch(operation, Stage.CACHE_CHECK, signal);
  }

  /** Ends the operation with CANCELLED; what it alone waited for is killed. Throws NOT_FOUND. */
  cancel(name: string): void {
    this.#cancel(this.get(name), new StatusError(Code.CANCELLED, "The operation was cancelled by a client"));
    this.#update();
  }

  /** The name is unknown from now on; the action goes on. Throws NOT_FOUND. */
  delete(name: string): void {
    this.#state.delete(this.get(name));
  }

  /** Forgets an operation whose name no client has seen. */
  forget(operation: Operation): void {
    this.#state.delete(operation);
  }

  /** Takes no more work, lets what executes finish until `signal` aborts, then kills it. */
  async drain(options: { readonly signal: AbortSignal }): Promise<void> {
    const { signal } = options;
    const reason = new StatusError(Code.UNAVAILABLE, "The server is shutting down; run the action again");
    this.#state.drain(reason, this.#nowMs());
    this.#update();
    const kill = () => {
      for (const task of this.#state.abortAll(reason)) this.#aborts.get(task)?.abort(reason);
    };
    if (signal.aborted) kill();
    else signal.addEventListener("abort", kill, { once: true });
    while (this.#state.executingCount > 0) await this.#taskEnded.promise;
    signal.removeEventListener("abort", kill);
    this.#cancelSweep();
  }

  async #check(task: Task, useCache: boolean): Promise<void> {
    try {
      do {
        const result = useCache ? await this.#lookUp(task.job) : undefined;
        if (result !== undefined) {
          this.#hits.add(task.operations.size);
          this.#state.answerFromCache(task, result, this.#nowMs());
          break;
        }
        await this.#options.executor.prepare(task.job);
      } while (this.#state.admit(task, this.#nowMs()) === "look-again");
    } catch (error) {
      this.#state.reject(task, toStatusError(error), this.#nowMs());
    }
    this.#update();
  }

  /** A cache that cannot be read is no reason not to build. */
  async #lookUp({ instanceName, actionDigest }: ActionJob): Promise<Uint8Array | undefined> {
    const key = { instanceName, fn: actionDigest.fn, hash: actionDigest.hash };
    try {
      return await this.#options.actionCache.get(key);
    } catch (error) {
      const { message } = toStatusError(error);
      this.#options.logger.warn("the action cache could not be read", { action: actionDigest.hash, error: message });
      return undefined;
    }
  }

  /** Fills free slots and wakes whoever watches what changed. */
  #update(): void {
    for (let started = this.#state.start(this.#nowMs()); started !== undefined;) {
      void this.#run(started.task, started.slot); // never rejects
      started = this.#state.start(this.#nowMs());
    }
    for (const operation of this.#state.takeChanged()) {
      for (const wake of this.#listeners.get(operation) ?? []) wake();
    }
  }

  async #run(task: Task, slot: number): Promise<void> {
    const abort = new AbortController();
    this.#aborts.set(task, abort);
    const startedAtMs = this.#options.clock.monotonicMs();
    const outcome = await this.#execute(task, slot, abort.signal);
    this.#aborts.delete(task);
    const tookMs = this.#options.clock.monotonicMs() - startedAtMs;
    if (outcome.status === undefined) this.#estimates.learn(task.job, tookMs);
    this.#state.finish(task, outcome, this.#nowMs());
    this.#update();
    this.#taskEnded.resolve();
    this.#taskEnded = Promise.withResolvers();
  }

  async #execute(task: Task, slot: number, signal: AbortSignal): Promise<ActionOutcome> {
    try {
      return await this.#options.executor.execute(task.job, { signal, slot });
    } catch (error) {
      const status = toStatusError(error);
      const action = task.job.actionDigest.hash;
      this.#options.logger.error("an action ended with a bug", { action, error: status.message });
      return { result: undefined, status };
    }
  }

  #cancel(operation: Operation, reason: StatusError): void {
    const task = this.#state.cancel(operation, reason, this.#nowMs());
    if (task !== undefined) this.#aborts.get(task)?.abort(reason);
  }

  /** A stage on the way. */
  #viewAt(operation: Operation, stage: Stage): OperationView {
    const position = stage === Stage.QUEUED ? this.#state.queuePosition(operation) : undefined;
    return { operation, stage, end: undefined, position };
  }

  async *#watch(operation: Operation, from: Stage, signal: AbortSignal): AsyncGenerator<OperationView> {
    const keepAliveMs = this.#options.keepAliveMs ?? DEFAULT_KEEP_ALIVE_MS;
    this.#state.addWatcher(operation);
    let next: number = from;
    try {
      for (;;) {
        const { end, reachedStage } = operation;
        if (end === undefined || !(end.isCached || end.isRejected)) {
          for (; next <= reachedStage; next++) yield this.#viewAt(operation, next as Stage);
        }
        if (operation.end !== undefined) {
          yield this.view(operation);
          return;
        }
        if (operation.reachedStage >= next) continue;
        const wasWoken = await this.#changeWithin(operation, keepAliveMs, signal);
        if (signal.aborted) return;
        if (!wasWoken) yield this.view(operation);
        if (!wasWoken && operation.end !== undefined) return;
      }
    } finally {
      this.#state.removeWatcher(operation, this.#nowMs());
    }
  }

  /** True when the operation changed, false after `timeoutMs` or an abort. */
  async #changeWithin(operation: Operation, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = () => resolve(true);
    const giveUp = () => resolve(false);
    const listeners = this.#listeners.get(operation) ?? new Set();
    this.#listeners.set(operation, listeners.add(wake));
    const cancelTimer = this.#options.clock.schedule(timeoutMs, giveUp);
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", giveUp);
      cancelTimer();
      listeners.delete(wake);
      if (listeners.size === 0) this.#listeners.delete(operation);
    }
  }

  #scheduleSweep(): void {
    this.#cancelSweep = this.#options.clock.schedule(SWEEP_INTERVAL_MS, () => {
      this.#sweep();
      this.#scheduleSweep();
    });
  }

  #sweep(): void {
    const nowMs = this.#nowMs();
    const seconds = this.#options.orphanGraceMs / 1000;
    for (const operation of this.#state.orphans(nowMs)) {
      const message = `Cancelled: no client has waited for this operation for ${seconds} s (--orphan-grace)`;
      this.#cancel(operation, new StatusError(Code.CANCELLED, message));
    }
    this.#state.expire(nowMs);
    this.#update();
  }

  /** Grace and retention must not jump with the wall clock. */
  #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }
}
