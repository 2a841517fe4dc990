// BatchUpdateBlobs of small plain blobs straight from the request's bytes to one write of the store.
//
// Invariant: the answer says OK for every blob, and then all of them are durable; or there is none, for another layout of
// the request, a compressor, a batch near a limit, or anything that is wrong or waits. Then batch-update-blobs.ts decides
// about each blob.

import type { BlobStore } from "../cas/blob-store.ts";
import { parseDigestFunction } from "../digest/digest.ts";
import { DigestBatch } from "../digest/digest-batch.ts";
import { addEncodedDigest } from "../digest/encoded-digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { readAscii } from "./find-missing-request.ts";
import { MAX_BATCH_TOTAL_BYTES } from "./message-limits.ts";

const TAG_INSTANCE_NAME = 0x0a;
const TAG_REQUEST = 0x12;
const TAG_DIGEST_FUNCTION = 0x28;
/** Of one request, and of one response. */
const TAG_DIGEST = 0x0a;
const TAG_DATA = 0x12;
const TAG_RESPONSE = 0x0a;

/** Hashed and stored within one turn of the event loop, 3 µs each and more. */
const MAX_BLOBS = 1024;

/** One call; a new one is made for each that waits. */
export class BatchUpdateAtHand {
  readonly #batch = new DigestBatch();
  readonly #data: Uint8Array[] = [];
  /** Where each Digest message begins in the request, and its length. */
  readonly #starts: number[] = [];
  readonly #lengths: number[] = [];
  #end = 0;

  /** `request` is borrowed until the promise settles; it rejects as put() does, and some may be stored then. */
  answer(blobs: BlobStore, request: Uint8Array): Promise<Uint8Array> | undefined {
    if (!this.#decode(request)) return undefined;
    return blobs.putTogether(this.#batch, this.#data)?.then(() => this.#encode(request));
  }

  /** Drops what it holds of the request. */
  clear(): void {
    this.#data.length = 0;
  }

  #encode(request: Uint8Array): Uint8Array {
    let sizeBytes = 0;
    for (let position = 0; position < this.#batch.count; position++) sizeBytes += 4 + this.#lengths[position]!;
    const response = new Uint8Array(sizeBytes);
    let pos = 0;
    for (let position = 0; position < this.#batch.count; position++) {
      const [start, length] = [this.#starts[position]!, this.#lengths[position]!];
      response[pos++] = TAG_RESPONSE;
      response[pos++] = length + 2;
      response[pos++] = TAG_DIGEST;
      response[pos++] = length;
      for (let byte = 0; byte < length; byte++) response[pos++] = request[start + byte]!;
    }
    return response;
  }

  /** False when the request has another layout or something is wrong with it. */
  #decode(bytes: Uint8Array): boolean {
    this.#batch.clear(1);
    this.#data.length = 0;
    let fn = 0;
    let dataBytes = 0;
    let pos = 0;
    while (pos < bytes.length) {
      const tag = bytes[pos];
      const length = this.#readLength(bytes, pos + 1);
      if (length < 0) return false;
      const start = this.#end;
      if (tag === TAG_REQUEST) {
        if (this.#data.length === MAX_BLOBS || !this.#decodeBlob(bytes, start, start + length)) return false;
        dataBytes += this.#data.at(-1)!.length;
        pos = start + length;
      } else if (tag === TAG_DIGEST_FUNCTION) {
        fn = length;
        pos = start;
      } else if (tag === TAG_INSTANCE_NAME && start + length <= bytes.length) {
        const name = readAscii(bytes, start, start + length);
        if (name === undefined) return false;
        parseInstanceName(name);
        pos = start + length;
      } else {
        return false;
      }
    }
    this.#batch.fn = parseDigestFunction(fn);
    return dataBytes <= MAX_BATCH_TOTAL_BYTES;
  }

  /** A digest and data, in this order and nothing else; a blob without data is left to the other path. */
  #decodeBlob(bytes: Uint8Array, start: number, end: number): boolean {
    const digestBytes = bytes[start + 1]!;
    const digestAt = start + 2;
    const dataTagAt = digestAt + digestBytes;
    if (end > bytes.length || bytes[start] !== TAG_DIGEST || !(digestBytes < 0x7e) || dataTagAt >= end) return false;
    if (bytes[dataTagAt] !== TAG_DATA) return false;
    const length = this.#readLength(bytes, dataTagAt + 1);
    if (length <= 0 || this.#end + length !== end) return false;
    const position = this.#batch.count;
    if (!addEncodedDigest(this.#batch, bytes, digestAt, dataTagAt)) return false;
    this.#starts[position] = digestAt;
    this.#lengths[position] = digestBytes;
    this.#data.push(bytes.subarray(this.#end, end));
    return true;
  }

  /** A varint below 2^28, which ends at `#end`; -1 for another. */
  #readLength(bytes: Uint8Array, start: number): number {
    let value = 0;
    for (let shift = 0, pos = start; shift < 28 && pos < bytes.length; shift += 7, pos++) {
      const byte = bytes[pos]!;
      value |= (byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      this.#end = pos + 1;
      return value;
    }
    return -1;
  }
}
