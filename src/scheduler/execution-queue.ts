// Which queued task runs next: priority first, then a fair share between invocations, then the longest, then the oldest.
//
// Invariant: an invocation with 5,000 queued tasks delays another's 10 by no more than its own fair share. Pure: it is
// told how many tasks of an invocation run. Bounded by who calls push (scheduler-state.ts).

export interface QueuedTask {
  readonly invocation: string;
  /** Smaller runs sooner. */
  readonly priority: number;
  readonly expectedMs: number;
  readonly sequence: number;
}

interface Line<T> {
  /** Binary heap, best first. */
  readonly heap: T[];
  /** When this invocation was last served, counted in pops. */
  servedAt: number;
}

export class ExecutionQueue<T extends QueuedTask> {
  readonly #lines = new Map<string, Line<T>>();
  #size = 0;
  #pops = 0;

  get size(): number {
    return this.#size;
  }

  push(task: T): void {
    let line = this.#lines.get(task.invocation);
    if (line === undefined) {
      line = { heap: [], servedAt: 0 };
      this.#lines.set(task.invocation, line);
    }
    line.heap.push(task);
    siftUp(line.heap, line.heap.length - 1);
    this.#size++;
  }

  /** Takes the next task; `runningOf` says how many tasks of an invocation run now. */
  pop(runningOf: (invocation: string) => number): T | undefined {
    let best: { task: T; line: Line<T>; running: number } | undefined;
    for (const [invocation, line] of this.#lines) {
      const task = line.heap[0]!;
      const candidate = { task, line, running: runningOf(invocation) };
      if (best === undefined || isServedBefore(candidate, best)) best = candidate;
    }
    if (best === undefined) return undefined;
    best.line.servedAt = ++this.#pops;
    this.remove(best.task);
    return best.task;
  }

  /** False when the task was not queued. Linear in the invocation's tasks. */
  remove(task: T): boolean {
    const line = this.#lines.get(task.invocation);
    const index = line?.heap.indexOf(task) ?? -1;
    if (line === undefined || index < 0) return false;
    const last = line.heap.pop()!;
    if (index < line.heap.length) {
      line.heap[index] = last;
      siftUp(line.heap, index);
      siftDown(line.heap, index);
    }
    if (line.heap.length === 0) this.#lines.delete(task.invocation);
    this.#size--;
    return true;
  }

  /**
   * How many queued tasks go before `task`, as if nothing else came and all took equally long: those of its own
   * invocation that are better, and of every other the same share. undefined when it is not queued. Linear in the queue.
   */
  aheadOf(task: T): number | undefined {
    const own = this.#lines.get(task.invocation);
    if (own === undefined || !own.heap.includes(task)) return undefined;
    const before = own.heap.filter((other) => isBefore(other, task));
    const turns = before.filter(({ priority }) => priority === task.priority).length;
    let ahead = before.length;
    for (const line of this.#lines.values()) {
      if (line === own) continue;
      const isFirst = line.servedAt < own.servedAt || (line.servedAt === own.servedAt && isOlder(line, own));
      let equal = 0;
      for (const { priority } of line.heap) {
        if (priority < task.priority) ahead++;
        else if (priority === task.priority) equal++;
      }
      ahead += Math.min(equal, turns + (isFirst ? 1 : 0));
    }
    return ahead;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (const line of this.#lines.values()) yield* line.heap;
  }
}

function isServedBefore<T extends QueuedTask>(
  a: { task: T; line: Line<T>; running: number },
  b: { task: T; line: Line<T>; running: number },
): boolean {
  if (a.task.priority !== b.task.priority) return a.task.priority < b.task.priority;
  if (a.running !== b.running) return a.running < b.running;
  if (a.line.servedAt !== b.line.servedAt) return a.line.servedAt < b.line.servedAt;
  return a.task.sequence < b.task.sequence;
}

function isOlder<T extends QueuedTask>(a: Line<T>, b: Line<T>): boolean {
  return a.heap[0]!.sequence < b.heap[0]!.sequence;
}

/** Within one invocation. Durations count by powers of two, so that small differences do not reorder what was asked. */
function isBefore(a: QueuedTask, b: QueuedTask): boolean {
  if (a.priority !== b.priority) return a.priority < b.priority;
  const byLength = lengthClass(b.expectedMs) - lengthClass(a.expectedMs);
  return byLength === 0 ? a.sequence < b.sequence : byLength < 0;
}

/** Everything below a quarter of a second is one class: its order does not matter for the end of a build. */
function lengthClass(expectedMs: number): number {
  return expectedMs < 250 ? 0 : Math.floor(Math.log2(expectedMs / 125));
}

function siftUp(heap: QueuedTask[], start: number): void {
  for (let index = start; index > 0;) {
    const parent = (index - 1) >> 1;
    if (!isBefore(heap[index]!, heap[parent]!)) return;
    swap(heap, index, parent);
    index = parent;
  }
}

function siftDown(heap: QueuedTask[], start: number): void {
  for (let index = start; ;) {
    let best = index;
    for (const child of [2 * index + 1, 2 * index + 2]) {
      if (child < heap.length && isBefore(heap[child]!, heap[best]!)) best = child;
    }
    if (best === index) return;
    swap(heap, index, best);
    index = best;
  }
}

function swap(heap: QueuedTask[], a: number, b: number): void {
  [heap[a], heap[b]] = [heap[b]!, heap[a]!];
}
