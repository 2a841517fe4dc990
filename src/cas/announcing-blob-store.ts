// Tells whoever waits for a blob that it has arrived, whichever way it came: a stream, a batch, HTTP, an action.
//
// A streamed upload ends at once when another writer completes the same blob; without this it would have to poll.
// Invariant: an announcement comes after the inner store has the blob. Everything else is the inner store's.

import { digestKey, type Digest } from "../digest/digest.ts";
import type { DigestFunction } from "../digest/digest.ts";
import type { DigestBatch } from "../digest/digest-batch.ts";
import type { BlobReader, BlobStore, BlobUpload, CopyOutcome, Pin, ReadOptions } from "./blob-store.ts";

export class AnnouncingBlobStore implements BlobStore {
  readonly #inner: BlobStore;
  /** One entry per blob somebody waits for; a waiter is one streamed upload. */
  readonly #waiters = new Map<string, Set<() => void>>();

  constructor(inner: BlobStore) {
    this.#inner = inner;
  }

  /** Calls `onStored` once when the blob is stored from now on. The returned function forgets it; idempotent. */
  subscribe(digest: Digest, onStored: () => void): () => void {
    const key = digestKey(digest);
    const waiters = this.#waiters.get(key) ?? new Set();
    waiters.add(onStored);
    this.#waiters.set(key, waiters);
    return () => {
      waiters.delete(onStored);
      if (waiters.size === 0 && this.#waiters.get(key) === waiters) this.#waiters.delete(key);
    };
  }

  findMissing(batch: DigestBatch): Uint32Array | Promise<Uint32Array> {
    return this.#inner.findMissing(batch);
  }

  has(digest: Digest): boolean | Promise<boolean> {
    return this.#inner.has(digest);
  }

  findSize(fn: DigestFunction, hash: string): number | undefined | Promise<number | undefined> {
    return this.#inner.findSize(fn, hash);
  }

  get(digest: Digest): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    return this.#inner.get(digest);
  }

  copyAtHand(batch: DigestBatch, position: number, target: Buffer, offsetBytes: number): CopyOutcome {
    return this.#inner.copyAtHand(batch, position, target, offsetBytes);
  }

  openRead(digest: Digest, options?: ReadOptions): Promise<BlobReader> {
    return this.#inner.openRead(digest, options);
  }

  async put(digest: Digest, data: Uint8Array): Promise<void> {
    await this.#inner.put(digest, data);
    this.#announce(digest);
  }

  putTogether(batch: DigestBatch, data: readonly Uint8Array[]): Promise<void> | undefined {
    return this.#inner.putTogether(batch, data)?.then(() => {
      if (this.#waiters.size === 0) return;
      for (let position = 0; position < batch.count; position++) this.#announce(batch.digestAt(position));
    });
  }

  async openUpload(digest: Digest): Promise<BlobUpload> {
    const upload = await this.#inner.openUpload(digest);
    return {
      get writtenBytes() {
        return upload.writtenBytes;
      },
      write: (chunk) => upload.write(chunk),
      finish: async () => {
        await upload.finish();
        this.#announce(digest);
      },
      abort: () => upload.abort(),
    };
  }

  async ingestFile(path: string, fn: DigestFunction): Promise<Digest> {
    const digest = await this.#inner.ingestFile(path, fn);
    this.#announce(digest);
    return digest;
  }

  pin(digests: Iterable<Digest>): Pin {
    return this.#inner.pin(digests);
  }

  filePath(digest: Digest): string | undefined {
    return this.#inner.filePath(digest);
  }

  #announce(digest: Digest): void {
    if (this.#waiters.size === 0) return;
    const key = digestKey(digest);
    const waiters = this.#waiters.get(key);
    if (waiters === undefined) return;
    this.#waiters.delete(key);
    for (const onStored of waiters) onStored();
  }
}
