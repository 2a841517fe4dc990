// The rules of execution that clients see, one by one, on a manual clock.

import { expect, test } from "vitest";
import { Code, StatusError } from "../../src/base/status.ts";
import { Stage } from "../../src/scheduler/operation.ts";
import { jobOf, SchedulerFixture, settle, textOf, Watcher } from "./scheduler-fixture.ts";

const { CACHE_CHECK, QUEUED, EXECUTING, COMPLETED } = Stage;

test("watchFromStart() streams every stage once, in order, and ends with the result", async () => {
  const { scheduler, executor, ...fixture } = make();
  const operation = await fixture.submit("a");
  const watcher = new Watcher(scheduler, operation);
  await settle();
  expect(watcher.stages).toEqual([CACHE_CHECK, QUEUED, EXECUTING]);
  await executor.running[0]!.finish();
  await watcher.done;
  expect(watcher.stages).toEqual([CACHE_CHECK, QUEUED, EXECUTING, COMPLETED]);
  expect(watcher.views.at(-1)?.end).toMatchObject({ isCached: false, status: undefined });
  expect(operation.name).toMatch(/^operations\/[0-9a-f-]{36}$/);
});

test("submit() names operations after their instance", async () => {
  const { submit } = make();
  const operation = await submit("a", { job: jobOf("a", undefined, { instanceName: "main/x" }) });
  expect(operation.name).toMatch(/^main\/x\/operations\/[0-9a-f-]{36}$/);
});

// A cached action must not wait behind 10,000 others.
test("submit() answers from the cache though every slot is busy and the queue is full", async () => {
  const { scheduler, executor, cache, submit } = make({ slots: 1, maxQueueDepth: 1 });
  await cache("cached");
  await submit("runs");
  await submit("waits");
  const refused = await submit("refused");
  expect(refused.end).toMatchObject({ isRejected: true, status: { code: Code.RESOURCE_EXHAUSTED } });
  const watcher = new Watcher(scheduler, await submit("cached"));
  await watcher.done;
  expect(watcher.stages).toEqual([COMPLETED]);
  expect(watcher.views[0]?.end?.isCached).toBe(true);
  expect(executor.started).toEqual(["runs"]);
});

test("submit() runs equal actions once and gives everybody the result", async () => {
  const { executor, submit } = make();
  const operations = [await submit("a"), await submit("a"), await submit("a")];
  expect(new Set(operations.map(({ name }) => name)).size).toBe(3);
  expect(executor.running).toHaveLength(1);
  await executor.running[0]!.finish();
  expect(operations.map(textOf)).toEqual(["a", "a", "a"]);
  expect(executor.started).toEqual(["a"]);
});

test("submit() keeps equal actions of two instances apart", async () => {
  const { executor, submit } = make({ slots: 2 });
  await submit("a");
  await submit("a", { job: jobOf("a", undefined, { instanceName: "other" }) });
  expect(executor.running).toHaveLength(2);
});

test("submit() neither merges nor looks up an action that must not be cached", async () => {
  const { executor, cache, submit } = make({ slots: 3 });
  await cache("a");
  const job = jobOf("a", undefined, { cacheable: false });
  await submit("a", { job, doNotCache: true });
  await submit("a", { job, doNotCache: true });
  await submit("a");
  expect(executor.started).toEqual(["a", "a"]);
});

test("submit() with skip_cache_lookup runs a cached action, and equal ones share that run", async () => {
  const { executor, cache, submit } = make({ slots: 2 });
  await cache("a");
  const forced = await submit("a", { skipCacheLookup: true });
  const forcedToo = await submit("a", { skipCacheLookup: true });
  const normal = await submit("a");
  expect(executor.started).toEqual(["a"]);
  expect(normal.end?.isCached).toBe(true);
  await executor.running[0]!.finish();
  expect([forced.end?.isCached, forcedToo.end?.isCached]).toEqual([false, false]);
});

// Between asking the cache and joining the queue the run of an equal action may end; its result is in the cache then.
test("submit() looks in the cache again when an equal action ended meanwhile", async () => {
  const { actionCache, executor, submit } = make();
  const first = await submit("a");
  const get = actionCache.get.bind(actionCache);
  const gate = Promise.withResolvers<void>();
  actionCache.get = async (key) => {
    const answer = await get(key);
    await gate.promise;
    return answer;
  };
  const second = await submit("a");
  expect(second.stage).toBe(CACHE_CHECK);
  await executor.running[0]!.finish();
  gate.resolve();
  await settle();
  expect(first.end?.isCached).toBe(false);
  expect(second.end?.isCached).toBe(true);
  expect(executor.started).toEqual(["a"]);
});

