// A scheduler on a manual clock, an in-memory action cache, and an executor whose actions end when the test says so.

import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { ManualClock } from "../../src/base/clock.ts";
import { Code, StatusError } from "../../src/base/status.ts";
import { DigestFunction, sha256Hex } from "../../src/digest/digest.ts";
import { ActionResult } from "../../src/proto/remote_execution.ts";
import type { Operation } from "../../src/scheduler/operation.ts";
import { Scheduler, type ExecuteJob, type OperationView } from "../../src/scheduler/scheduler.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import type { ActionJob, ActionOutcome, Executor } from "../../src/worker/executor.ts";

export interface RunningAction {
  readonly job: ActionJob;
  readonly slot: number;
  readonly signal: AbortSignal;
  /** Ends the action; a cacheable one without status is cached first, as the real executor does. */
  finish(outcome?: Partial<ActionOutcome>): Promise<void>;
}

export class ManualExecutor implements Executor {
  readonly slots: number;
  readonly unavailableReason: string | undefined;
  readonly running: RunningAction[] = [];
  /** Every action that was started, by name, in order. */
  readonly started: string[] = [];
  /** What prepare() throws, by action name. */
  readonly unsound = new Map<string, StatusError>();
  readonly #actionCache: MemoryActionCache;

  constructor(slots: number, actionCache: MemoryActionCache) {
    this.slots = slots;
    this.unavailableReason = slots === 0 ? "this is a test" : undefined;
    this.#actionCache = actionCache;
  }

  async prepare(job: ActionJob): Promise<void> {
    const error = this.unsound.get(nameOf(job));
    if (error !== undefined) throw error;
  }

  execute(job: ActionJob, { signal, slot }: { signal: AbortSignal; slot: number }): Promise<ActionOutcome> {
    const { promise, resolve } = Promise.withResolvers<ActionOutcome>();
    this.started.push(nameOf(job));
    const action: RunningAction = {
      job,
      slot,
      signal,
      finish: async (outcome = {}) => {
        this.running.splice(this.running.indexOf(action), 1);
        const result = resultSaying(nameOf(job));
        if (job.cacheable && outcome.status === undefined) await this.#actionCache.put(keyOf(job), result, {});
        resolve({ result, status: undefined, ...outcome });
        await settle();
      },
    };
    signal.addEventListener("abort", () => {
      const status = new StatusError(Code.CANCELLED, "killed");
      void action.finish({ result: resultSaying("partial"), status });
    });
    this.running.push(action);
    return promise;
  }
}

export class SchedulerFixture {
  readonly clock = new ManualClock();
  readonly actionCache = new MemoryActionCache();
  readonly metrics = new MetricsRegistry();
  readonly executor: ManualExecutor;
  readonly scheduler: Scheduler;

  constructor(options: { readonly slots?: number; readonly maxQueueDepth?: number } = {}) {
    this.executor = new ManualExecutor(options.slots ?? 1, this.actionCache);
    this.scheduler = new Scheduler({
      executor: this.executor,
      actionCache: this.actionCache,
      clock: this.clock,
      logger: silentLogger,
      metrics: this.metrics,
      maxQueueDepth: options.maxQueueDepth ?? 100,
      orphanGraceMs: 60_000,
    });
  }

  /** Submits the action `name` and waits until everything that can happen has happened. */
  async submit(name: string, options: Partial<ExecuteJob> & { invocation?: string } = {}): Promise<Operation> {
    const operation = this.scheduler.submit({
      job: jobOf(name, options.invocation),
      inlining: { stdout: false, stderr: false, outputFiles: [] },
      doNotCache: false,
      skipCacheLookup: false,
      priority: 0,
      ...options,
    });
    await settle();
    return operation;
  }

  async cache(name: string): Promise<void> {
    await this.actionCache.put(keyOf(jobOf(name)), resultSaying(name), {});
  }

  async advance(ms: number): Promise<void> {
    this.clock.advance(ms);
    await settle();
  }
}

/** Collects what a watcher sees, until `stop`. */
export class Watcher {
  readonly views: OperationView[] = [];
  readonly #abort = new AbortController();
  readonly done: Promise<void>;

  constructor(scheduler: Scheduler, operation: Operation, mode: "watch" | "watchFromStart" = "watchFromStart") {
    this.done = this.#collect(scheduler[mode](operation, this.#abort.signal));
  }

  get stages(): number[] {
    return this.views.map(({ stage }) => stage);
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.done;
    await settle();
  }

  async #collect(views: AsyncIterable<OperationView>): Promise<void> {
    for await (const view of views) this.views.push(view);
  }
}

export function jobOf(name: string, invocation?: string, extra: Partial<ActionJob> = {}): ActionJob {
  return {
    instanceName: "",
    actionDigest: { fn: DigestFunction.SHA256, hash: sha256Hex(Buffer.from(name)), sizeBytes: name.length },
    action: Buffer.from(name),
    cacheable: true,
    queuedAtMs: 0,
    toolInvocationId: invocation,
    targetId: undefined,
    actionMnemonic: undefined,
    ...extra,
  };
}

/** A result whose stdout is `text`. */
export function resultSaying(text: string): Uint8Array {
  return ActionResult.encode({ stdoutRaw: Buffer.from(text) });
}

/** What an ended operation's result says. */
export function textOf(operation: Operation): string {
  return Buffer.from(ActionResult.decode(operation.end!.result!).stdoutRaw).toString();
}

function nameOf(job: ActionJob): string {
  return Buffer.from(job.action).toString();
}

function keyOf(job: ActionJob) {
  return { instanceName: job.instanceName, fn: job.actionDigest.fn, hash: job.actionDigest.hash };
}

/** Lets promise chains run to their end; nothing here waits for I/O. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}
