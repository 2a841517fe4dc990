// Blobs in memory, without native code: the twin of the local store, for tests and for --data-dir :memory:.
//
// Bounded by bytes; the least recently used blob that is not pinned goes first.

import { readFile, unlink } from "node:fs/promises";
import { giveLargeBuffer } from "../base/large-buffers.ts";
import { Code, StatusError } from "../base/status.ts";
import { createIncrementalHash, digestOf, hashHex, toHex, type IncrementalHash } from "../compute/hash.ts";
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
import { INLINE_LIMIT_BYTES } from "./inline-limit.ts";
import { MemoryEntries } from "./memory-entries.ts";
import { MemoryReader } from "./memory-reader.ts";
import { Pins } from "./pins.ts";
import { blobNotFound, readBounds, tooManyBytes } from "./read-bounds.ts";

const EMPTY: MemoryBlob = { sizeBytes: 0, parts: [], wasLent: true };

/** Chunks from this size on own their buffer (see BlobUpload.write); what is smaller may share one. */
const MIN_RECYCLED_BYTES = 128 * 1024;

const EMPTY_BYTES = new Uint8Array(0);

interface MemoryBlob {
  readonly sizeBytes: number;
  /** In the pieces in which they were uploaded, none of them empty: a large blob is never copied into one. */
  readonly parts: readonly Uint8Array[];
  /** Somebody may still have views of the parts: a socket, for one. */
  wasLent: boolean;
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
      onRemoved: recycle,
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

  putTogether(batch: DigestBatch, data: readonly Uint8Array[]): Promise<void> | undefined {
    const digests = data.map((_, position) => batch.digestAt(position));
    const areRight = digests.every((digest, position) => {
      const bytes = data[position] ?? EMPTY_BYTES;
      return bytes.length < INLINE_LIMIT_BYTES && hashHex(digest.fn, bytes) === digest.hash;
    });
    if (!areRight) return undefined;
    const puts = digests.map((digest, position) => this.put(digest, data[position] ?? EMPTY_BYTES));
    return Promise.all(puts).then(() => undefined);
  }

  copyAtHand(batch: DigestBatch, position: number, target: Buffer, offsetBytes: number): CopyOutcome {
    const data = this.get(batch.digestAt(position));
    if (data === undefined) return CopyOutcome.ABSENT;
    target.set(data, offsetBytes);
    return CopyOutcome.COPIED;
  }

  get(digest: Digest): Uint8Array | undefined {
    const blob = this.#find(digest);
    if (blob === undefined) return undefined;
    const data = new Uint8Array(blob.sizeBytes);
    let offset = 0;
    for (const part of blob.parts) {
      data.set(part, offset);
      offset += part.length;
    }
    return data;
  }

  async openRead(digest: Digest, options: ReadOptions = {}): Promise<BlobReader> {
    const blob = this.#find(digest);
    if (blob === undefined) throw blobNotFound(digest);
    const { sizeBytes, parts } = blob;
    blob.wasLent = true;
    const bounds = readBounds(formatDigest(digest), sizeBytes, options);
    return new MemoryReader(parts, bounds, options.signal);
  }

  async put(digest: Digest, data: Uint8Array): Promise<void> {
    this.#store(digest, wholeBlob(digest.fn, new Uint8Array(data)));
  }

  async openUpload(digest: Digest): Promise<BlobUpload> {
    return new MemoryUpload(digest, (received) => this.#store(digest, received));
  }

  async ingestFile(path: string, fn: DigestFunction): Promise<Digest> {
    const data = await readFile(path).catch((error: unknown) => {
      throw new StatusError(Code.NOT_FOUND, `Cannot store file "${path}": it cannot be read`, { cause: error });
    });
    const digest = digestOf(fn, data);
    this.#store(digest, { hash: digest.hash, sizeBytes: data.length, parts: [data], wasLent: true });
    await unlink(path);
    return digest;
  }

  pin(digests: Iterable<Digest>): Pin {
    return this.#pins.pin(digests);
  }

  filePath(): undefined {
    return undefined;
  }

  #find(digest: Digest): MemoryBlob | undefined {
    return isEmptyDigest(digest) ? EMPTY : this.#blobs.find(digestKey(digest));
  }

  #store(digest: Digest, { hash, sizeBytes, parts, wasLent }: ReceivedBlob): void {
    if (hash !== digest.hash || sizeBytes !== digest.sizeBytes) throw digestMismatch(digest, hash, sizeBytes);
    if (isEmptyDigest(digest) || this.has(digest)) return;
    this.#blobs.put(digestKey(digest), { sizeBytes, parts, wasLent });
    this.#sizes.set(`${digest.fn}:${digest.hash}`, sizeBytes);
  }
}

/**
 * Gives the buffers of a blob that nobody ever read to the next uploads. Left to the collector, uploads of 64 MiB had it
 * mark the heap all the time, which took a third of the server's time.
 */
function recycle({ parts, wasLent }: MemoryBlob): void {
  if (wasLent) return;
  for (const { buffer, byteLength } of parts) {
    if (byteLength >= MIN_RECYCLED_BYTES && buffer instanceof ArrayBuffer) giveLargeBuffer(buffer);
  }
}

/** What came in, and its hash. */
interface ReceivedBlob extends MemoryBlob {
  readonly hash: string;
}

function wholeBlob(fn: DigestFunction, data: Uint8Array): ReceivedBlob {
  return { hash: hashHex(fn, data), sizeBytes: data.length, parts: [data], wasLent: false };
}

/** Hashes what arrives as it arrives, and keeps it as it is. */
class MemoryUpload implements BlobUpload {
  readonly #digest: Digest;
  readonly #store: (received: ReceivedBlob) => void;
  readonly #hash: IncrementalHash;
  #parts: Uint8Array[] | undefined = [];
  #writtenBytes = 0;

  constructor(digest: Digest, store: (received: ReceivedBlob) => void) {
    this.#digest = digest;
    this.#store = store;
    this.#hash = createIncrementalHash(digest.fn);
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  async write(chunk: Uint8Array): Promise<void> {
    const writtenBytes = this.#writtenBytes + chunk.length;
    if (writtenBytes > this.#digest.sizeBytes) throw tooManyBytes(this.#digest, writtenBytes);
    const parts = this.#open();
    if (chunk.length === 0) return;
    this.#hash.update(chunk);
    // A view that would keep much more alive than it shows is copied.
    parts.push(chunk.length * 2 < chunk.buffer.byteLength ? new Uint8Array(chunk) : chunk);
    this.#writtenBytes = writtenBytes;
  }

  async finish(): Promise<void> {
    const parts = this.#open();
    this.#parts = undefined;
    this.#store({ hash: toHex(this.#hash.digest()), sizeBytes: this.#writtenBytes, parts, wasLent: false });
  }

  async abort(): Promise<void> {
    this.#parts = undefined;
  }

  #open(): Uint8Array[] {
    if (this.#parts === undefined) throw new Error("this upload has ended");
    return this.#parts;
  }
}
