// FindMissingBlobsRequest straight from its bytes into a DigestBatch, and the response straight back.
//
// Invariant: no object is made per digest. Requests in the layout that every encoder produces are read in one pass;
// anything else (other field order, unknown fields, a malformed digest) goes through the generated codec once, which
// either finds the error and names it or rewrites the request into that layout. A decoder is reused, one request at a
// time. The generated codec alone is the oracle in test/services/find-missing-request.test.ts.

import { invalidArgument } from "../base/status.ts";
import { DigestBatch, WORDS_PER_HASH, emptyHashWords } from "../digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, parseDigest, parseDigestFunction } from "../digest/digest.ts";
import { addEncodedDigest } from "../digest/encoded-digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { FindMissingBlobsRequest } from "../proto/remote_execution.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_RESPONSE_BYTES } from "./message-limits.ts";

const TAG_INSTANCE_NAME = 0x0a;
/** The number of blob_digests in the request is that of missing_blob_digests in the response: slices can be copied. */
const TAG_DIGEST = 0x12;
const TAG_DIGEST_FUNCTION = 0x18;
const EMPTY_WORDS = new Map(DIGEST_FUNCTIONS.map((fn) => [fn as number, emptyHashWords(fn)]));

export class FindMissingRequest {
  readonly batch = new DigestBatch();
  /** Where each digest's field, tag included, begins and ends in `#source`. */
  #starts = new Uint32Array(1024);
  #ends = new Uint32Array(1024);
  #source: Uint8Array = new Uint8Array(0);

  /** Fills `batch`; throws INVALID_ARGUMENT. `bytes` is borrowed until `encodeResponse`. */
  decode(bytes: Uint8Array): void {
    if (this.#decodeCommonLayout(bytes)) return;
    const canonical = toCommonLayout(bytes);
    if (!this.#decodeCommonLayout(canonical)) throw new Error("the canonical layout was not understood");
  }

  /** The response naming the digests at `missing`, as the client wrote them. Throws INVALID_ARGUMENT when it is too large. */
  encodeResponse(missing: Uint32Array): Uint8Array {
    let sizeBytes = 0;
    for (let i = 0; i < missing.length; i++) sizeBytes += this.#ends[missing[i]!]! - this.#starts[missing[i]!]!;
    if (sizeBytes > MAX_RESPONSE_BYTES) {
      throw invalidArgument(
        `${missing.length} of ${this.batch.count} blobs are missing: naming them takes ${sizeBytes} bytes, more than ` +
          `the ${MAX_RESPONSE_BYTES} a gRPC client takes; ask in several calls`,
      );
    }
    const response = new Uint8Array(sizeBytes);
    let offset = 0;
    for (let i = 0; i < missing.length;) {
      // Runs of neighbours are one copy: a cold build asks for thousands of blobs and all are missing.
      const start = this.#starts[missing[i]!]!;
      let end = this.#ends[missing[i]!]!;
      for (i++; i < missing.length && this.#starts[missing[i]!] === end; i++) end = this.#ends[missing[i]!]!;
      response.set(this.#source.subarray(start, end), offset);
      offset += end - start;
    }
    return response;
  }

  /** False when the request has another layout or something is wrong with it. */
  #decodeCommonLayout(bytes: Uint8Array): boolean {
    const { batch } = this;
    batch.clear(1);
    this.#source = bytes;
    let fn = 0;
    let hasEmpty = false;
    let pos = 0;
    while (pos < bytes.length) {
      const tag = bytes[pos]!;
      const length = bytes[pos + 1]!; // undefined at the end, which no comparison below lets pass
      if (tag === TAG_DIGEST) {
        const end = pos + 2 + length;
        const position = batch.count;
        if (!(length < 0x80) || !addEncodedDigest(batch, bytes, pos + 2, end)) return false;
        if (batch.sizesBytes[position] === 0) hasEmpty = true;
        if (position >= this.#starts.length) this.#grow();
        this.#starts[position] = pos;
        this.#ends[position] = end;
        pos = end;
      } else if (tag === TAG_DIGEST_FUNCTION && length < 0x80 && pos + 2 <= bytes.length) {
        fn = length;
        pos += 2;
      } else if (tag === TAG_INSTANCE_NAME && length < 0x80 && pos + 2 + length <= bytes.length) {
        const name = readAscii(bytes, pos + 2, pos + 2 + length);
        if (name === undefined) return false;
        parseInstanceName(name); // CAS is shared between instances: nothing else is done with it
        pos += 2 + length;
      } else {
        return false;
      }
    }
    batch.fn = parseDigestFunction(fn);
    return !hasEmpty || this.#emptyDigestsAreEmpty();
  }

  /** Size 0 goes with the empty hash of the function, which the message names last. */
  #emptyDigestsAreEmpty(): boolean {
    const { batch } = this;
    const empty = EMPTY_WORDS.get(batch.fn)!;
    for (let i = 0; i < batch.count; i++) {
      if (batch.sizesBytes[i] !== 0) continue;
      for (let word = 0; word < WORDS_PER_HASH; word++) {
        if (batch.words[i * WORDS_PER_HASH + word] !== empty[word]) return false;
      }
    }
    return true;
  }

  /** To the capacity of the batch. */
  #grow(): void {
    const capacity = this.batch.sizesBytes.length;
    const starts = new Uint32Array(capacity);
    starts.set(this.#starts);
    this.#starts = starts;
    const ends = new Uint32Array(capacity);
    ends.set(this.#ends);
    this.#ends = ends;
  }
}

/** The same request in the common layout; throws INVALID_ARGUMENT naming the position of the digest that is wrong. */
function toCommonLayout(bytes: Uint8Array): Uint8Array {
  const request = decodeRequest(FindMissingBlobsRequest, bytes);
  const fn = parseDigestFunction(request.digestFunction);
  parseInstanceName(request.instanceName);
  request.blobDigests.forEach((digest, index) => parseDigest(fn, digest, `blob_digests[${index}]`));
  // The name is checked; leaving it out keeps the layout plain however long it is.
  return FindMissingBlobsRequest.encode({ blobDigests: request.blobDigests, digestFunction: fn });
}

/** Undefined when it is not ASCII: the generated codec checks whether the rest is UTF-8. */
export function readAscii(bytes: Uint8Array, start: number, end: number): string | undefined {
  let text = "";
  for (let pos = start; pos < end; pos++) {
    const byte = bytes[pos]!;
    if (byte >= 0x80) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}
