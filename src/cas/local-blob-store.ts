// Blobs on this machine's disk: small ones as values, large ones as files, all of them in one index in memory.
//
// The walk of a write: verify → bytes durable → record durable → index → answer. The walk of FindMissingBlobs ends here,
// in one loop over typed arrays.

import { readFile } from "node:fs/promises";
import {
  digestMismatch,
  formatDigest,
  isEmptyDigest,
  EMPTY_HASH,
  type Digest,
  type DigestFunction,
} from "../digest/digest.ts";
import { hexToWords, WORDS_PER_HASH, type DigestBatch } from "../digest/digest-batch.ts";
import { Code, StatusError } from "../base/status.ts";
import { HASH_IN_PLACE_BYTES } from "../compute/ingest-pool.ts";
import { hashHex } from "../compute/hash.ts";
import {
  CopyOutcome,
  type BlobReader,
  type BlobStore,
  type BlobUpload,
  type Pin,
  type ReadOptions,
} from "./blob-store.ts";
import { IndexFlag } from "./blob-index.ts";
import type { EntryName, InlineEntry } from "./entry-table.ts";
import { takeFile } from "./file-intake.ts";
import { FileReader } from "./file-reader.ts";
import { INLINE_LIMIT_BYTES } from "./inline-limit.ts";
import { Intake, IntakeMemory, type Received } from "./intake.ts";
import { currentLease } from "./lease-context.ts";
import { LocalUpload } from "./local-upload.ts";
import { MemoryReader } from "./memory-reader.ts";
import { MissingSet } from "./missing-set.ts";
import { blobNotFound, readBounds } from "./read-bounds.ts";
import type { StoreCore } from "./store-core.ts";
import { UploadTable } from "./upload-table.ts";

const EMPTY = new Uint8Array(0);

