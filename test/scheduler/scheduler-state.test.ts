// The scheduler's state against a naive re-implementation, over random histories.

import { deepEqual, equal } from "node:assert/strict";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Code, StatusError } from "../../src/base/status.ts";
import type { Operation, Task } from "../../src/scheduler/operation.ts";
import { SchedulerState } from "../../src/scheduler/scheduler-state.ts";
import { NaiveScheduler } from "./naive-scheduler.ts";
import { jobOf } from "./scheduler-fixture.ts";

const LIMITS = { slots: 2, maxQueueDepth: 4, retention: 300, grace: 60 };

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("submit" as const),
      key: fc.constantFrom(undefined, "a", "b", "c"),
      usesCache: fc.boolean(),
      priority: fc.integer({ min: -1, max: 1 }),
      invocation: fc.constantFrom("x", "y"),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("answer" as const), pick: fc.nat(), isHit: fc.boolean() }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("start" as const) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("finish" as const), pick: fc.nat() }) },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constantFrom("cancel", "delete", "watch", "unwatch"), pick: fc.nat() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 100 }) }) },
);

test("SchedulerState does what the naive scheduler does, over random histories", () => {
  const seed = Date.now() & 0x7fffffff;
  console.log(`scheduler-state.test.ts: seed ${seed}`);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const pair = new Pair();
      for (const each of steps) {
        pair.apply(each);
        pair.compare();
      }
    }),
    { seed, numRuns: 2000 },
  );
});

