// The seam of the action cache: action digest to action result, per instance name.
//
// Every implementation and decorator runs test/action-cache/action-cache-contract.ts. Results travel as the serialized
// ActionResult, so that unknown fields of newer clients survive. The key holds no size: HTTP does not know it.

import type { DigestFunction } from "../digest/digest.ts";

export interface ActionKey {
  readonly instanceName: string;
  readonly fn: DigestFunction;
  /** Lower-case hex of the Action's hash. */
  readonly hash: string;
}

/** Who wrote a result; kept beside it for `ledge` tooling (provenance). All fields are optional facts. */
export interface Provenance {
  readonly writer?: string;
  readonly worker?: string;
  readonly toolInvocationId?: string;
  readonly targetId?: string;
  readonly actionMnemonic?: string;
  readonly writtenAtMs?: number;
}

export interface ActionCache {
  /**
   * The serialized ActionResult, or undefined. Touches the entry and, behind completeness checking, its blobs.
   * Synchronous on the hot path.
   */
  get(key: ActionKey): Uint8Array | undefined | Promise<Uint8Array | undefined>;
  /** Stores `result`, replacing what was there; durable once it resolves. `result` is borrowed until then. */
  put(key: ActionKey, result: Uint8Array, provenance: Provenance): Promise<void>;
  /** Removes the entry; false when there was none. */
  delete(key: ActionKey): Promise<boolean>;
}
