// The seam between scheduler and worker: runs one action to its end.
//
// The executor never consults the action cache for hits (the scheduler did), but stores the result of a cacheable action
// before it resolves. It resolves for everything that happened to the action and rejects only for bugs.

import type { Digest } from "../digest/digest.ts";
import type { StatusError } from "../base/status.ts";

export interface ActionJob {
  readonly instanceName: string;
  readonly actionDigest: Digest;
  /** The serialized Action; who received the request has read it already. */
  readonly action: Uint8Array;
  /** The result may go into the action cache (neither do_not_cache nor forbidden otherwise). */
  readonly cacheable: boolean;
  readonly queuedAtMs: number;
  readonly toolInvocationId: string | undefined;
  readonly targetId: string | undefined;
  readonly actionMnemonic: string | undefined;
}

export interface ActionOutcome {
  /** Serialized ActionResult without inlined data; present unless nothing at all can be said. */
  readonly result: Uint8Array | undefined;
  /** undefined = OK: the command ended with some exit code. Never cached otherwise. */
  readonly status: StatusError | undefined;
}

export interface Executor {
  /** How many actions run at once. 0: this server does not execute, and `unavailableReason` says why. */
  readonly slots: number;
  readonly unavailableReason: string | undefined;
  /**
   * Checks what can be known before an action is queued: that Action and Command are there and well formed, that the
   * platform can be had. Throws a StatusError, which becomes the status of the call itself. Changes nothing.
   */
  prepare(job: ActionJob): Promise<void>;
  /** Runs the action in `slot` (0-based, not shared while it runs). Aborting `signal` kills the action. */
  execute(job: ActionJob, options: { readonly signal: AbortSignal; readonly slot: number }): Promise<ActionOutcome>;
}
