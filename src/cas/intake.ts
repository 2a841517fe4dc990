// Receives bytes whose name may not be known yet: few are kept in memory, more go through an ingest thread to a file.
//
// Room is asked for as bytes arrive, so a client that declares much and sends little takes little.

import type { IngestPool } from "../compute/ingest-pool.ts";
import type { IngestStream } from "../compute/ingest-stream.ts";
import { hashHex } from "../compute/hash.ts";
import type { DigestFunction } from "../digest/digest.ts";
import { INLINE_LIMIT_BYTES } from "./inline-limit.ts";

export interface IntakeOptions {
  readonly fn: DigestFunction;
  /** What is going to arrive, when that is known: more than fits inline goes to a file from the start. */
  readonly expectedBytes: number | undefined;
  readonly ingest: IngestPool;
  readonly newTemporaryPath: () => string;
  /** Waits for room for so many more bytes; throws RESOURCE_EXHAUSTED. */
  readonly reserve: (bytes: number) => Promise<void>;
  /** Told the path of a large file now and then while it grows. */
  readonly onGrown: (path: string) => void;
  /** What all uploads together may keep in memory; when it is used up, few bytes go to a file as well. */
  readonly memory: IntakeMemory;
}

/** A disk writes it in some 20 ms, a tenth of what 64 MiB take; much smaller steps would only add syncs. */
const ANNOUNCE_BYTES = 8 * 1024 * 1024;

/** Bytes that open uploads keep in memory, all together. */
export class IntakeMemory {
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#maxBytes) return false;
    this.#bytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
  }
}

/** Everything that was received: in memory, or in a temporary file that is now the caller's. */
export type Received =
  | { readonly hash: string; readonly sizeBytes: number; readonly data: Uint8Array }
  | { readonly hash: string; readonly sizeBytes: number; readonly path: string; readonly checksums: Uint32Array };

export class Intake {
  readonly #options: IntakeOptions;
  #buffer: Uint8Array | undefined;
  #stream: IngestStream | undefined;
  #path: string | undefined;
  #sizeBytes = 0;
  #announcedBytes = 0;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The temporary file, once there is one. */
  get path(): string | undefined {
    return this.#path;
  }

  /** Takes over `chunk`. */
  async write(chunk: Uint8Array): Promise<void> {
    if (chunk.length === 0) return;
    await this.#options.reserve(chunk.length);
    const total = this.#sizeBytes + chunk.length;
    const expected = Math.max(total, this.#options.expectedBytes ?? 0);
    const isKept = this.#stream === undefined && expected < INLINE_LIMIT_BYTES && this.#keep(chunk, total);
    if (!isKept) await this.#pass(chunk);
    this.#sizeBytes = total;
    if (this.#path === undefined || total - this.#announcedBytes < ANNOUNCE_BYTES) return;
    this.#announcedBytes = total;
    this.#options.onGrown(this.#path);
  }

  /** Sends what waits for a slab to fill to the file. */
  flush(): void {
    this.#stream?.flush();
  }

  async finish(): Promise<Received> {
    if (this.#stream === undefined) {
      const data = (this.#buffer ?? new Uint8Array(0)).subarray(0, this.#sizeBytes);
      return { hash: hashHex(this.#options.fn, data), sizeBytes: data.length, data };
    }
    const { hash, sizeBytes, checksums } = await this.#stream.finish();
    return { hash, sizeBytes, path: this.#path ?? "", checksums };
  }

  /** Drops what was received; the caller removes the file at `path`. */
  async abort(): Promise<void> {
    this.#dropBuffer();
    await this.#stream?.abort();
  }

  /** False when there is no memory left for it. */
  #keep(chunk: Uint8Array, total: number): boolean {
    // Exactly what is expected, or doubling when that is unknown.
    const capacity = this.#options.expectedBytes ?? Math.min(INLINE_LIMIT_BYTES, Math.max(total, this.#sizeBytes * 2));
    if (this.#buffer === undefined || this.#buffer.length < total) {
      const larger = Math.max(total, capacity);
      if (!this.#options.memory.take(larger)) return false;
      const kept = this.#buffer;
      this.#dropBuffer();
      this.#buffer = new Uint8Array(larger);
      if (kept !== undefined) this.#buffer.set(kept);
    }
    this.#buffer.set(chunk, this.#sizeBytes);
    return true;
  }

  #dropBuffer(): void {
    if (this.#buffer !== undefined) this.#options.memory.give(this.#buffer.length);
    this.#buffer = undefined;
  }

  async #pass(chunk: Uint8Array): Promise<void> {
    if (this.#stream === undefined) {
      this.#path = this.#options.newTemporaryPath();
      this.#stream = this.#options.ingest.openStream(this.#options.fn, this.#path);
      const kept = this.#buffer?.subarray(0, this.#sizeBytes);
      this.#dropBuffer();
      if (kept !== undefined && kept.length > 0) await this.#stream.write(kept);
    }
    await this.#stream.write(chunk);
  }
}
