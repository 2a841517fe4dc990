// A zstd frame that holds its bytes as they are: what streams become when too many are being compressed already.
//
// Invariant: it is one frame, which every decoder reads to its end, and nothing is remembered but how far it is.
// Several compressed frames would need no context either, but many clients stop after the first. Source: RFC 8878, 3.1.1.

import type { ZstdStream } from "../base/zstd.ts";

/** The largest block, and the window that a decoder has to keep: 2^17. */
const BLOCK_BYTES = 128 * 1024;
const WINDOW_DESCRIPTOR = (17 - 10) << 3;
/** Eight bytes of content size; neither a single segment nor a checksum nor a dictionary. */
const HEADER_DESCRIPTOR = 0xc0;
const MAGIC = 0xfd2fb528;
const HEADER_BYTES = 14;
const BLOCK_HEADER_BYTES = 3;

export class StoredFrame implements ZstdStream {
  readonly #sizeBytes: number;
  #hasHeader = false;

  /** `sizeBytes` is what will be pushed in all; the header says so. */
  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (chunk.length > 0) yield this.#write(chunk);
  }

  async *finish(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const header = this.#header();
    // An empty raw block that is the last one.
    yield Uint8Array.of(...header, 1, 0, 0);
  }

  close(): void {
    // Nothing is held.
  }

  #write(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
    const header = this.#header();
    const blocks = Math.ceil(chunk.length / BLOCK_BYTES);
    const output = new Uint8Array(header.length + chunk.length + blocks * BLOCK_HEADER_BYTES);
    output.set(header);
    let made = header.length;
    for (let taken = 0; taken < chunk.length; taken += BLOCK_BYTES) {
      const block = chunk.subarray(taken, taken + BLOCK_BYTES);
      // Little-endian, 24 bits: last block (0), type (0: raw), size.
      const word = block.length << 3;
      output.set([word & 0xff, (word >> 8) & 0xff, word >> 16], made);
      output.set(block, made + BLOCK_HEADER_BYTES);
      made += BLOCK_HEADER_BYTES + block.length;
    }
    return output;
  }

  #header(): Uint8Array {
    if (this.#hasHeader) return new Uint8Array(0);
    this.#hasHeader = true;
    const header = new DataView(new ArrayBuffer(HEADER_BYTES));
    header.setUint32(0, MAGIC, true);
    header.setUint8(4, HEADER_DESCRIPTOR);
    header.setUint8(5, WINDOW_DESCRIPTOR);
    header.setBigUint64(6, BigInt(this.#sizeBytes), true);
    return new Uint8Array(header.buffer);
  }
}
