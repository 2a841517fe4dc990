// Reads a blob's file in pieces of 1 MiB and checks each against its checksum before any of it is handed out.
//
// One piece is read ahead, so an open reader holds at most 2 MiB. An offset in the middle of a piece still reads and checks the whole piece. A piece that does not match, or is not
// there, ends the read with DATA_LOSS and tells the store, for which the blob is absent from then on.

import type { FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { CHECKSUM_PIECE_BYTES } from "../compute/ingest-protocol.ts";
import { Code, StatusError } from "../base/status.ts";
import type { BlobReader } from "./blob-store.ts";
import { PieceBuffers } from "./piece-buffers.ts";
import type { ReadBounds } from "./read-bounds.ts";

/** Of all readers: a blob that ends leaves its buffers to the next one. */
const pieceBuffers = new PieceBuffers();

export interface FileReaderOptions {
  readonly file: FileHandle;
  /** Runs file calls under the limit they share. */
  readonly run: <T>(call: () => Promise<T>) => Promise<T>;
  readonly name: string;
  readonly sizeBytes: number;
  readonly bounds: ReadBounds;
  readonly checksums: Uint32Array;
  readonly signal: AbortSignal | undefined;
  readonly onDamage: (reason: string) => void;
  readonly onClose: () => void;
}

export class FileReader implements BlobReader {
  readonly sizeBytes: number;
  readonly #options: FileReaderOptions;
  #position: number;
  #closed: Promise<void> | undefined;
  #ahead: Promise<Uint8Array> | undefined;
  #lastReading: Promise<unknown> = Promise.resolve();

  constructor(options: FileReaderOptions) {
    this.#options = options;
    this.sizeBytes = options.sizeBytes;
    this.#position = options.bounds.beginBytes;
  }

  async next(): Promise<Uint8Array | undefined> {
    this.#options.signal?.throwIfAborted();
    const { endBytes } = this.#options.bounds;
    if (this.#closed !== undefined || this.#position >= endBytes) return undefined;
    const begin = this.#position - (this.#position % CHECKSUM_PIECE_BYTES);
    const reading = this.#ahead ?? this.#startReading(begin);
    this.#ahead = undefined;
    const data = await reading;
    // The next piece is read while this one is sent.
    if (begin + CHECKSUM_PIECE_BYTES < endBytes && this.#closed === undefined) {
      this.#ahead = this.#startReading(begin + CHECKSUM_PIECE_BYTES);
    }
    const from = this.#position - begin;
    const to = Math.min(data.length, endBytes - begin);
    this.#position = begin + to;
    return data.subarray(from, to);
  }

  giveBack(chunk: Uint8Array): void {
    pieceBuffers.give(chunk);
  }

  close(): Promise<void> {
    this.#closed ??= this.#lastReading.then(() => this.#options.file.close()).finally(this.#options.onClose);
    return this.#closed;
  }

  #startReading(begin: number): Promise<Uint8Array> {
    const reading = this.#readPiece(begin / CHECKSUM_PIECE_BYTES, begin);
    // Nobody may ask for it any more; whoever does gets the failure.
    this.#lastReading = reading.catch(() => undefined);
    return reading;
  }

  async #readPiece(piece: number, begin: number): Promise<Uint8Array> {
    const { file, run, sizeBytes, checksums } = this.#options;
    const length = Math.min(CHECKSUM_PIECE_BYTES, sizeBytes - begin);
    const data = pieceBuffers.take(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await run(() => file.read(data, done, length - done, begin + done)).catch(
        (error: unknown): never => this.#fail(error instanceof Error ? error.message : String(error)),
      );
      if (bytesRead === 0) this.#fail(`its file ends at ${begin + done} bytes, expected ${sizeBytes}`);
      done += bytesRead;
    }
    if (crc32(data) !== checksums[piece]) this.#fail(`bytes ${begin} to ${begin + length} do not match their checksum`);
    return data;
  }

  #fail(reason: string): never {
    this.#options.onDamage(reason);
    throw new StatusError(Code.DATA_LOSS, `Blob "${this.#options.name}" is damaged: ${reason}`);
  }
}
