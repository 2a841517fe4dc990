// One worker thread whose jobs run one after the other, in the order they were given: a piscina with a single worker.
//
// What belongs together (the slabs of an upload, the pieces of a zstd stream) goes to one of these, because its state
// lives on that thread. The thread starts with the first job.

import { fileURLToPath } from "node:url";
import { FixedQueue, Piscina } from "piscina";
import { Code, StatusError } from "../base/status.ts";

export class PinnedThread<Job, Answer> {
  readonly #file: () => URL | string;
  #piscina: Piscina<Job, Answer> | undefined;
  readonly #jobs = new Set<Promise<Answer>>();
  #isClosed = false;
  /** Streams bound here count as well: a new one goes where the fewest are. */
  streams = 0;

  /** `file` calls workerFile(): when the thread starts, which may be long after this. */
  constructor(file: () => URL | string) {
    this.#file = file;
  }

  get load(): number {
    return this.#jobs.size * 4 + this.streams;
  }

  async run(job: Job, transfer: readonly ArrayBuffer[]): Promise<Answer> {
    if (this.#isClosed) throw new StatusError(Code.CANCELLED, "the worker thread is closed");
    this.#piscina ??= startThread(this.#file());
    const running = this.#piscina.run(job, transferring(transfer));
    this.#jobs.add(running);
    try {
      return await running;
    } finally {
      this.#jobs.delete(running);
    }
  }

  /**
   * Ends the thread when it has done what it was given; more is refused. Each job is finite, and piscina throws where
   * nobody can catch it when an answer comes from a thread that was ended under its job.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    while (this.#jobs.size > 0) await Promise.allSettled(this.#jobs);
    await this.#piscina?.destroy();
  }
}

/** Of threads that are all alike, the one with the least to do. */
export function leastBusy<T extends { readonly load: number }>(threads: readonly T[]): T {
  return threads.reduce((best, thread) => (thread.load < best.load ? thread : best));
}

function startThread<Job, Answer>(file: URL | string): Piscina<Job, Answer> {
  return new Piscina({
    filename: typeof file === "string" ? file : fileURLToPath(file),
    minThreads: 1,
    maxThreads: 1,
    // Never shared: piscina's default options hold one queue object.
    taskQueue: new FixedQueue(),
    // Without it a job that finds the worker busy goes to the end of the queue, and slabs would change places.
    stricterFIFO: true,
  });
}

/** piscina's type for the list is derived from an overload and names the wrong one; the value is right. */
function transferring(buffers: readonly ArrayBuffer[]): { transferList: never } {
  return { transferList: [...buffers] as never };
}
