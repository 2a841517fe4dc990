// Splits a blob into content-defined chunks and splices chunks into a blob: SplitBlob and SpliceBlob of the protocol.
//
// Chunks are blobs of their own, so clients fetch and upload them like any other and only those they lack. How a blob
// was split is kept as a small value; it is used again while every chunk is there.

import { createHash } from "node:crypto";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import type { FileChunk } from "../compute/chunk-file.ts";
import type { FastCdcParams } from "../compute/fast-cdc.ts";
import { formatDigest, type Digest } from "../digest/digest.ts";
import type { BlobStore } from "./blob-store.ts";
import { blobNotFound } from "./read-bounds.ts";
import { ValueKind, type ValueStore } from "./value-store.ts";

/** The parameters this server splits with and advertises: those the protocol recommends. */
export const CHUNKING_PARAMS: FastCdcParams = { averageBytes: 512 * 1024, seed: 0 };

/** Smaller blobs are one chunk, themselves: the protocol asks clients to move them whole. */
export const MIN_CHUNKED_BYTES = CHUNKING_PARAMS.averageBytes * 4;

export interface ChunkingOptions {
  readonly blobs: BlobStore;
  readonly values: ValueStore;
  /** Cuts the file at `path`. */
  readonly chunkFile: (fn: Digest["fn"], path: string, params: FastCdcParams) => Promise<readonly FileChunk[]>;
}

export class Chunking {
  readonly #options: ChunkingOptions;

  constructor(options: ChunkingOptions) {
    this.#options = options;
  }

  /** The chunks whose concatenation is the blob, all of them present. Throws NOT_FOUND, RESOURCE_EXHAUSTED. */
  async split(digest: Digest): Promise<readonly Digest[]> {
    const { blobs } = this.#options;
    if (!(await blobs.has(digest))) throw blobNotFound(digest);
    if (digest.sizeBytes < MIN_CHUNKED_BYTES) return [digest];
    const pin = blobs.pin([digest]);
    try {
      const known = await this.#knownChunks(digest);
      if (known !== undefined) return known;
      return await this.#makeChunks(digest);
    } finally {
      pin.release();
    }
  }

  /**
   * Stores the concatenation of `chunks` as `digest`, hashing it on the way. Throws NOT_FOUND for an absent chunk,
   * INVALID_ARGUMENT when the chunks are not the blob. With `remember`, split() answers with these chunks later.
   */
  async splice(
    digest: Digest,
    chunks: readonly Digest[],
    options: { readonly remember: boolean } = { remember: true },
  ): Promise<void> {
    const { blobs } = this.#options;
    let total = 0;
    for (const chunk of chunks) total += chunk.sizeBytes;
    if (total !== digest.sizeBytes) {
      throw invalidArgument(`Cannot splice blob "${formatDigest(digest)}": its chunks have ${total} bytes in all`);
    }
    const pin = blobs.pin([digest, ...chunks]);
    try {
      for (const chunk of chunks) if (!(await blobs.has(chunk))) throw blobNotFound(chunk);
      if (await blobs.has(digest)) return;
      const upload = await blobs.openUpload(digest);
      try {
        for (const chunk of chunks) await this.#copy(chunk, (bytes) => upload.write(bytes));
        await upload.finish();
      } finally {
        await upload.abort();
      }
      if (options.remember && digest.sizeBytes >= MIN_CHUNKED_BYTES) await this.#remember(digest, chunks);
    } finally {
      pin.release();
    }
  }

  async #makeChunks(digest: Digest): Promise<readonly Digest[]> {
    const { blobs, chunkFile } = this.#options;
    const path = blobs.filePath(digest);
    if (path === undefined) {
      throw new StatusError(Code.NOT_FOUND, `Blob "${formatDigest(digest)}" is not kept in a form that can be split`);
    }
    const pieces = await chunkFile(digest.fn, path, CHUNKING_PARAMS);
    const chunks = pieces.map(({ hash, sizeBytes }) => ({ fn: digest.fn, hash, sizeBytes }));
    const pin = blobs.pin(chunks);
    try {
      let offsetBytes = 0;
      for (const chunk of chunks) {
        if (!(await blobs.has(chunk))) await this.#putPart(digest, offsetBytes, chunk);
        offsetBytes += chunk.sizeBytes;
      }
      await this.#remember(digest, chunks);
      return chunks;
    } finally {
      pin.release();
    }
  }

  async #putPart(digest: Digest, offsetBytes: number, chunk: Digest): Promise<void> {
    const { blobs } = this.#options;
    const reader = await blobs.openRead(digest, { offsetBytes, limitBytes: chunk.sizeBytes });
    const upload = await blobs.openUpload(chunk);
    try {
      for (let bytes = await reader.next(); bytes !== undefined; bytes = await reader.next()) await upload.write(bytes);
      await upload.finish();
    } finally {
      await reader.close();
      await upload.abort();
    }
  }

  async #copy(digest: Digest, write: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    const reader = await this.#options.blobs.openRead(digest);
    try {
      for (let bytes = await reader.next(); bytes !== undefined; bytes = await reader.next()) await write(bytes);
    } finally {
      await reader.close();
    }
  }

  /** How the blob was split before, if every chunk is still there (and touched now). */
  async #knownChunks(digest: Digest): Promise<readonly Digest[] | undefined> {
    const { blobs, values } = this.#options;
    const value = await values.get(ValueKind.SPLIT, valueKey(digest));
    if (value === undefined) return undefined;
    const chunks = (JSON.parse(Buffer.from(value).toString("utf8")) as FileChunk[]).map(
      ({ hash, sizeBytes }): Digest => ({ fn: digest.fn, hash, sizeBytes }),
    );
    for (const chunk of chunks) if (!(await blobs.has(chunk))) return undefined;
    return chunks;
  }

  #remember(digest: Digest, chunks: readonly Digest[]): Promise<void> {
    const pieces = chunks.map(({ hash, sizeBytes }): FileChunk => ({ hash, sizeBytes }));
    return this.#options.values.put(ValueKind.SPLIT, valueKey(digest), Buffer.from(JSON.stringify(pieces), "utf8"));
  }
}

function valueKey(digest: Digest): Uint8Array {
  return createHash("sha256")
    .update(`split\0${formatDigest(digest)}`)
    .digest();
}
