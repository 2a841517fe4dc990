// A key-value store that answers before its writes are durable, for runners whose disk is thrown away anyway.
//
// Writes are visible at once, from an overlay in memory, and committed behind it in the order they came. Invariant: what
// a crash leaves is a prefix of the writes, each of them whole. Writes of deletes alone wait for their commit, because what
// they free is destroyed next; on a full disk they go first. While commits fail (full disk), what was accepted waits, and puts are refused with the reason.

import type { Logger } from "../telemetry/log.ts";
import { assertKey } from "./key-check.ts";
import {
  makesRoom,
  type BorrowedValue,
  type KeyValueEntry,
  type KeyValueOperation,
  type KeyValueStore,
} from "./key-value-store.ts";

/** What waits in memory; a disk that is slower than its writers makes them wait from here on. */
const MAX_WAITING_BYTES = 32 * 1024 * 1024;
const RETRY_MS = 1000;

export interface LazyStoreOptions {
  readonly inner: KeyValueStore;
  /** Resolves when the files that were stored before the call are on the disk: records must not come before them. */
  readonly beforeCommit: () => Promise<void>;
  readonly logger: Logger;
}

/** The last write of a key that is not committed; undefined = deleted. Compared by identity. */
interface Latest {
  readonly value: Uint8Array | undefined;
}

interface Waiting {
  operations: readonly KeyValueOperation[];
  readonly latest: ReadonlyMap<string, Latest>;
  readonly bytes: number;
  readonly makesRoom: boolean;
}

export class LazyStore implements KeyValueStore {
  readonly #options: LazyStoreOptions;
  readonly #overlay = new Map<string, Latest>();
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #failure: unknown;
  #isClosing = false;
  #committing: Promise<void> | undefined;
  /** Resolves at the end of the next commit, failed or not. */
  #turn = Promise.withResolvers<void>();
  #wakeRetry: (() => void) | undefined;

  constructor(options: LazyStoreOptions) {
    this.#options = options;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    assertKey(key);
    const latest = this.#overlay.get(toText(key));
    if (latest === undefined) return this.#options.inner.get(key);
    return latest.value === undefined ? undefined : new Uint8Array(latest.value);
  }

