// Cuts what a server sends into frames, without touching the octets of DATA: a client must cost less than the server.
//
// Invariant: any segmentation gives the same calls; payloads of other frames are whole and valid during the call only.

import { FRAME_HEADER_BYTES, FrameType } from "../../src/http2/frame.ts";

export interface FrameHandler {
  /** All of a DATA frame has arrived; its octets are gone. */
  onData(streamId: number, sizeBytes: number, flags: number): void;
  onFrame(type: number, flags: number, streamId: number, payload: Uint8Array): void;
}

export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #missingBytes = 0;
  /** The payload of a frame that began in an earlier read; not for DATA. */
  #payload: Uint8Array | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  push(octets: Uint8Array, end: number): void {
    let at = 0;
    if (this.#headerBytes > 0) at = this.#resume(octets, end);
    while (end - at >= FRAME_HEADER_BYTES) {
      const sizeBytes = (octets[at]! << 16) | (octets[at + 1]! << 8) | octets[at + 2]!;
      const next = at + FRAME_HEADER_BYTES + sizeBytes;
      if (next > end) break;
      this.#emit(octets, at, NOTHING, next);
      at = next;
    }
    if (at < end) this.#resume(octets.subarray(at, end), end - at);
  }

  /** Goes on with, or begins, a frame that does not lie in one read; returns where it stopped. */
  #resume(octets: Uint8Array, end: number): number {
    let at = 0;
    const header = this.#header;
    if (this.#headerBytes < FRAME_HEADER_BYTES) {
      while (at < end && this.#headerBytes < FRAME_HEADER_BYTES) header[this.#headerBytes++] = octets[at++]!;
      if (this.#headerBytes < FRAME_HEADER_BYTES) return at;
      this.#missingBytes = (header[0]! << 16) | (header[1]! << 8) | header[2]!;
      this.#payload = header[3] === FrameType.DATA ? undefined : new Uint8Array(this.#missingBytes);
    }
    const count = Math.min(this.#missingBytes, end - at);
    this.#payload?.set(octets.subarray(at, at + count), this.#payload.length - this.#missingBytes);
    this.#missingBytes -= count;
    if (this.#missingBytes > 0) return end;
    this.#headerBytes = 0;
    this.#emit(header, 0, this.#payload ?? NOTHING, 0);
    return at + count;
  }

  /** With `next` above 0 the payload lies in `octets` behind the header, else it is `payload`. */
  #emit(octets: Uint8Array, at: number, payload: Uint8Array, next: number): void {
    const type = octets[at + 3]!;
    const flags = octets[at + 4]!;
    const streamId =
      ((octets[at + 5]! & 0x7f) << 24) | (octets[at + 6]! << 16) | (octets[at + 7]! << 8) | octets[at + 8]!;
    if (type === FrameType.DATA) {
      const sizeBytes = (octets[at]! << 16) | (octets[at + 1]! << 8) | octets[at + 2]!;
      this.#handler.onData(streamId, sizeBytes, flags);
      return;
    }
    const whole = next > 0 ? octets.subarray(at + FRAME_HEADER_BYTES, next) : payload;
    this.#handler.onFrame(type, flags, streamId, whole);
  }
}

const NOTHING = new Uint8Array(0);
