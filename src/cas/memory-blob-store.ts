// Blobs in memory, without native code: the twin of the local store, for tests and for --data-dir :memory:.
//
// Bounded by bytes; the least recently used blob that is not pinned goes first.

import { readFile, unlink } from "node:fs/promises";
import { Code, StatusError } from "../base/status.ts";
import { digestOf, hashHex } from "../compute/hash.ts";
import type { DigestBatch } from "../digest/digest-batch.ts";
import {
  digestKey,
  digestMismatch,
  formatDigest,
  isEmptyDigest,
  EMPTY_HASH,
  type Digest,
  type DigestFunction,
} from "../digest/digest.ts";
import {
  CopyOutcome,
  type BlobReader,
  type BlobStore,
  type BlobUpload,
  type Pin,
  type ReadOptions,
} from "./blob-store.ts";
import { MemoryEntries } from "./memory-entries.ts";
import { MemoryReader } from "./memory-reader.ts";
import { Pins } from "./pins.ts";
import { blobNotFound, readBounds, tooManyBytes } from "./read-bounds.ts";

const EMPTY = new Uint8Array(0);

interface MemoryBlob {
  readonly sizeBytes: number;
  readonly data: Uint8Array;
}

export class MemoryBlobStore implements BlobStore {
  readonly #pins = new Pins();
  readonly #blobs: MemoryEntries<MemoryBlob>;
  /** Size by function and hash, because HTTP does not know it. */
  readonly #sizes = new Map<string, number>();

  constructor(options: { readonly maxBytes?: number } = {}) {
    this.#blobs = new MemoryEntries({
      maxBytes: options.maxBytes ?? Number.POSITIVE_INFINITY,
      isPinned: (key) => this.#pins.isPinned(key),
    });
  }

  get bytes(): number {
    return this.#blobs.bytes;
  }

  get count(): number {
    return this.#blobs.count;
  }

  findMissing(batch: DigestBatch): Uint32Array {
    const missing: number[] = [];
    const seen = new Set<string>();
    for (let position = 0; position < batch.count; position++) {
      const digest = batch.digestAt(position);
      const key = digestKey(digest);
      if (seen.has(key)) continue;
      seen.add(key);
      if (!this.has(digest)) missing.push(position);
    }
    return Uint32Array.from(missing);
  }

  has(digest: Digest): boolean {
    return isEmptyDigest(digest) || this.#blobs.find(digestKey(digest)) !== undefined;
  }

  findSize(fn: DigestFunction, hash: string): number | undefined {
    if (hash === EMPTY_HASH[fn]) return 0;
    const sizeBytes = this.#sizes.get(`${fn}:${hash}`);
    return sizeBytes !== undefined && this.has({ fn, hash, sizeBytes }) ? sizeBytes : undefined;
  }

  copyAtHand(batch: DigestBatch, position: number, target: Buffer, offsetBytes: number): CopyOutcome {
    const data = this.#find(batch.digestAt(position));
    if (data === undefined) return CopyOutcome.ABSENT;
    target.set(data, offsetBytes);
    return CopyOutcome.COPIED;
  }

  get(digest: Digest): Uint8Array | undefined {
    const data = this.#find(digest);
    // Not slice(): on a Buffer that would be a view of the same bytes.
    return data === undefined ? undefined : new Uint8Array(data);
  }

  async openRead(digest: Digest, options: ReadOptions = {}): Promise<BlobReader> {
    const data = this.#find(digest);
    if (data === undefined) throw blobNotFound(digest);
    return new MemoryReader(data, readBounds(formatDigest(digest), data.length, options), options.signal);
  }

  async put(digest: Digest, data: Uint8Array): Promise<void> {
    this.#store(digest, new Uint8Array(data));
  }

  async openUpload(digest: Digest): Promise<BlobUpload> {
    return new MemoryUpload(digest, (data) => this.#store(digest, data));
  }

  async ingestFile(path: string, fn: DigestFunction): Promise<Digest> {
    const data = await readFile(path).catch((error: unknown) => {
      throw new StatusError(Code.NOT_FOUND, `Cannot store file "${path}": it cannot be read`, { cause: error });
    });
    const digest = digestOf(fn, data);
    this.#store(digest, data);
    await unlink(path);
    return digest;
  }

  pin(digests: Iterable<Digest>): Pin {
    return this.#pins.pin(digests);
  }

  filePath(): undefined {
    return undefined;
  }

  #find(digest: Digest): Uint8Array | undefined {
    return isEmptyDigest(digest) ? EMPTY : this.#blobs.find(digestKey(digest))?.data;
  }

  #store(digest: Digest, data: Uint8Array): void {
    const hash = hashHex(digest.fn, data);
    if (hash !== digest.hash || data.length !== digest.sizeBytes) throw digestMismatch(digest, hash, data.length);
    if (isEmptyDigest(digest) || this.has(digest)) return;
    this.#blobs.put(digestKey(digest), { sizeBytes: data.length, data });
    this.#sizes.set(`${digest.fn}:${digest.hash}`, data.length);
  }
}

class MemoryUpload implements BlobUpload {
  readonly #digest: Digest;
  readonly #store: (data: Uint8Array) => void;
  #chunks: Uint8Array[] | undefined = [];
  #writtenBytes = 0;

  constructor(digest: Digest, store: (data: Uint8Array) => void) {
    this.#digest = digest;
    this.#store = store;
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  async write(chunk: Uint8Array): Promise<void> {
    const writtenBytes = this.#writtenBytes + chunk.length;
    if (writtenBytes > this.#digest.sizeBytes) throw tooManyBytes(this.#digest, writtenBytes);
    this.#open().push(new Uint8Array(chunk));
    this.#writtenBytes = writtenBytes;
  }

  async finish(): Promise<void> {
    const data = Buffer.concat(this.#open());
    this.#chunks = undefined;
    this.#store(data);
  }

  async abort(): Promise<void> {
    this.#chunks = undefined;
  }

  #open(): Uint8Array[] {
    if (this.#chunks === undefined) throw new Error("this upload has ended");
    return this.#chunks;
  }
}
