// FindMissingBlobsRequest straight from its bytes into a DigestBatch, and the response straight back.
//
// Invariant: no object is made per digest. Requests in the layout that every encoder produces are read in one pass;
// anything else (other field order, unknown fields, a malformed digest) goes through the generated codec once, which
// either finds the error and names it or rewrites the request into that layout. A decoder is reused, one request at a
// time. The generated codec alone is the oracle in test/services/find-missing-request.test.ts.

import { invalidArgument } from "../base/status.ts";
import { DigestBatch, WORDS_PER_HASH, emptyHashWords } from "../digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, HASH_HEX_LENGTH, parseDigest, parseDigestFunction } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { FindMissingBlobsRequest } from "../proto/remote_execution.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_RESPONSE_BYTES } from "./message-limits.ts";

const TAG_INSTANCE_NAME = 0x0a;
/** The number of blob_digests in the request is that of missing_blob_digests in the response: slices can be copied. */
const TAG_DIGEST = 0x12;
const TAG_DIGEST_FUNCTION = 0x18;
const TAG_HASH = 0x0a;
const TAG_SIZE = 0x10;
/** A Digest message of hash alone: size 0, which encoders leave out. */
const HASH_ONLY_LENGTH = 2 + HASH_HEX_LENGTH;

const NOT_HEX = 0x80;
/** The value of each hexadecimal digit's byte; every other byte has a bit that no digit has. */
const HEX_VALUES = makeHexValues();

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
        if (!(length >= HASH_ONLY_LENGTH && length < 0x80 && end <= bytes.length)) return false;
        if (bytes[pos + 2] !== TAG_HASH || bytes[pos + 3] !== HASH_HEX_LENGTH) return false;
        const position = batch.count;
        this.#reserve(position + 1);
        if (!readHash(bytes, pos + 4, batch.words, position * WORDS_PER_HASH)) return false;
        const size = length === HASH_ONLY_LENGTH ? 0 : readSize(bytes, pos + 4 + HASH_HEX_LENGTH, end);
        if (size < 0) return false;
        if (size === 0) hasEmpty = true;
        batch.sizesBytes[position] = size;
        this.#starts[position] = pos;
        this.#ends[position] = end;
        batch.count = position + 1;
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

  #reserve(count: number): void {
    this.batch.reserve(count);
    if (count <= this.#starts.length) return;
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
function readAscii(bytes: Uint8Array, start: number, end: number): string | undefined {
  let text = "";
  for (let pos = start; pos < end; pos++) {
    const byte = bytes[pos]!;
    if (byte >= 0x80) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}

/** Reads 64 lower-case hexadecimal digits into 8 words; false when there is another character. */
function readHash(bytes: Uint8Array, start: number, words: Uint32Array, offset: number): boolean {
  let seen = 0;
  let pos = start;
  for (let word = 0; word < WORDS_PER_HASH; word++, pos += 8) {
    const a = HEX_VALUES[bytes[pos]!]!;
    const b = HEX_VALUES[bytes[pos + 1]!]!;
    const c = HEX_VALUES[bytes[pos + 2]!]!;
    const d = HEX_VALUES[bytes[pos + 3]!]!;
    const e = HEX_VALUES[bytes[pos + 4]!]!;
    const f = HEX_VALUES[bytes[pos + 5]!]!;
    const g = HEX_VALUES[bytes[pos + 6]!]!;
    const h = HEX_VALUES[bytes[pos + 7]!]!;
    seen |= a | b | c | d | e | f | g | h;
    words[offset + word] = (a << 28) | (b << 24) | (c << 20) | (d << 16) | (e << 12) | (f << 8) | (g << 4) | h;
  }
  return (seen & NOT_HEX) === 0;
}

/** Reads the size field that fills the message up to `end`; -1 when it is anything but one safe integer. */
function readSize(bytes: Uint8Array, start: number, end: number): number {
  // 8 bytes hold 56 bits. Negative numbers have 10; they take the other path, which knows how to name them.
  const length = end - start - 1;
  if (bytes[start] !== TAG_SIZE || length < 1 || length > 8) return -1;
  let value = 0;
  let factor = 1;
  for (let pos = start + 1; pos < end; pos++, factor *= 128) {
    const byte = bytes[pos]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80 !== (pos === end - 1)) return -1;
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1;
}

function makeHexValues(): Uint8Array {
  const values = new Uint8Array(256).fill(NOT_HEX);
  for (let digit = 0; digit < 16; digit++) values[digit.toString(16).charCodeAt(0)] = digit;
  return values;
}