test("submit() ends an action that is unsound before it is queued", async () => {
  const { executor, submit } = make();
  executor.unsound.set("bad", new StatusError(Code.INVALID_ARGUMENT, "argv is empty"));
  const operation = await submit("bad");
  expect(operation.end).toMatchObject({ isRejected: true, status: { code: Code.INVALID_ARGUMENT } });
});

test("submit() takes actions by priority, then by age", async () => {
  const { executor, submit } = make();
  await submit("running");
  for (const [name, priority] of [
    ["d", 5],
    ["b", 0],
    ["c", 0],
    ["a", -1],
  ] as const)
    await submit(name, { priority });
  await submit("d"); // merges with the queued one and makes it urgent
  while (executor.running.length > 0) await executor.running[0]!.finish();
  expect(executor.started).toEqual(["running", "a", "d", "b", "c"]);
});

test("submit() shares slots fairly between invocations", async () => {
  const { executor, submit } = make({ slots: 2 });
  for (let i = 0; i < 50; i++) await submit(`big-${i}`, { invocation: "big" });
  for (let i = 0; i < 3; i++) await submit(`small-${i}`, { invocation: "small" });
  for (let i = 0; i < 8; i++) await executor.running[0]!.finish();
  expect(executor.started.filter((name) => name.startsWith("small"))).toHaveLength(3);
});

test("submit() starts actions early that took long before", async () => {
  const { clock, executor, submit } = make();
  const job = (name: string, targetId: string) => jobOf(name, undefined, { targetId, actionMnemonic: "Compile" });
  await submit("slow-1", { job: job("slow-1", "//slow") });
  clock.advance(8000);
  await executor.running[0]!.finish();
  await submit("blocker");
  await submit("quick", { job: jobOf("quick") });
  await submit("slow-2", { job: job("slow-2", "//slow") });
  await executor.running[0]!.finish();
  expect(executor.running[0]?.job.targetId).toBe("//slow");
});

test("watch() repeats the current state every 20 s and once more after the end of a long action", async () => {
  const { scheduler, executor, submit, advance } = make();
  const watcher = new Watcher(scheduler, await submit("long"));
  await settle();
  for (let second = 0; second < 90; second += 10) await advance(10_000);
  expect(watcher.stages.slice(3)).toEqual([EXECUTING, EXECUTING, EXECUTING, EXECUTING]);
  await executor.running[0]!.finish();
  await watcher.done;
  expect(watcher.stages.at(-1)).toBe(COMPLETED);
});

test("watch() of a finished operation sends the end alone, for 5 minutes", async () => {
  const { scheduler, executor, submit, advance } = make();
  const operation = await submit("a");
  await executor.running[0]!.finish();
  await advance(4 * 60_000);
  const watcher = new Watcher(scheduler, scheduler.get(operation.name), "watch");
  await watcher.done;
  expect(watcher.stages).toEqual([COMPLETED]);
  await advance(62_000);
  expect(() => scheduler.get(operation.name)).toThrow(expect.objectContaining({ code: Code.NOT_FOUND }));
});

test("an operation that nobody watches for 60 s is cancelled and its action killed", async () => {
  const { scheduler, executor, submit, advance } = make();
  const operation = await submit("a");
  const watcher = new Watcher(scheduler, operation);
  await settle();
  await advance(120_000);
  expect(executor.running).toHaveLength(1);
  await watcher.stop();
  await advance(59_000);
  expect(executor.running).toHaveLength(1);
  await advance(2000);
  expect(executor.running).toHaveLength(0);
  expect(operation.end).toMatchObject({ status: { code: Code.CANCELLED } });
  expect(textOf(operation)).toBe("partial");
});

test("a watcher that comes back within the grace period keeps the action alive", async () => {
  const { scheduler, executor, submit, advance } = make();
  const operation = await submit("a");
  await new Watcher(scheduler, operation).stop();
  await advance(50_000);
  const second = new Watcher(scheduler, operation, "watch");
  await advance(100_000);
  expect(executor.running).toHaveLength(1);
  await second.stop();
});

