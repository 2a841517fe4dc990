// The scheduler's rules written down once more, as plainly as possible: lists that are searched and sorted each time.
//
// The oracle of scheduler-state.test.ts. It shares no code with src/scheduler/.

export interface NaiveOperation {
  readonly name: string;
  taskId: number | undefined;
  stage: "check" | "queued" | "executing" | "completed";
  end: "cached" | "done" | "rejected" | "cancelled" | "drained" | undefined;
  endedAt: number;
  watchers: number;
  unwatchedSince: number | undefined;
  deleted: boolean;
}

interface NaiveTask {
  readonly id: number;
  readonly key: string | undefined;
  readonly usesCache: boolean;
  readonly invocation: string;
  priority: number;
  phase: "check" | "queued" | "executing" | "gone";
  lookAgain: boolean;
  endingAs: "cancelled" | undefined;
}

export interface NaiveLimits {
  readonly slots: number;
  readonly maxQueueDepth: number;
  readonly retention: number;
  readonly grace: number;
}

export class NaiveScheduler {
  readonly #limits: NaiveLimits;
  operations: NaiveOperation[] = [];
  tasks: NaiveTask[] = [];
  #lastServed = new Map<string, number>();
  #served = 0;
  #nextTask = 1;

  constructor(limits: NaiveLimits) {
    this.#limits = limits;
  }

  get queued(): NaiveTask[] {
    return this.tasks.filter((task) => task.phase === "queued");
  }

  get executing(): NaiveTask[] {
    return this.tasks.filter((task) => task.phase === "executing");
  }

  visible(): NaiveOperation[] {
    return this.operations.filter((operation) => !operation.deleted);
  }

  submit(
    name: string,
    request: { key: string | undefined; usesCache: boolean; priority: number; invocation: string },
    now: number,
  ): number {
    const { key, usesCache, priority, invocation } = request;
    const joinable = (task: NaiveTask) =>
      key !== undefined &&
      task.key === key &&
      (usesCache
        ? task.phase === "check" && task.usesCache
        : (task.phase === "queued" || task.phase === "executing") && task.endingAs === undefined);
    let task = this.tasks.find(joinable);
    if (task === undefined) {
      const id = this.#nextTask++;
      task = { id, key, usesCache, invocation, priority, phase: "check", lookAgain: false, endingAs: undefined };
      this.tasks.push(task);
    }
    task.priority = Math.min(task.priority, priority);
    this.operations.push({
      name,
      taskId: task.id,
      stage: task.phase === "gone" ? "completed" : task.phase,
      end: undefined,
      endedAt: 0,
      watchers: 0,
      unwatchedSince: now,
      deleted: false,
    });
    return task.id;
  }

  hit(taskId: number, now: number): void {
    this.#endAll(this.#task(taskId), "cached", now);
  }

  admit(taskId: number, now: number): "admitted" | "look-again" {
    const task = this.#task(taskId);
    if (task.lookAgain) {
      task.lookAgain = false;
      return "look-again";
    }
    const mine = this.#operationsOf(task);
    const equal = this.tasks.find(
      (other) =>
        other !== task &&
        task.key !== undefined &&
        other.key === task.key &&
        other.endingAs === undefined &&
        (other.phase === "queued" || other.phase === "executing"),
    );
    if (mine.length === 0) task.phase = "gone";
    else if (equal !== undefined) {
      task.phase = "gone";
      equal.priority = Math.min(equal.priority, task.priority);
      for (const operation of mine) {
        operation.taskId = equal.id;
        operation.stage = equal.phase === "queued" ? "queued" : "executing";
      }
    } else if (this.queued.length >= this.#limits.maxQueueDepth) this.#endAll(task, "rejected", now);
    else {
      task.phase = "queued";
      for (const operation of mine) operation.stage = "queued";
    }
    return "admitted";
  }

  start(): number | undefined {
    if (this.executing.length >= this.#limits.slots) return undefined;
    for (const invocation of this.#lastServed.keys()) {
      if (!this.queued.some((task) => task.invocation === invocation)) this.#lastServed.delete(invocation);
    }
    const running = (invocation: string) => this.executing.filter((task) => task.invocation === invocation).length;
    const served = (invocation: string) => this.#lastServed.get(invocation) ?? 0;
    // The order in which they were created is the order of their ids.
    const [next] = this.queued.toSorted(
      (a, b) =>
        a.priority - b.priority ||
        running(a.invocation) - running(b.invocation) ||
        served(a.invocation) - served(b.invocation) ||
        a.id - b.id,
    );
    if (next === undefined) return undefined;
    this.#lastServed.set(next.invocation, ++this.#served);
    next.phase = "executing";
    for (const operation of this.#operationsOf(next)) operation.stage = "executing";
    return next.id;
  }

  finish(taskId: number, now: number): void {
    const task = this.#task(taskId);
    const asking = this.tasks.find(
      (other) => task.key !== undefined && other.key === task.key && other.phase === "check" && other.usesCache,
    );
    if (asking !== undefined) asking.lookAgain = true;
    this.#endAll(task, task.endingAs ?? "done", now);
  }

  /** Returns the task that must be killed. */
  cancel(name: string, now: number): number | undefined {
    const operation = this.operations.find((candidate) => candidate.name === name)!;
    if (operation.end !== undefined) return undefined;
    const task = this.#task(operation.taskId!);
    if (task.phase === "executing" && this.#operationsOf(task).length === 1) {
      task.endingAs = "cancelled";
      return task.id;
    }
    this.#end(operation, "cancelled", now);
    if (task.phase === "queued" && this.#operationsOf(task).length === 0) task.phase = "gone";
    return undefined;
  }

  watch(name: string): void {
    const operation = this.operations.find((candidate) => candidate.name === name)!;
    operation.watchers++;
    operation.unwatchedSince = undefined;
  }

  unwatch(name: string, now: number): void {
    const operation = this.operations.find((candidate) => candidate.name === name)!;
    operation.watchers--;
    if (operation.watchers === 0 && operation.end === undefined && !operation.deleted) operation.unwatchedSince = now;
  }

  delete(name: string): void {
    const operation = this.operations.find((candidate) => candidate.name === name)!;
    operation.deleted = true;
    operation.unwatchedSince = undefined;
  }

  orphans(now: number): string[] {
    return this.operations
      .filter(({ unwatchedSince }) => unwatchedSince !== undefined && unwatchedSince <= now - this.#limits.grace)
      .map(({ name }) => name);
  }

  expire(now: number): void {
    for (const operation of this.operations) {
      if (operation.end !== undefined && operation.endedAt <= now - this.#limits.retention) operation.deleted = true;
    }
  }

  #task(id: number): NaiveTask {
    return this.tasks.find((task) => task.id === id)!;
  }

  #operationsOf(task: NaiveTask): NaiveOperation[] {
    return this.operations.filter((operation) => operation.taskId === task.id && operation.end === undefined);
  }

  #endAll(task: NaiveTask, end: NonNullable<NaiveOperation["end"]>, now: number): void {
    for (const operation of this.#operationsOf(task)) this.#end(operation, end, now);
    task.phase = "gone";
  }

  #end(operation: NaiveOperation, end: NonNullable<NaiveOperation["end"]>, now: number): void {
    Object.assign(operation, { end, stage: "completed", endedAt: now, unwatchedSince: undefined });
  }
}
