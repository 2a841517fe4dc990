// What a client sees of its action: one operation per Execute request. And the task behind it: the work itself, which
// several operations may share.
//
//   CACHE_CHECK ──► QUEUED ──► EXECUTING ──► COMPLETED        a hit, an error or a cancellation jumps to COMPLETED
//
// Invariant: `end` is set exactly when the stage is COMPLETED, and neither changes afterwards. Only
// scheduler-state.ts writes these objects; everybody else reads them.

import type { StatusError } from "../base/status.ts";
import type { Digest } from "../digest/digest.ts";
import type { ActionJob } from "../worker/executor.ts";

/** Values of ExecutionStage.Value. */
export const Stage = { CACHE_CHECK: 1, QUEUED: 2, EXECUTING: 3, COMPLETED: 4 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

/** How the client wants small outputs delivered in the final message. */
export interface Inlining {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly outputFiles: readonly string[];
}

export interface OperationEnd {
  /** Serialized ActionResult without inlined data; undefined when there is nothing to say. */
  readonly result: Uint8Array | undefined;
  readonly isCached: boolean;
  /** It never got as far as the queue: the status belongs to the call, if the client has seen no operation yet. */
  readonly isRejected: boolean;
  /** undefined = OK. */
  readonly status: StatusError | undefined;
  readonly atMs: number;
}

/** An estimate, see ExecutionQueue.aheadOf(). */
export interface QueuePosition {
  /** undefined in a queue that is too long to count. */
  readonly ahead: number | undefined;
  /** Tasks in the queue, this one included. */
  readonly depth: number;
}

export interface Operation {
  readonly name: string;
  /** Grows with each operation; the order of listings. */
  readonly sequence: number;
  readonly actionDigest: Digest;
  readonly inlining: Inlining;
  readonly createdAtMs: number;
  readonly stage: Stage;
  /** The furthest stage before COMPLETED that it came to. */
  readonly reachedStage: Stage;
  readonly end: OperationEnd | undefined;
  /** Streams that watch it. */
  readonly watchers: number;
  /** Since when nobody has watched it; undefined while somebody does, and after its end. */
  readonly orphanedAtMs: number | undefined;
  /** undefined after the end. */
  readonly task: Task | undefined;
}

export interface Task {
  readonly job: ActionJob;
  /** Equal actions have equal keys; undefined: this one is never shared (do_not_cache). */
  readonly mergeKey: string | undefined;
  /** Whom the fair share counts it for. */
  readonly invocation: string;
  readonly phase: "checking" | "queued" | "executing" | "done";
  readonly priority: number;
  /** From earlier runs of the like; 0 when unknown. */
  readonly expectedMs: number;
  readonly sequence: number;
  readonly operations: ReadonlySet<Operation>;
  /** Set while executing. */
  readonly slot: number | undefined;
  readonly startedAtMs: number | undefined;
  /** An equal action has ended since this one looked in the cache: it must look again. */
  readonly mustLookAgain: boolean;
  /** Why it is being ended; it takes no further operations. */
  readonly abortReason: StatusError | undefined;
}
