// The seam below the action cache: small values under names of their own, counted and evicted together with blobs.
//
// A value is named by its kind and a 32-byte key that its user derives (SHA-256 of what identifies it). Values are
// replaced, never merged; `put` resolves when the value is durable.

export const ValueKind = { ACTION_RESULT: 16, OPAQUE: 17, SPLIT: 18 } as const;
export type ValueKind = (typeof ValueKind)[keyof typeof ValueKind];

export interface ValueStore {
  /** The value, owned by the caller, or undefined. Touches it. */
  get(kind: ValueKind, key: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined>;
  /** `key` and `value` are borrowed until the promise settles. */
  put(kind: ValueKind, key: Uint8Array, value: Uint8Array): Promise<void>;
  /** False when there was none. */
  delete(kind: ValueKind, key: Uint8Array): Promise<boolean>;
}
