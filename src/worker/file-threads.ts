// A few threads for synchronous file work, so that a slow disk never stops the event loop.
//
// Invariant: every job is answered once; a thread that dies rejects its jobs and is replaced by the next job. Threads
// start with the first job and do not keep the process alive. What jobs there are is file-jobs.ts.

import { Worker } from "node:worker_threads";
import { workerFile } from "../base/worker-file.ts";
import { Code, StatusError } from "../base/status.ts";
import type { FileJobs, FileRequest, FileResponse } from "./file-jobs.ts";

interface Thread {
  readonly worker: Worker;
  readonly pending: Map<number, { resolve: (output: unknown) => void; reject: (error: Error) => void }>;
}

export class FileThreads {
  readonly #threads: (Thread | undefined)[];
  #nextId = 1;
  #isClosed = false;

  /** Two suffice: one thread stages about 100,000 files a second, and the disk's journal is one. */
  constructor(count = 2) {
    this.#threads = Array.from({ length: count }, () => undefined);
  }

  /** Runs a job on the thread with the least to do. Buffers in `transfer` are given away. */
  run<Name extends keyof FileJobs>(
    name: Name,
    input: FileJobs[Name]["input"],
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<FileJobs[Name]["output"]> {
    if (this.#isClosed) return Promise.reject(new StatusError(Code.UNAVAILABLE, "The server is shutting down"));
    const thread = this.#leastBusy();
    const request: FileRequest<Name> = { id: this.#nextId++, name, input };
    return new Promise<FileJobs[Name]["output"]>((resolve, reject) => {
      // The thread answers a job of this name with the output of this name.
      const settle = { resolve: (output: unknown) => resolve(output as FileJobs[Name]["output"]), reject };
      thread.pending.set(request.id, settle);
      thread.worker.postMessage(request, transfer);
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const thread of this.#threads) await thread?.worker.terminate();
  }

  #leastBusy(): Thread {
    let best: { position: number; load: number } | undefined;
    for (const [position, thread] of this.#threads.entries()) {
      const load = thread?.pending.size ?? 0;
      // A thread that runs and is idle comes before one that would have to be started.
      if (thread !== undefined && load === 0) return thread;
      if (best === undefined || load < best.load) best = { position, load };
    }
    const { position } = best!;
    return (this.#threads[position] ??= this.#start(position));
  }

  #start(position: number): Thread {
    const worker = new Worker(workerFile("worker/file-thread"), { name: "ledge-files" });
    worker.unref();
    const thread: Thread = { worker, pending: new Map() };
    worker.on("message", (response: FileResponse) => {
      const settle = thread.pending.get(response.id);
      thread.pending.delete(response.id);
      if ("error" in response) settle?.reject(fileError(response.error));
      else settle?.resolve(response.output);
    });
    const fail = (cause: unknown) => {
      if (this.#threads[position] === thread) this.#threads[position] = undefined;
      for (const { reject } of thread.pending.values()) reject(new Error("A file thread ended", { cause }));
      thread.pending.clear();
    };
    worker.on("error", fail);
    worker.on("exit", fail);
    return thread;
  }
}

/** A full disk is the operator's problem and passes; everything else about our own directories is a fault. */
function fileError(error: { readonly message: string; readonly code: string | undefined }): StatusError {
  const isFull = error.code === "ENOSPC" || error.code === "EDQUOT";
  const code = isFull ? Code.RESOURCE_EXHAUSTED : Code.INTERNAL;
  return new StatusError(code, `Build directory: ${error.message}`);
}
