// Operations, tasks, queue and slots, without time, promises or I/O: what happens is told to it, what to do it answers.
//
// Invariants:
// - At most one task per merge key is queued or executing and takes operations, and at most one looks in the cache.
// - Every operation ends exactly once. A task without operations is not left queued.
// - Unfinished operations, queued tasks and finished operations are each bounded.
// A request that may not see old results (skip_cache_lookup) never joins a task that is still looking in the cache.

import { Code, StatusError } from "../base/status.ts";
import type { ActionJob, ActionOutcome } from "../worker/executor.ts";
import { ExecutionQueue } from "./execution-queue.ts";
import { Stage, type Inlining, type Operation, type OperationEnd, type QueuePosition, type Task } from "./operation.ts";

export interface SchedulerLimits {
  readonly slots: number;
  readonly maxQueueDepth: number;
  /** Not yet finished, watched or not, merged or not. */
  readonly maxUnfinishedOperations: number;
  readonly maxFinishedOperations: number;
  /** Bytes of results of finished operations. */
  readonly maxFinishedBytes: number;
  readonly retentionMs: number;
  readonly orphanGraceMs: number;
}

export interface NewOperation {
  readonly name: string;
  readonly job: ActionJob;
  readonly inlining: Inlining;
  readonly mergeKey: string | undefined;
  /** The action cache may answer. */
  readonly useCache: boolean;
  readonly priority: number;
  readonly invocation: string;
  readonly expectedMs: number;
}

/** Counting is linear and done for every watcher: 10,000 watchers of such a queue cost about a second in 20. */
const MAX_COUNTED_DEPTH = 10_000;

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
type MutableTask = Mutable<Omit<Task, "operations">> & { readonly operations: Set<MutableOperation> };
type MutableOperation = Mutable<Omit<Operation, "task">> & { task: MutableTask | undefined; isDeleted: boolean };

export class SchedulerState {
  readonly #limits: SchedulerLimits;
  readonly #operations = new Map<string, MutableOperation>();
  /** By merge key: the task that looks in the cache, and the one that is queued or executing. */
  readonly #lookups = new Map<string, MutableTask>();
  readonly #executions = new Map<string, MutableTask>();
  readonly #queue = new ExecutionQueue<MutableTask>();
  readonly #executing = new Map<number, MutableTask>();
  readonly #runningOf = new Map<string, number>();
  readonly #usableSlots: Set<number>;
  /** In the order of their end. */
  readonly #finished = new Set<MutableOperation>();
  #finishedBytes = 0;
  /** Unfinished and watched by nobody, in the order in which that began. */
  readonly #unwatched = new Set<MutableOperation>();
  #unfinished = 0;
  #sequence = 0;
  #isDraining = false;
  /** Operations whose client sees something new since `takeChanged` was last called. */
  #changed = new Set<MutableOperation>();

  constructor(limits: SchedulerLimits) {
    this.#limits = limits;
    this.#usableSlots = new Set(Array.from({ length: limits.slots }, (_, slot) => slot));
  }

  get queueDepth(): number {
    return this.#queue.size;
  }

  get executingCount(): number {
    return this.#executing.size;
  }

  get unfinishedCount(): number {
    return this.#unfinished;
  }

  find(name: string): Operation | undefined {
    return this.#operations.get(name);
  }

  /** In the order of creation. */
  list(): IterableIterator<Operation> {
    return this.#operations.values();
  }