class Pair {
  readonly #state = new SchedulerState({
    slots: LIMITS.slots,
    maxQueueDepth: LIMITS.maxQueueDepth,
    maxUnfinishedOperations: 1000,
    maxFinishedOperations: 1000,
    maxFinishedBytes: 1e9,
    retentionMs: LIMITS.retention,
    orphanGraceMs: LIMITS.grace,
  });
  readonly #naive = new NaiveScheduler(LIMITS);
  readonly #operations = new Map<string, Operation>();
  /** Tasks of both sides that belong together. */
  readonly #tasks = new Map<number, Task>();
  #now = 1;

  apply(each: typeof step extends fc.Arbitrary<infer T> ? T : never): void {
    switch (each.kind) {
      case "submit":
        this.#submit(each);
        break;
      case "answer":
        this.#answer(each.pick, each.isHit);
        break;
      case "start":
        this.#start();
        break;
      case "finish":
        this.#finish(each.pick);
        break;
      case "wait":
        this.#wait(each.ms);
        break;
      default:
        this.#touch(each.kind, each.pick);
    }
  }

  compare(): void {
    const mine = Array.from(this.#state.list(), describe);
    const theirs = this.#naive.visible().map(({ name, stage, end, watchers }) => ({ name, stage, end, watchers }));
    deepEqual(mine, theirs);
    equal(this.#state.queueDepth, this.#naive.queued.length);
    equal(this.#state.executingCount, this.#naive.executing.length);
    equal(this.#state.unfinishedCount, this.#naive.operations.filter(({ end }) => end === undefined).length);
  }

  #submit(request: { key?: string | undefined; usesCache: boolean; priority: number; invocation: string }): void {
    // Without a key (do_not_cache) the cache is never asked.
    const usesCache = request.usesCache && request.key !== undefined;
    const name = `operation-${this.#operations.size}`;
    const { operation, task, isNew } = this.#state.submit(
      {
        name,
        job: jobOf(request.key ?? "alone"),
        inlining: { stdout: false, stderr: false, outputFiles: [] },
        mergeKey: request.key,
        useCache: usesCache,
        priority: request.priority,
        invocation: request.invocation,
        expectedMs: 0,
      },
      this.#now,
    );
    const taskId = this.#naive.submit(name, { ...request, key: request.key, usesCache }, this.#now);
    equal(isNew, !this.#tasks.has(taskId));
    this.#operations.set(name, operation);
    if (isNew) this.#tasks.set(taskId, task);
    else equal(this.#tasks.get(taskId), task);
  }

  #answer(pick: number, isHit: boolean): void {
    const checking = this.#naive.tasks.filter(({ phase }) => phase === "check");
    const chosen = checking[pick % Math.max(1, checking.length)];
    if (chosen === undefined) return;
    const task = this.#tasks.get(chosen.id)!;
    if (isHit && chosen.usesCache) {
      this.#state.answerFromCache(task, Buffer.from("result"), this.#now);
      this.#naive.hit(chosen.id, this.#now);
    } else {
      equal(this.#state.admit(task, this.#now), this.#naive.admit(chosen.id, this.#now));
    }
  }

  #start(): void {
    const started = this.#state.start(this.#now);
    const id = this.#naive.start();
    equal(started?.task, id === undefined ? undefined : this.#tasks.get(id));
  }

  #finish(pick: number): void {
    const executing = this.#naive.executing;
    const chosen = executing[pick % Math.max(1, executing.length)];
    if (chosen === undefined) return;
    this.#state.finish(this.#tasks.get(chosen.id)!, { result: undefined, status: undefined }, this.#now);
    this.#naive.finish(chosen.id, this.#now);
  }

  #touch(kind: string, pick: number): void {
    const visible = this.#naive.visible();
    const chosen = visible[pick % Math.max(1, visible.length)];
    if (chosen === undefined) return;
    const operation = this.#operations.get(chosen.name)!;
    if (kind === "cancel") this.#cancel(chosen.name);
    if (kind === "delete") {
      this.#state.delete(operation);
      this.#naive.delete(chosen.name);
    }
    if (kind === "watch") {
      this.#state.addWatcher(operation);
      this.#naive.watch(chosen.name);
    }
    if (kind === "unwatch" && chosen.watchers > 0) {
      this.#state.removeWatcher(operation, this.#now);
      this.#naive.unwatch(chosen.name, this.#now);
    }
  }

  #cancel(name: string): void {
    const reason = new StatusError(Code.CANCELLED, "by the test");
    const killed = this.#state.cancel(this.#operations.get(name)!, reason, this.#now);
    const id = this.#naive.cancel(name, this.#now);
    equal(killed, id === undefined ? undefined : this.#tasks.get(id));
  }

  #wait(ms: number): void {
    this.#now += ms;
    const orphans = this.#state.orphans(this.#now).map(({ name }) => name);
    deepEqual(orphans.toSorted(), this.#naive.orphans(this.#now).toSorted());
    for (const name of orphans) this.#cancel(name);
    this.#state.expire(this.#now);
    this.#naive.expire(this.#now);
  }
}

const STAGES = ["", "check", "queued", "executing", "completed"];

function describe({ name, stage, end, watchers }: Operation) {
  const kind = end?.isCached
    ? "cached"
    : end?.isRejected
      ? "rejected"
      : end?.status?.code === Code.CANCELLED
        ? "cancelled"
        : "done";
  return { name, stage: STAGES[stage], end: end === undefined ? undefined : kind, watchers };
}

// A server under load for weeks keeps no more than this.
test("SchedulerState forgets the oldest finished operations beyond its bounds", () => {
  const state = new SchedulerState({
    slots: 1,
    maxQueueDepth: 100,
    maxUnfinishedOperations: 3,
    maxFinishedOperations: 2,
    maxFinishedBytes: 1e9,
    retentionMs: 1e9,
    orphanGraceMs: 1e9,
  });
  const submit = (name: string) =>
    state.submit(
      {
        name,
        job: jobOf(name),
        inlining: { stdout: false, stderr: false, outputFiles: [] },
        mergeKey: name,
        useCache: true,
        priority: 0,
        invocation: "",
        expectedMs: 0,
      },
      0,
    );
  for (const name of ["a", "b", "c"]) state.answerFromCache(submit(name).task, Buffer.from(name), 0);
  expect(Array.from(state.list(), ({ name }) => name)).toEqual(["b", "c"]);
  for (const name of ["d", "e", "f"]) submit(name);
  expect(() => submit("g")).toThrow(expect.objectContaining({ code: Code.RESOURCE_EXHAUSTED }));
});
