// An action cache that answers only with results whose blobs are all there, and touches them.
//
// A hit is a promise: clients rely on every output of it for the rest of the build. So a result counts only when each
// output file, stdout, stderr, each Tree and every file in it, and each root Directory with every Directory and file
// below it, is in the CAS. Invariant: what is incomplete, damaged or malformed is a miss, never an error: the client runs
// the action again, which mends it. Memory: a batch of digests and a few chunks, however large the trees.

import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import type { BlobReader, BlobStore } from "../cas/blob-store.ts";
import { currentLease, withLease, withLeaseAcrossWaits } from "../cas/lease-context.ts";
import { walkTree } from "../cas/tree-walk.ts";
import { Code, StatusError } from "../base/status.ts";
import { isEmptyDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { DigestBatch } from "../digest/digest-batch.ts";
import { ProtoError } from "../proto/wire.ts";
import type { ActionCache, ActionKey, Provenance } from "./action-cache.ts";
import { readResultReferences, type ResultReferences } from "./result-references.ts";
import { TreeDigests } from "./tree-digests.ts";

/** Digests collected before the store is asked; 40 bytes each. */
const BATCH_DIGESTS = 4096;
/** Trees and roots of one result looked at together. */
const PARALLEL_TREES = 4;
/** Trees up to this size are fetched whole. */
const WHOLE_TREE_BYTES = 256 * 1024;
/** Batches kept for reuse: making one costs more than checking a small result. */
const MAX_SPARE_BATCHES = 8;
const MAX_SPARE_DIGESTS = 16 * 1024;
/** One Directory message; 400,000 entries. */
const MAX_DIRECTORY_BYTES = 32 * 1024 * 1024;

export class CompletenessCheckingActionCache implements ActionCache {
  readonly #inner: ActionCache;
  readonly #blobs: BlobStore;
  readonly #hits: Counter;
  readonly #misses: Counter;
  readonly #incomplete: Counter;

  constructor(inner: ActionCache, blobs: BlobStore, metrics: MetricsRegistry) {
    this.#inner = inner;
    this.#blobs = blobs;
    this.#hits = metrics.counter("ledge_action_cache_hits_total", "Action results found complete.");
    this.#misses = metrics.counter("ledge_action_cache_misses_total", "Action results asked for and not stored.");
    this.#incomplete = metrics.counter(
      "ledge_action_cache_incomplete_total",
      "Action results not returned because a blob they name is absent.",
    );
  }

  get(key: ActionKey): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const lease = currentLease();
    try {
      const result = this.#inner.get(key);
      if (!(result instanceof Promise)) return this.#check(result, key.fn);
      const checked = result.then((later) => withLease(lease, () => this.#check(later, key.fn)));
      return checked.catch((error: unknown) => this.#missOrThrow(error));
    } catch (error) {
      return this.#missOrThrow(error);
    }
  }

  put(key: ActionKey, result: Uint8Array, provenance: Provenance): Promise<void> {
    return this.#inner.put(key, result, provenance);
  }

  delete(key: ActionKey): Promise<boolean> {
    return this.#inner.delete(key);
  }

  #check(result: Uint8Array | undefined, fn: DigestFunction): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    if (result === undefined) {
      this.#misses.add();
      return undefined;
    }
    const hit = (): Uint8Array => {
      this.#hits.add();
      return result;
    };
    const complete = assertComplete(this.#blobs, result, fn);
    return complete === undefined ? hit() : complete.then(hit, (error: unknown) => this.#missOrThrow(error));
  }

  #missOrThrow(error: unknown): undefined {
    if (!meansIncomplete(error)) throw error;
    this.#incomplete.add();
    return undefined;
  }
}

class Incomplete extends Error {}

/** What may be wrong with a result or its blobs; everything else is a failure of the store itself. */
function meansIncomplete(error: unknown): boolean {
  if (error instanceof Incomplete || error instanceof ProtoError) return true;
  if (!(error instanceof StatusError)) return false;
  const codes: readonly number[] = [Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.DATA_LOSS, Code.RESOURCE_EXHAUSTED];
  return codes.includes(error.code);
}

/**
 * Throws, or rejects with, what `meansIncomplete` knows. Files come first: one look-up in memory decides most misses.
 * Undefined when nothing had to be waited for.
 */
function assertComplete(blobs: BlobStore, result: Uint8Array, fn: DigestFunction): Promise<void> | undefined {
  const lease = currentLease();
  const { value, present } = checkAtOnce(blobs, fn, (batch) => readResultReferences(result, fn, batch));
  if (value.trees.length === 0 && value.rootDirectories.length === 0) return present;
  const assertRest = () => withLeaseAcrossWaits(lease, () => assertDirectories(blobs, value));
  return present === undefined ? assertRest() : present.then(assertRest);
}

async function assertDirectories(blobs: BlobStore, { trees, rootDirectories }: ResultReferences): Promise<void> {
  const steps = [
    ...trees.map((digest) => () => assertTree(blobs, digest)),
    ...rootDirectories.map((digest) => () => assertRootDirectory(blobs, digest)),
  ];
  // One iterator for all workers: each step is taken once, and none after the first that fails.
  const remaining = steps.values();
  let failed = false;
  const worker = async (): Promise<void> => {
    for (const step of remaining) {
      if (failed) return;
      await step().catch((error: unknown) => {
        failed = true;
        throw error;
      });
    }
  };
  const workers = Math.min(PARALLEL_TREES, steps.length);
  await Promise.all(Array.from({ length: workers }, worker));
}

/**
 * Fills a batch and asks for it in one go. Without a pause where the store answers at once, so that hundreds of hits at a
 * time share one batch.
 */
function checkAtOnce<T>(
  blobs: BlobStore,
  fn: DigestFunction,
  fill: (batch: DigestBatch) => T,
): { readonly value: T; readonly present: Promise<void> | undefined } {
  const check = new PresenceCheck(blobs, fn);
  let present: Promise<void> | undefined;
  try {
    const value = fill(check.batch);
    present = check.flush()?.finally(() => check[Symbol.dispose]());
    return { value, present };
  } finally {
    if (present === undefined) check[Symbol.dispose]();
  }
}

async function assertTree(blobs: BlobStore, digest: Digest): Promise<void> {
  if (isEmptyDigest(digest)) return; // a Tree without fields: an empty directory
  if (digest.sizeBytes > WHOLE_TREE_BYTES) return assertLargeTree(blobs, digest);
  const bytes = await blobs.get(digest);
  if (bytes === undefined) throw new Incomplete();
  const { present } = checkAtOnce(blobs, digest.fn, (batch) => {
    const tree = new TreeDigests(digest.fn, batch);
    tree.push(bytes);
    tree.finish();
  });
  await present;
}

async function assertLargeTree(blobs: BlobStore, digest: Digest): Promise<void> {
  using check = new PresenceCheck(blobs, digest.fn);
  const tree = new TreeDigests(digest.fn, check.batch);
  const reader = await blobs.openRead(digest);
  try {
    await pushAll(reader, tree, check);
  } finally {
    await reader.close();
  }
  tree.finish();
  await check.flush();
}

async function pushAll(reader: BlobReader, tree: TreeDigests, check: PresenceCheck): Promise<void> {
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
    tree.push(chunk);
    if (check.isFull) await check.flush();
  }
}