  /** Where a queued operation stands; undefined when it is not queued (any more). */
  queuePosition({ task }: Operation): QueuePosition | undefined {
    if (task?.phase !== "queued") return undefined;
    const depth = this.#queue.size;
    return { ahead: depth > MAX_COUNTED_DEPTH ? undefined : this.#queue.aheadOf(own(task)), depth };
  }

  executingTasks(): Task[] {
    return [...this.#executing.values()];
  }

  takeChanged(): Operation[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /**
   * Creates an operation. `isNew` tells whether its task has just been made and must be looked up and prepared; it is
   * false when it joined one. Throws UNAVAILABLE while draining, RESOURCE_EXHAUSTED with too many operations.
   */
  submit(request: NewOperation, nowMs: number): { operation: Operation; task: Task; isNew: boolean } {
    this.#assertAdmission();
    const known = this.#taskToJoin(request);
    const task = known ?? this.#newTask(request);
    const operation = this.#newOperation(request, task, nowMs);
    if (known !== undefined) this.#raisePriority(known, request.priority);
    else if (task.mergeKey !== undefined && request.useCache) this.#lookups.set(task.mergeKey, task);
    return { operation, task, isNew: known === undefined };
  }

  /** The cache knew the answer. */
  answerFromCache(task: Task, result: Uint8Array, nowMs: number): void {
    this.#endTask(own(task), { result, isCached: true, isRejected: false, status: undefined, atMs: nowMs });
  }

  /**
   * The cache did not know and the action is sound: queues it, joins an equal one, or drops it when nobody waits any
   * more. With a full queue its operations end with RESOURCE_EXHAUSTED. "look-again": the cache may know by now.
   */
  admit(task: Task, nowMs: number): "admitted" | "look-again" {
    const mine = own(task);
    if (mine.mustLookAgain) {
      mine.mustLookAgain = false;
      return "look-again";
    }
    this.#forgetLookup(mine);
    const equal = mine.mergeKey === undefined ? undefined : this.#executions.get(mine.mergeKey);
    if (mine.operations.size === 0) mine.phase = "done";
    else if (equal !== undefined) this.#moveOperations(mine, equal);
    else if (this.#queue.size >= this.#limits.maxQueueDepth) {
      this.reject(task, queueFull(this.#limits.maxQueueDepth), nowMs);
    } else this.#enqueue(mine);
    return "admitted";
  }

  /** The task cannot be queued: everybody who waits for it gets `error`. */
  reject(task: Task, error: StatusError, nowMs: number): void {
    this.#endTask(own(task), { result: undefined, isCached: false, isRejected: true, status: error, atMs: nowMs });
  }

  /** Gives a free slot to the next task; undefined when there is no slot or no task. */
  start(nowMs: number): { task: Task; slot: number } | undefined {
    const [slot] = this.#usableSlots;
    if (slot === undefined) return undefined;
    const task = this.#queue.pop((invocation) => this.#runningOf.get(invocation) ?? 0);
    if (task === undefined) return undefined;
    this.#usableSlots.delete(slot);
    this.#executing.set(slot, task);
    this.#runningOf.set(task.invocation, (this.#runningOf.get(task.invocation) ?? 0) + 1);
    Object.assign(task, { phase: "executing", slot, startedAtMs: nowMs });
    this.#setStage(task, Stage.EXECUTING);
    return { task, slot };
  }

  /** The executor is done with the task; its slot is free again. */
  finish(task: Task, outcome: ActionOutcome, nowMs: number): void {
    const mine = own(task);
    const slot = mine.slot!;
    this.#executing.delete(slot);
    this.#usableSlots.add(slot);
    const running = (this.#runningOf.get(mine.invocation) ?? 0) - 1;
    if (running > 0) this.#runningOf.set(mine.invocation, running);
    else this.#runningOf.delete(mine.invocation);
    const lookup = mine.mergeKey === undefined ? undefined : this.#lookups.get(mine.mergeKey);
    if (lookup !== undefined) lookup.mustLookAgain = true;
    // What was ended on purpose says so, whatever the executor made of it.
    const status = mine.abortReason ?? outcome.status;
    this.#endTask(mine, { result: outcome.result, isCached: false, isRejected: false, status, atMs: nowMs });
  }

  addWatcher(operation: Operation): void {
    const mine = operation as MutableOperation;
    mine.watchers++;
    this.#setOrphaned(mine, undefined);
  }

  removeWatcher(operation: Operation, nowMs: number): void {
    const mine = operation as MutableOperation;
    mine.watchers--;
    if (mine.watchers === 0 && mine.end === undefined && !mine.isDeleted) this.#setOrphaned(mine, nowMs);
  }

  /**
   * Ends an operation early. Others that share its task go on. Returns the task to be killed when it was the last one
   * and the task executes: then the operation ends together with it.
   */
  cancel(operation: Operation, reason: StatusError, nowMs: number): Task | undefined {
    const mine = operation as MutableOperation;
    const task = mine.task;
    if (mine.end !== undefined || task === undefined) return undefined;
    if (task.phase === "executing" && task.operations.size === 1) return this.#abort(task, reason);
    this.#endOperation(mine, { result: undefined, isCached: false, isRejected: false, status: reason, atMs: nowMs });
    if (task.operations.size === 0 && task.phase === "queued") this.#dropQueued(task);
    return undefined;
  }

  /** The client wants to hear no more of it; it is not cancelled. */
  delete(operation: Operation): void {
    const mine = operation as MutableOperation;
    mine.isDeleted = true;
    this.#setOrphaned(mine, undefined);
    this.#operations.delete(mine.name);
    this.#forgetFinished(mine);
  }

  /** Operations nobody has watched for the grace period. */
  orphans(nowMs: number): Operation[] {
    const orphans: Operation[] = [];
    for (const operation of this.#unwatched) {
      if (operation.orphanedAtMs! > nowMs - this.#limits.orphanGraceMs) break;
      orphans.push(operation);
    }
    return orphans;
  }

  /** Forgets operations that ended long ago. */
  expire(nowMs: number): void {
    for (const operation of this.#finished) {
      if (operation.end!.atMs > nowMs - this.#limits.retentionMs) return;
      this.#operations.delete(operation.name);
      this.#forgetFinished(operation);
    }
  }

  /** No more operations, and what has not begun ends with UNAVAILABLE. */
  drain(reason: StatusError, nowMs: number): void {
    this.#isDraining = true;
    const queued = Array.from(this.#queue);
    for (const task of queued) {
      this.#queue.remove(task);
      this.reject(task, reason, nowMs);
    }
  }

  /** Marks every executing task as ended by `reason` and returns them. */
  abortAll(reason: StatusError): Task[] {
    return [...this.#executing.values()].map((task) => this.#abort(task, reason));
  }

  #assertAdmission(): void {
    if (this.#isDraining) throw new StatusError(Code.UNAVAILABLE, "The server is shutting down; try again later");
    const { maxUnfinishedOperations } = this.#limits;
    if (this.#unfinished < maxUnfinishedOperations) return;
    throw new StatusError(
      Code.RESOURCE_EXHAUSTED,
      `${maxUnfinishedOperations} operations are unfinished, which is all this server takes; try again later`,
    );
  }

  #taskToJoin({ mergeKey, useCache }: NewOperation): MutableTask | undefined {
    if (mergeKey === undefined) return undefined;
    // A request that the cache may answer looks there first: it must not wait for a run that was forced by another.
    return useCache ? this.#lookups.get(mergeKey) : this.#executions.get(mergeKey);
  }

  #newTask({ job, mergeKey, invocation, priority, expectedMs }: NewOperation): MutableTask {
    return {
      job,
      mergeKey,
      invocation,
      phase: "checking",
      priority,
      expectedMs,
      sequence: ++this.#sequence,
      operations: new Set(),
      slot: undefined,
      startedAtMs: undefined,
      mustLookAgain: false,
      abortReason: undefined,
    };
  }

  #newOperation({ name, job, inlining }: NewOperation, task: MutableTask, nowMs: number): MutableOperation {
    const operation: MutableOperation = {
      name,
      sequence: ++this.#sequence,
      actionDigest: job.actionDigest,
      inlining,
      createdAtMs: nowMs,
      stage: STAGE_OF[task.phase],
      reachedStage: STAGE_OF[task.phase],
      end: undefined,
      watchers: 0,
      orphanedAtMs: undefined,
      task,
      isDeleted: false,
    };
    this.#setOrphaned(operation, nowMs);
    this.#operations.set(name, operation);
    this.#unfinished++;
    task.operations.add(operation);
    return operation;
  }

  #setOrphaned(operation: MutableOperation, atMs: number | undefined): void {
    operation.orphanedAtMs = atMs;
    this.#unwatched.delete(operation);
    if (atMs !== undefined) this.#unwatched.add(operation);
  }

  /** An urgent request makes the shared task urgent. */
  #raisePriority(task: MutableTask, priority: number): void {
    if (priority >= task.priority) return;
    const isQueued = this.#queue.remove(task);
    task.priority = priority;
    if (isQueued) this.#queue.push(task);
  }

  #enqueue(task: MutableTask): void {
    task.phase = "queued";
    if (task.mergeKey !== undefined) this.#executions.set(task.mergeKey, task);
    this.#queue.push(task);
    this.#setStage(task, Stage.QUEUED);
  }

  #moveOperations(from: MutableTask, to: MutableTask): void {
    from.phase = "done";
    for (const operation of from.operations) {
      from.operations.delete(operation);
      to.operations.add(operation);
      operation.task = to;
      this.#changeStage(operation, STAGE_OF[to.phase]);
    }
    this.#raisePriority(to, from.priority);
  }

  #abort(task: MutableTask, reason: StatusError): Task {
    task.abortReason ??= reason;
    this.#forgetExecution(task);
    return task;
  }

  #dropQueued(task: MutableTask): void {
    this.#queue.remove(task);
    this.#forgetExecution(task);
    task.phase = "done";
  }

  #endTask(task: MutableTask, end: OperationEnd): void {
    this.#forgetLookup(task);
    this.#forgetExecution(task);
    task.phase = "done";
    for (const operation of task.operations) this.#endOperation(operation, end);
  }

  #endOperation(operation: MutableOperation, end: OperationEnd): void {
    operation.task?.operations.delete(operation);
    operation.task = undefined;
    operation.end = end;
    this.#setOrphaned(operation, undefined);
    this.#unfinished--;
    this.#changeStage(operation, Stage.COMPLETED);
    if (operation.isDeleted) return;
    this.#finished.add(operation);
    this.#finishedBytes += endBytes(operation);
    this.#shrinkFinished();
  }