test("cancel() ends one of two merged operations and leaves the action to the other", async () => {
  const { scheduler, executor, submit } = make();
  const [first, second] = [await submit("a"), await submit("a")];
  scheduler.cancel(first.name);
  await settle();
  expect(first.end).toMatchObject({ status: { code: Code.CANCELLED } });
  expect(executor.running).toHaveLength(1);
  await executor.running[0]!.finish();
  expect(second.end?.status).toBeUndefined();
});

test("cancel() of the last operation kills the action and keeps what it left", async () => {
  const { scheduler, executor, submit } = make();
  const operation = await submit("a");
  scheduler.cancel(operation.name);
  await settle();
  expect(executor.running).toHaveLength(0);
  expect(operation.end).toMatchObject({ status: { code: Code.CANCELLED } });
  expect(textOf(operation)).toBe("partial");
  expect(() => scheduler.cancel("operations/unknown")).toThrow(expect.objectContaining({ code: Code.NOT_FOUND }));
});

test("cancel() takes a queued action out of the queue", async () => {
  const { scheduler, executor, submit } = make();
  await submit("runs");
  const queued = await submit("queued");
  scheduler.cancel(queued.name);
  expect(scheduler.queueDepth).toBe(0);
  await executor.running[0]!.finish();
  expect(executor.started).toEqual(["runs"]);
});

test("submit() does not join an action that is being killed", async () => {
  const { scheduler, executor, submit } = make({ slots: 2 });
  const execute = executor.execute.bind(executor);
  // This one takes its time to die.
  executor.execute = (job, options) => execute(job, { ...options, signal: new AbortController().signal });
  const first = await submit("a");
  scheduler.cancel(first.name);
  const second = await submit("a");
  expect(executor.running).toHaveLength(2);
  for (const action of executor.running.slice()) await action.finish();
  expect(second.end?.status).toBeUndefined();
});

test("delete() forgets the name and lets the action run on, watched or not", async () => {
  const { scheduler, executor, submit, advance } = make();
  const operation = await submit("a");
  scheduler.delete(operation.name);
  expect(() => scheduler.get(operation.name)).toThrow(expect.objectContaining({ code: Code.NOT_FOUND }));
  await advance(200_000);
  expect(executor.running).toHaveLength(1);
  await executor.running[0]!.finish();
  expect((await submit("a")).end?.isCached).toBe(true);
});

test("drain() ends what is queued, waits for what runs, and takes nothing new", async () => {
  const { scheduler, executor, submit } = make();
  const runs = await submit("runs");
  const queued = await submit("queued");
  let isDrained = false;
  const drained = scheduler.drain({ signal: new AbortController().signal }).then(() => (isDrained = true));
  await settle();
  expect(queued.end).toMatchObject({ status: { code: Code.UNAVAILABLE } });
  expect(isDrained).toBe(false);
  await expect(submit("late")).rejects.toMatchObject({ code: Code.UNAVAILABLE });
  await executor.running[0]!.finish();
  await drained;
  expect(runs.end?.status).toBeUndefined();
});

test("drain() kills what still runs when its time is up, with a status that clients retry", async () => {
  const { scheduler, executor, submit } = make();
  const runs = await submit("runs");
  const timeUp = new AbortController();
  const drained = scheduler.drain({ signal: timeUp.signal });
  await settle();
  timeUp.abort();
  await drained;
  expect(executor.running).toHaveLength(0);
  expect(runs.end).toMatchObject({ status: { code: Code.UNAVAILABLE } });
});

test("a bug in the executor ends the operation with INTERNAL and frees the slot", async () => {
  const { executor, submit } = make();
  const execute = executor.execute.bind(executor);
  executor.execute = () => Promise.reject(new TypeError("undefined is not a function"));
  const broken = await submit("broken");
  expect(broken.end).toMatchObject({ status: { code: Code.INTERNAL } });
  executor.execute = execute;
  await submit("next");
  expect(executor.running).toHaveLength(1);
});

test("an action cache that cannot be read is a miss", async () => {
  const { actionCache, executor, submit } = make();
  actionCache.get = () => Promise.reject(new StatusError(Code.INTERNAL, "disk"));
  await submit("a");
  expect(executor.running).toHaveLength(1);
});

function make(options: { slots?: number; maxQueueDepth?: number } = {}) {
  const fixture = new SchedulerFixture(options);
  const { scheduler, executor, clock, actionCache } = fixture;
  return {
    scheduler,
    executor,
    clock,
    actionCache,
    submit: fixture.submit.bind(fixture),
    cache: fixture.cache.bind(fixture),
    advance: fixture.advance.bind(fixture),
  };
}