export class LocalBlobStore implements BlobStore {
  readonly #core: StoreCore;
  readonly #uploads: UploadTable;
  readonly #missing = new MissingSet();
  readonly #intakeMemory: IntakeMemory;
  readonly #words = new Uint32Array(WORDS_PER_HASH);
  /** For look-ups that end before anything else runs. */
  readonly #scratchName: { kind: number; words: Uint32Array; offset: number } = {
    kind: 0,
    words: this.#words,
    offset: 0,
  };

  constructor(core: StoreCore, options: { readonly intakeMemoryBytes?: number } = {}) {
    this.#core = core;
    this.#intakeMemory = new IntakeMemory(options.intakeMemoryBytes ?? INTAKE_MEMORY_BYTES);
    this.#uploads = new UploadTable(core.clock);
  }

  get openUploads(): number {
    return this.#uploads.count;
  }

  findMissing(batch: DigestBatch): Uint32Array {
    const { table } = this.#core;
    const { index } = table;
    const { words, sizesBytes, count, fn } = batch;
    const tick = table.accessClock.now();
    const lease = currentLease();
    const missing = this.#missing;
    missing.begin(count);
    for (let position = 0; position < count; position++) {
      const offset = position * WORDS_PER_HASH;
      const sizeBytes = sizesBytes[position] as number;
      const slot = table.find(fn, words, offset);
      if (slot >= 0 && index.at.sizeAt(slot) === sizeBytes) table.touch(slot, tick, lease);
      else if (sizeBytes !== 0) missing.add(words, sizesBytes, position);
    }
    return missing.end();
  }

  has(digest: Digest): boolean {
    return isEmptyDigest(digest) || this.#findSlot(digest) >= 0;
  }

  findSize(fn: DigestFunction, hash: string): number | undefined {
    if (hash === EMPTY_HASH[fn]) return 0;
    hexToWords(hash, this.#words, 0);
    const slot = this.#core.table.find(fn, this.#words, 0);
    if (slot < 0) return undefined;
    this.#core.table.touch(slot, this.#core.table.accessClock.now());
    return this.#core.table.index.at.sizeAt(slot);
  }

  get(digest: Digest): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    if (isEmptyDigest(digest)) return new Uint8Array(0);
    const slot = this.#findSlot(digest);
    if (slot < 0) return undefined;
    if ((this.#core.table.index.at.flagsAt(slot) & IndexFlag.FILE) !== 0) return this.#readWholeFile(digest);
    return this.#readInline(digest, slot);
  }

  copyAtHand(batch: DigestBatch, position: number, target: Buffer, offsetBytes: number): CopyOutcome {
    const { table } = this.#core;
    const { fn, words, sizesBytes } = batch;
    const sizeBytes = sizesBytes[position] as number;
    if (sizeBytes === 0) return CopyOutcome.COPIED;
    const slot = table.find(fn, words, position * WORDS_PER_HASH);
    if (slot < 0 || table.index.at.sizeAt(slot) !== sizeBytes) return CopyOutcome.ABSENT;
    table.touch(slot, table.accessClock.now());
    if ((table.index.at.flagsAt(slot) & IndexFlag.FILE) !== 0) return CopyOutcome.LATER;
    if (table.copyInline(slot, target, offsetBytes)) return CopyOutcome.COPIED;
    void this.#core.dropDamaged(nameOf(batch.digestAt(position)), "its bytes are not those that were stored");
    return CopyOutcome.ABSENT;
  }

  async openRead(digest: Digest, options: ReadOptions = {}): Promise<BlobReader> {
    const bounds = () => readBounds(formatDigest(digest), digest.sizeBytes, options);
    if (isEmptyDigest(digest)) return new MemoryReader(EMPTY, bounds(), options.signal);
    const slot = this.#findSlot(digest);
    if (slot < 0) throw blobNotFound(digest);
    if ((this.#core.table.index.at.flagsAt(slot) & IndexFlag.FILE) === 0) {
      const data = this.#readInline(digest, slot);
      if (data === undefined) throw blobNotFound(digest);
      return new MemoryReader(data, bounds(), options.signal);
    }
    return this.#openFile(digest, options);
  }

  async put(digest: Digest, data: Uint8Array): Promise<void> {
    if (data.length >= INLINE_LIMIT_BYTES) return this.#putLarge(digest, data);
    const hash =
      data.length <= HASH_IN_PLACE_BYTES ? hashHex(digest.fn, data) : await this.#core.ingest.hash(digest.fn, data);
    if (hash !== digest.hash || data.length !== digest.sizeBytes) throw digestMismatch(digest, hash, data.length);
    const name = nameOf(digest);
    if (isEmptyDigest(digest) || this.#findNamed(name, data.length) >= 0) return;
    if (!this.#core.hasRoomFor("inline", data.length)) await this.#core.reserve("inline", data.length);
    await this.#storeInline(digest, data, name);
  }

  putTogether(batch: DigestBatch, data: readonly Uint8Array[]): Promise<void> | undefined {
    const { fn, words, sizesBytes, count } = batch;
    let bytes = 0;
    for (let position = 0; position < count; position++) {
      const sizeBytes = sizesBytes[position] as number;
      if (sizeBytes >= INLINE_LIMIT_BYTES || sizeBytes !== data[position]?.length) return undefined;
      bytes += sizeBytes;
    }
    if (!this.#core.hasRoomFor("inline", bytes)) return undefined;
    const entries = new Map<string, InlineEntry>();
    for (let position = 0; position < count; position++) {
      const blob = data[position] as Uint8Array;
      const offset = position * WORDS_PER_HASH;
      const hash = hashHex(fn, blob);
      hexToWords(hash, this.#words, 0);
      for (let word = 0; word < WORDS_PER_HASH; word++)
        if (this.#words[word] !== words[offset + word]) return undefined;
      this.#scratchName.kind = fn;
      if (blob.length === 0 || this.#findNamed(this.#scratchName, blob.length) >= 0) continue;
      const lock = `${fn}:${hash}`;
      if (this.#core.locks.isHeld(lock)) return undefined;
      entries.set(lock, { name: { kind: fn, words: this.#words.slice(), offset: 0 }, data: blob });
    }
    if (entries.size === 0) return Promise.resolve();
    return this.#core.locks.runAll([...entries.keys()], () => this.#core.table.putAllInline([...entries.values()]));
  }

  async openUpload(digest: Digest): Promise<BlobUpload> {
    const { intake, giveBackRoom, release } = this.openIntake(digest.fn, digest.sizeBytes);
    const upload: LocalUpload = new LocalUpload({
      digest,
      intake,
      nowMs: () => this.#core.clock.monotonicMs(),
      store: (received) => {
        giveBackRoom(); // from here on the entry counts
        return this.storeReceived(digest, received);
      },
      release: () => {
        this.#uploads.delete(upload);
        return release();
      },
    });
    this.#uploads.add(upload);
    return upload;
  }

  /** Begins to receive bytes; `release` gives back their room and their file, and must be called. */
  openIntake(fn: DigestFunction, expectedBytes?: number): OpenIntake {
    const core = this.#core;
    let reservedBytes = 0;
    const intake = new Intake({
      fn,
      expectedBytes,
      ingest: core.ingest,
      newTemporaryPath: () => core.files.newTemporaryPath(),
      onGrown: (path) => core.files.writeOutEarly(path),
      memory: this.#intakeMemory,
      reserve: async (bytes) => {
        await core.reserveForUpload(bytes);
        reservedBytes += bytes;
      },
    });
    const giveBackRoom = () => {
      core.giveBackUpload(reservedBytes);
      reservedBytes = 0;
    };
    const release = async () => {
      giveBackRoom();
      await intake.abort();
      if (intake.path !== undefined) await core.files.discard(intake.path);
    };
    return { intake, giveBackRoom, release };
  }

  /** Stores bytes that are known to be the digest's; a temporary file is moved, or left for its owner to discard. */
  async storeReceived(digest: Digest, received: Received): Promise<void> {
    if (isEmptyDigest(digest)) return;
    if ("data" in received) return this.#storeInline(digest, received.data);
    if (received.sizeBytes >= INLINE_LIMIT_BYTES) return this.#storeFile(digest, received.path, received.checksums);
    return this.#storeInline(digest, await this.#core.files.run(() => readFile(received.path)));
  }

  async ingestFile(path: string, fn: DigestFunction): Promise<Digest> {
    const taken = await takeFile(this.#core, path, fn);
    try {
      const { hash, sizeBytes } = taken.received;
      const digest = { fn, hash, sizeBytes };
      if (!this.has(digest)) await this.storeReceived(digest, taken.received);
      return digest;
    } finally {
      await taken.discard();
    }
  }

  pin(digests: Iterable<Digest>): Pin {
    return this.#core.pins.pin(digests);
  }

  filePath(digest: Digest): string | undefined {
    if (isEmptyDigest(digest)) return undefined;
    const slot = this.#findSlot(digest);
    if (slot < 0 || (this.#core.table.index.at.flagsAt(slot) & IndexFlag.FILE) === 0) return undefined;
    return this.#core.files.pathOf(digest.fn, digest.hash);
  }

  close(): Promise<void> {
    return this.#uploads.close();
  }

  /** The touched slot of the blob, with its segment in `index.at`, or -1. */
  #findSlot(digest: Digest): number {
    hexToWords(digest.hash, this.#words, 0);
    this.#scratchName.kind = digest.fn;
    return this.#findNamed(this.#scratchName, digest.sizeBytes);
  }

  #findNamed(name: EntryName, sizeBytes: number): number {
    const { table } = this.#core;
    const slot = table.find(name.kind, name.words, 0);
    if (slot < 0 || table.index.at.sizeAt(slot) !== sizeBytes) return -1;
    table.touch(slot, table.accessClock.now());
    return slot;
  }

  #readInline(digest: Digest, slot: number): Uint8Array | undefined {
    const data = this.#core.table.readInline(slot);
    if (data === undefined) void this.#core.dropDamaged(nameOf(digest), "its bytes are not those that were stored");
    return data;
  }

  async #readWholeFile(digest: Digest): Promise<Uint8Array | undefined> {
    let reader: BlobReader;
    try {
      reader = await this.#openFile(digest, {});
    } catch (error) {
      if (error instanceof StatusError && error.code === Code.NOT_FOUND) return undefined;
      throw error;
    }
    try {
      const data = new Uint8Array(digest.sizeBytes);
      let offset = 0;
      for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
        data.set(chunk, offset);
        offset += chunk.length;
      }
      return data;
    } finally {
      await reader.close();
    }
  }

  async #openFile(digest: Digest, options: ReadOptions): Promise<BlobReader> {
    const { files, table } = this.#core;
    const name = nameOf(digest);
    const bounds = readBounds(formatDigest(digest), digest.sizeBytes, options);
    const checksums = table.readChecksums(name);
    const file = await files.openFile(digest.fn, digest.hash);
    if (file === undefined || checksums === undefined) {
      await file?.close();
      // Evicted meanwhile is no damage.
      if (this.#isPresent(digest)) {
        void this.#core.dropDamaged(name, file === undefined ? "its file is gone" : "its checksums are damaged");
      }
      throw blobNotFound(digest);
    }
    return new FileReader({
      file,
      run: (call) => files.run(call),
      name: formatDigest(digest),
      sizeBytes: digest.sizeBytes,
      bounds,
      checksums,
      signal: options.signal,
      onDamage: (reason) => void this.#core.dropDamaged(name, reason),
      onClose: () => undefined,
    });
  }

  #isPresent(digest: Digest): boolean {
    hexToWords(digest.hash, this.#words, 0);
    return this.#core.table.index.find(digest.fn, this.#words, 0) >= 0;
  }

  async #putLarge(digest: Digest, data: Uint8Array): Promise<void> {
    // The caller keeps its buffer, and slabs are filled by copying: the same walk as a streamed upload.
    if (data.length !== digest.sizeBytes) {
      throw digestMismatch(digest, await this.#core.ingest.hash(digest.fn, data), data.length);
    }
    if (this.has(digest)) {
      const hash = await this.#core.ingest.hash(digest.fn, data);
      if (hash !== digest.hash) throw digestMismatch(digest, hash, data.length);
      return;
    }
    const upload = await this.openUpload(digest);
    try {
      for (let offset = 0; offset < data.length; offset += PUT_STEP_BYTES) {
        await upload.write(new Uint8Array(data.subarray(offset, offset + PUT_STEP_BYTES)));
      }
      await upload.finish();
    } finally {
      await upload.abort();
    }
  }

  #storeInline(digest: Digest, data: Uint8Array, name = nameOf(digest)): Promise<void> {
    return this.#core.locks.run(lockOf(digest), async () => {
      if (this.#findNamed(name, digest.sizeBytes) < 0) await this.#core.table.putInline(name, data);
    });
  }

  #storeFile(digest: Digest, temporaryPath: string, checksums: Uint32Array): Promise<void> {
    const name = nameOf(digest);
    return this.#core.locks.run(lockOf(digest), async () => {
      if (this.#findNamed(name, digest.sizeBytes) >= 0) return;
      await this.#core.files.commit(temporaryPath, digest.fn, digest.hash);
      await this.#core.table.putFile(name, digest.sizeBytes, checksums);
    });
  }
}

export interface OpenIntake {
  readonly intake: Intake;
  readonly giveBackRoom: () => void;
  readonly release: () => Promise<void>;
}

/** 64 MiB of small uploads under way: 2,000 of the largest at once stay off the disk. */
const INTAKE_MEMORY_BYTES = 64 * 1024 * 1024;

const PUT_STEP_BYTES = 1024 * 1024;

function nameOf(digest: Digest): EntryName {
  const words = new Uint32Array(WORDS_PER_HASH);
  hexToWords(digest.hash, words, 0);
  return { kind: digest.fn, words, offset: 0 };
}

/** As lockName() of its name, without making hexadecimal digits of words again. */
function lockOf(digest: Digest): string {
  return `${digest.fn}:${digest.hash}`;
}