  #shrinkFinished(): void {
    const { maxFinishedOperations, maxFinishedBytes } = this.#limits;
    for (const operation of this.#finished) {
      if (this.#finished.size <= maxFinishedOperations && this.#finishedBytes <= maxFinishedBytes) return;
      // Streams that watch it hold the object and still get their answer.
      this.#operations.delete(operation.name);
      this.#forgetFinished(operation);
    }
  }

  #forgetFinished(operation: MutableOperation): void {
    if (this.#finished.delete(operation)) this.#finishedBytes -= endBytes(operation);
  }

  #setStage(task: MutableTask, stage: Stage): void {
    for (const operation of task.operations) this.#changeStage(operation, stage);
  }

  #changeStage(operation: MutableOperation, stage: Stage): void {
    operation.stage = stage;
    if (stage !== Stage.COMPLETED) operation.reachedStage = stage;
    this.#changed.add(operation);
  }

  #forgetLookup(task: MutableTask): void {
    if (task.mergeKey !== undefined && this.#lookups.get(task.mergeKey) === task) this.#lookups.delete(task.mergeKey);
  }

  #forgetExecution(task: MutableTask): void {
    if (task.mergeKey !== undefined && this.#executions.get(task.mergeKey) === task) {
      this.#executions.delete(task.mergeKey);
    }
  }
}

const STAGE_OF: Readonly<Record<Task["phase"], Stage>> = {
  checking: Stage.CACHE_CHECK,
  queued: Stage.QUEUED,
  executing: Stage.EXECUTING,
  done: Stage.COMPLETED,
};

/** Tasks are handed out read-only; this state made them. */
function own(task: Task): MutableTask {
  return task as MutableTask;
}

/** What an ended operation holds, roughly: its own object counts as one KiB. */
function endBytes({ end }: Operation): number {
  const details = end?.status?.details.reduce((sum, detail) => sum + detail.value.length, 0) ?? 0;
  return 1024 + (end?.result?.length ?? 0) + details;
}

function queueFull(maxQueueDepth: number): StatusError {
  return new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `The queue is full: ${maxQueueDepth} actions wait already (--max-queue-depth); try again later`,
  );
}
