// The seam of the ordered key-value store: LMDB, and an in-memory twin without native code.
//
// Every implementation runs test/kv/key-value-store-contract.ts, which scribbles over every argument after the call has
// settled and over every result after the next call. Keys are bytes, ordered lexicographically, 1 to 511 bytes.

export interface KeyValueStore {
  /** The value, owned by the caller (a copy), or undefined. Synchronous: the map is in memory. */
  get(key: Uint8Array): Uint8Array | undefined;
  /**
   * As get(), without a copy: the value is the first `length` of `bytes`, both good until the next call of any method.
   * Undefined when absent.
   */
  borrow(key: Uint8Array): BorrowedValue | undefined;
  /**
   * Writes all operations in one atomic, durable step. Concurrent calls share a commit. `key` and `value` buffers are
   * borrowed until the promise settles. Rejects with RESOURCE_EXHAUSTED when the disk is full; nothing was written then.
   */
  write(operations: readonly KeyValueOperation[]): Promise<void>;
  /** Entries with from <= key < to, ascending, as of now. Key and value are borrowed until the next iteration. */
  range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array }): Iterable<KeyValueEntry>;
  /** Waits for pending commits and releases everything. Idempotent. */
  close(): Promise<void>;
}

export interface BorrowedValue {
  readonly bytes: Buffer;
  readonly length: number;
}

export type KeyValueOperation =
  | {
      readonly type: "put";
      readonly key: Uint8Array;
      readonly value: Uint8Array;
      /** The value is a part of the one it replaces: where room is short, this is as good as a delete. */
      readonly isSmaller?: true;
    }
  | { readonly type: "delete"; readonly key: Uint8Array };

export interface KeyValueEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** True for writes that make room, if little: a full disk must let them pass. */
export function makesRoom(operations: readonly KeyValueOperation[]): boolean {
  return operations.every((operation) => operation.type === "delete" || operation.isSmaller === true);
}
