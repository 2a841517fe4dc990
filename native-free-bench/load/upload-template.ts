// New large blobs by the call, at the cost of two messages: they differ in their last one, and share all bytes before it.
//
// Copying, hashing and framing 64 MiB for each call kept a generator of one core busy for longer than a server, which
// waited meanwhile. Invariant: a digest is that of the bytes that are sent; the parts that are shared are never changed.

import { createHash, type Hash } from "node:crypto";
import { ByteStream } from "../../src/proto/bytestream.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { writeMessage, WRITE_CHUNK_BYTES } from "./prepared-calls.ts";
import type { PreparedCall } from "./raw-connection.ts";

/** What makes a blob a new one. */
const VARIED_BYTES = 16;

/** Smaller ones are copied and hashed as they are. */
export const LEAST_TEMPLATE_BYTES = 4 * WRITE_CHUNK_BYTES;

export interface UploadSource {
  readonly random: { bytes(count: number): Uint8Array };
  writeName(digest: BlobDigest): string;
}

export class UploadTemplate {
  readonly #template: Buffer;
  readonly #lastStart: number;
  /** Of everything before the last message. */
  readonly #hash: Hash;
  readonly #middle: readonly Buffer[];

  constructor(template: Buffer) {
    this.#template = template;
    this.#lastStart = template.length - (template.length % WRITE_CHUNK_BYTES || WRITE_CHUNK_BYTES);
    this.#hash = createHash("sha256").update(template.subarray(0, this.#lastStart));
    const middle: Buffer[] = [];
    for (let start = WRITE_CHUNK_BYTES; start < this.#lastStart; start += WRITE_CHUNK_BYTES) {
      const data = template.subarray(start, start + WRITE_CHUNK_BYTES);
      middle.push(writeMessage({ resourceName: "", writeOffset: start, finishWrite: false, data }));
    }
    this.#middle = middle;
  }

  next(source: UploadSource): PreparedCall {
    const last = Buffer.from(this.#template.subarray(this.#lastStart));
    last.set(source.random.bytes(Math.min(VARIED_BYTES, last.length)), 0);
    const hash = this.#hash.copy().update(last).digest("hex");
    const resourceName = source.writeName({ hash, sizeBytes: this.#template.length });
    const data = this.#template.subarray(0, WRITE_CHUNK_BYTES);
    const first = writeMessage({ resourceName, writeOffset: 0, finishWrite: false, data });
    const end = writeMessage({ resourceName: "", writeOffset: this.#lastStart, finishWrite: true, data: last });
    return { path: ByteStream.methods.Write.path, body: [first, ...this.#middle, end] };
  }
}
