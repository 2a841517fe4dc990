// The position in the queue that is told to clients, against the order in which tasks leave it.

import { describe, expect, test } from "vitest";
import { ExecutionQueue, type QueuedTask } from "../../src/scheduler/execution-queue.ts";

const task = (sequence: number, invocation: string, rest: Partial<QueuedTask> = {}): QueuedTask => ({
  sequence,
  invocation,
  priority: 0,
  expectedMs: 0,
  ...rest,
});

/** How many tasks really leave the queue before each, when every task that leaves ends at once. */
function popped(tasks: readonly QueuedTask[]): Map<QueuedTask, number> {
  const queue = queueOf(tasks);
  const order = new Map<QueuedTask, number>();
  for (let next = queue.pop(() => 0); next !== undefined; next = queue.pop(() => 0)) order.set(next, order.size);
  return order;
}

function queueOf(tasks: readonly QueuedTask[]): ExecutionQueue<QueuedTask> {
  const queue = new ExecutionQueue<QueuedTask>();
  for (const each of tasks) queue.push(each);
  return queue;
}

describe("aheadOf()", () => {
  test.for([
    ["one invocation", [task(1, "a"), task(2, "a"), task(3, "a")]],
    ["long tasks first", [task(1, "a"), task(2, "a", { expectedMs: 9000 }), task(3, "a", { expectedMs: 500 })]],
    ["priorities", [task(1, "a", { priority: 5 }), task(2, "b"), task(3, "a", { priority: -1 }), task(4, "b")]],
    ["many of one, two of another", [1, 2, 3, 4, 5, 6].map((id) => task(id, id > 4 ? "b" : "a"))],
    ["three invocations", [1, 2, 3, 4, 5, 6, 7, 8, 9].map((id) => task(id, "abc"[id % 3]!))],
  ] as const)("is the order in which tasks leave: %s", ([, tasks]) => {
    const queue = queueOf(tasks);
    expect(tasks.map((each) => queue.aheadOf(each))).toEqual(tasks.map((each) => popped(tasks).get(each)));
  });

  test("is unknown for a task that is not queued", () => {
    const queue = queueOf([task(1, "a")]);
    expect(queue.aheadOf(task(2, "a"))).toBeUndefined();
    expect(queue.aheadOf(task(3, "b"))).toBeUndefined();
  });
});