async function assertRootDirectory(blobs: BlobStore, root: Digest): Promise<void> {
  using check = new PresenceCheck(blobs, root.fn);
  const onFile = (digest: Digest): void => check.add(digest);
  for await (const { bytes } of walkTree(blobs, root, { maxDirectoryBytes: MAX_DIRECTORY_BYTES, onFile })) {
    if (bytes === undefined) throw new Incomplete();
    if (check.isFull) await check.flush();
  }
  await check.flush();
}

const spareBatches: DigestBatch[] = [];

/** Collects digests and asks for them together; throws Incomplete when one is absent. */
class PresenceCheck implements Disposable {
  readonly #blobs: BlobStore;
  readonly batch = spareBatches.pop() ?? new DigestBatch();

  constructor(blobs: BlobStore, fn: DigestFunction) {
    this.#blobs = blobs;
    this.batch.clear(fn);
  }

  get isFull(): boolean {
    return this.batch.count >= BATCH_DIGESTS;
  }

  add(digest: Digest): void {
    if (!isEmptyDigest(digest)) this.batch.add(digest);
  }

  /** Undefined when the store has answered at once. */
  flush(): Promise<void> | undefined {
    if (this.batch.count === 0) return undefined;
    const missing = this.#blobs.findMissing(this.batch);
    if (missing instanceof Promise) return missing.then((positions) => this.#conclude(positions));
    this.#conclude(missing);
    return undefined;
  }

  #conclude(missing: Uint32Array): void {
    if (missing.length > 0) throw new Incomplete();
    this.batch.clear(this.batch.fn);
  }

  [Symbol.dispose](): void {
    const isSmall = this.batch.sizesBytes.length <= MAX_SPARE_DIGESTS;
    if (isSmall && spareBatches.length < MAX_SPARE_BATCHES) spareBatches.push(this.batch);
  }
}