  borrow(key: Uint8Array): BorrowedValue | undefined {
    assertKey(key);
    const latest = this.#overlay.get(toText(key));
    if (latest === undefined) return this.#options.inner.borrow(key);
    const { value } = latest;
    if (value === undefined) return undefined;
    return { bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength), length: value.length };
  }

  async write(operations: readonly KeyValueOperation[]): Promise<void> {
    for (const operation of operations) assertKey(operation.key);
    if (operations.length === 0) return;
    if (this.#isClosing) return this.#options.inner.write(operations); // says that it is closed
    const isDelete = makesRoom(operations);
    while (!isDelete && this.#waitingBytes > MAX_WAITING_BYTES && this.#failure === undefined) await this.#turn.promise;
    if (!isDelete && this.#failure !== undefined) throw this.#failure;
    const waiting = this.#accept(operations);
    this.#committing ??= this.#commitAll();
    if (isDelete) while (this.#waiting.includes(waiting)) await this.#turn.promise;
  }

  *range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array } = {}): Iterable<KeyValueEntry> {
    const from = options.from === undefined ? "" : toText(options.from);
    const to = options.to === undefined ? undefined : toText(options.to);
    const fresh = [...this.#overlay]
      .filter(([key]) => key >= from && (to === undefined || key < to))
      .toSorted(([a], [b]) => (a < b ? -1 : 1));
    let next = 0;
    for (const entry of this.#options.inner.range(options)) {
      const text = toText(entry.key);
      for (; next < fresh.length && (fresh[next]?.[0] ?? "") < text; next++) yield* entryOf(fresh[next]);
      if (fresh[next]?.[0] === text) yield* entryOf(fresh[next++]);
      else yield entry;
    }
    for (; next < fresh.length; next++) yield* entryOf(fresh[next]);
  }

  /** Commits what waits; a disk that does not take it loses it. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#wakeRetry?.();
    await this.#committing;
    await this.#options.inner.close();
  }

  /** Copies what its owner may change as soon as it is answered. */
  #accept(operations: readonly KeyValueOperation[]): Waiting {
    let bytes = 0;
    const latest = new Map<string, Latest>();
    const copies = operations.map((operation): KeyValueOperation => {
      const key = new Uint8Array(operation.key);
      const value = operation.type === "put" ? new Uint8Array(operation.value) : undefined;
      bytes += key.length + (value?.length ?? 0);
      latest.set(toText(key), { value });
      return operation.type === "delete" || value === undefined
        ? { type: "delete", key }
        : { ...operation, key, value };
    });
    for (const [key, entry] of latest) this.#overlay.set(key, entry);
    const waiting = { operations: copies, latest, bytes, makesRoom: makesRoom(operations) };
    this.#waiting.push(waiting);
    this.#waitingBytes += bytes;
    return waiting;
  }

  async #commitAll(): Promise<void> {
    // What the turn writes goes together.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const group = [...this.#waiting];
      try {
        await this.#options.beforeCommit();
        await this.#options.inner.write(group.flatMap(({ operations }) => operations));
        this.#failure = undefined;
        this.#forget(group);
      } catch (error) {
        if (this.#failure === undefined) this.#options.logger.error("cannot commit", { reason: String(error) });
        this.#failure = error;
        await this.#deleteAhead(group);
        if (this.#isClosing) this.#forget(this.#waiting);
      }
      this.#turn.resolve();
      this.#turn = Promise.withResolvers();
      if (this.#failure !== undefined && !this.#isClosing) await this.#waitForRetry();
    }
    this.#committing = undefined;
  }

  /** Deletes do not wait behind puts that find no room: they make it. */
  async #deleteAhead(group: readonly Waiting[]): Promise<void> {
    // A part of a value that itself waits must not come before what was written with that value.
    const waitingKeys = new Set<string>();
    const deletes: Waiting[] = [];
    for (const waiting of group) {
      if (waiting.makesRoom && !waiting.operations.some((operation) => isPartOf(operation, waitingKeys))) {
        deletes.push(waiting);
      } else for (const key of waiting.latest.keys()) waitingKeys.add(key);
    }
    // What a delete replaces need not be written before it: else a delete of what waits would wait for room as well.
    const replaced = new Set<string>();
    for (const waiting of group.toReversed()) {
      waiting.operations = waiting.operations.filter(({ key }) => !replaced.has(toText(key)));
      for (const key of waiting.latest.keys()) replaced.add(key);
    }
    if (deletes.length === 0) return;
    try {
      await this.#options.inner.write(deletes.flatMap(({ operations }) => operations));
      this.#forget(deletes);
    } catch {
      // Tried again with the rest.
    }
  }

  #forget(group: readonly Waiting[]): void {
    const gone = new Set(group);
    this.#waiting = this.#waiting.filter((waiting) => !gone.has(waiting));
    for (const { latest, bytes } of group) {
      this.#waitingBytes -= bytes;
      for (const [key, entry] of latest) if (this.#overlay.get(key) === entry) this.#overlay.delete(key);
    }
  }

  #waitForRetry(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, RETRY_MS);
      this.#wakeRetry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function isPartOf(operation: KeyValueOperation, keys: ReadonlySet<string>): boolean {
  return operation.type === "put" && keys.has(toText(operation.key));
}

function* entryOf(entry: readonly [string, Latest] | undefined): Iterable<KeyValueEntry> {
  if (entry?.[1].value === undefined) return;
  yield { key: Buffer.from(entry[0], "latin1"), value: new Uint8Array(entry[1].value) };
}

function toText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}
