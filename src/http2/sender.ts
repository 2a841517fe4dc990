// The sending half of a connection: field blocks, DATA within the windows, fair between streams.
//
// Invariants: never more DATA than both windows allow (F-61), never a frame above the peer's MAX_FRAME_SIZE (F-60),
// nothing after END_STREAM (F-62). Octets are charged to the windows when their frame is made (FC-35). DATA is made only
// while the output is below HIGH_WATER_BYTES, so a peer that stops reading holds that much and no more (FC-30, A-7).
// Streams with queued octets and a window stand in line; each gets QUANTUM_BYTES and goes to the end (FC-32).

import { copyOctets } from "../base/copy-octets.ts";
import type { ConnectionBudgets } from "./budgets.ts";
import { DEFAULT_MAX_FRAME_BYTES, DEFAULT_WINDOW_BYTES, Flag, FRAME_HEADER_BYTES, FrameType } from "./frame.ts";
import { putFrameHeader } from "./frame-writer.ts";
import type { HeaderBlock } from "./header-block.ts";
import { EMPTY_TABLE_UPDATE, encodeBlock } from "./hpack-encoder.ts";
import { OutputBuffer } from "./output-buffer.ts";
import type { WholeResponse } from "./request-stream.ts";
import type { Http2Stream } from "./stream.ts";

const HIGH_WATER_BYTES = 256 * 1024;
const QUANTUM_BYTES = 64 * 1024;

/** Larger frames would keep other streams and control frames waiting (FC-31). */
const MAX_SENT_FRAME_BYTES = 64 * 1024;

/** FC-33: credit below this is saved up, unless the peer's windows are that small by its own choice. */
const TINY_WINDOW_BYTES = 1024;

export interface SenderHost {
  /** The response has ended on the wire. */
  onResponseEnd(stream: Http2Stream): void;
  /** There is something to flush. */
  wantFlush(): void;
}

export class Sender {
  readonly output = new OutputBuffer();
  /** The peer's SETTINGS. */
  initialWindowBytes = DEFAULT_WINDOW_BYTES;
  maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  windowBytes = DEFAULT_WINDOW_BYTES;
  /** HEADERS or DATA went out since somebody last asked (G-51). */
  sentSincePing = false;
  readonly #host: SenderHost;
  readonly #budgets: ConnectionBudgets;
  #line: Http2Stream[] = [];
  /** H-21: the next block starts with a table size update. */
  #tableUpdateDue = false;

  constructor(host: SenderHost, budgets: ConnectionBudgets) {
    this.#host = host;
    this.#budgets = budgets;
  }

  /** The peer's table got smaller than what we may have assumed. */
  announceEmptyTable(): void {
    this.#tableUpdateDue = true;
  }

  /** Whether `pump` would send something. */
  get hasData(): boolean {
    return this.#line.length > 0 && this.windowBytes > 0;
  }

  respond(stream: Http2Stream, head: HeaderBlock, response: WholeResponse | undefined): void {
    if (response === undefined) {
      this.#writeBlock(stream, head, Flag.END_STREAM);
      this.#endResponse(stream);
      return;
    }
    const { lead, body, trailers } = response;
    const sizeBytes = body.length + (lead === undefined ? 0 : lead.length);
    this.sendHead(stream, head);
    if (sizeBytes > Math.min(this.maxFrameBytes, this.windowBytes, stream.sendWindowBytes)) {
      if (lead !== undefined) stream.enqueue(copyOctets(lead));
      stream.enqueue(body);
      stream.trailers = trailers;
      stream.endsAfterQueue = true;
      this.sendQueued(stream);
      return;
    }
    if (sizeBytes > 0 || trailers === undefined) {
      this.#writeDataHeader(stream, sizeBytes, trailers === undefined);
      if (lead !== undefined) this.output.append(lead);
      this.output.append(body);
    }
    if (trailers !== undefined) this.#writeBlock(stream, trailers, Flag.END_STREAM);
    this.#endResponse(stream);
  }

  sendHead(stream: Http2Stream, head: HeaderBlock): void {
    stream.headSent = true;
    this.#writeBlock(stream, head, 0);
    this.#host.wantFlush();
  }

  /** Puts `stream` in line for what it has queued, or for its trailers. */
  sendQueued(stream: Http2Stream): void {
    if (stream.queuedBytes === 0) this.#onQueueEmpty(stream);
    else this.#enterLine(stream);
    this.#host.wantFlush();
  }

  /** The stream's window has grown. */
  onWindow(stream: Http2Stream): void {
    if (stream.queuedBytes > 0) this.#enterLine(stream);
  }

  /** Makes DATA frames until the output is full, the line is empty or the connection's window is closed. */
  pump(nowMs: number, force: boolean): void {
    while (this.#line.length > 0 && this.windowBytes > 0 && this.output.queuedBytes < HIGH_WATER_BYTES) {
      const stream = this.#line.shift();
      if (stream === undefined) return;
      stream.inLine = false;
      const windowBefore = this.windowBytes;
      if (!stream.closed) this.#sendSome(stream, nowMs, force);
      // Back in line with nothing sent: the connection's window is too small for anybody.
      if (stream.inLine && this.windowBytes === windowBefore) return;
    }
  }

  #enterLine(stream: Http2Stream): void {
    if (stream.inLine) return;
    stream.inLine = true;
    this.#line.push(stream);
  }

  #sendSome(stream: Http2Stream, nowMs: number, force: boolean): void {
    let quantumBytes = QUANTUM_BYTES;
    while (stream.queuedBytes > 0) {
      const allowedBytes = Math.min(stream.queuedBytes, stream.sendWindowBytes, this.windowBytes);
      if (allowedBytes <= 0 || (!force && this.#isTiny(allowedBytes, stream))) {
        // A closed stream window brings it back in onWindow, a closed connection window in pump.
        if (stream.sendWindowBytes > allowedBytes) this.#enterLine(stream);
        else if (stream.blockedSinceMs === 0) stream.blockedSinceMs = nowMs;
        return;
      }
      if (quantumBytes <= 0) return this.#enterLine(stream);
      stream.blockedSinceMs = 0;
      const frameBytes = Math.min(allowedBytes, this.maxFrameBytes, MAX_SENT_FRAME_BYTES);
      const last = frameBytes === stream.queuedBytes && stream.endsAfterQueue && stream.trailers === undefined;
      this.#writeDataHeader(stream, frameBytes, last);
      this.#appendQueued(stream, frameBytes);
      quantumBytes -= frameBytes;
    }
    this.#onQueueEmpty(stream);
  }

  /** FC-33: whether so little credit is better saved up. */
  #isTiny(allowedBytes: number, stream: Http2Stream): boolean {
    if (allowedBytes >= TINY_WINDOW_BYTES || allowedBytes === stream.queuedBytes) return false;
    return this.initialWindowBytes >= TINY_WINDOW_BYTES && allowedBytes < this.initialWindowBytes / 2;
  }

  #appendQueued(stream: Http2Stream, frameBytes: number): void {
    let restBytes = frameBytes;
    while (restBytes > 0) {
      const slice = stream.queue[stream.queueIndex]!;
      const start = stream.sliceOffset;
      const count = Math.min(restBytes, slice.length - start);
      this.output.append(count === slice.length ? slice : slice.subarray(start, start + count));
      restBytes -= count;
      stream.sliceOffset += count;
      if (stream.sliceOffset < slice.length) continue;
      stream.queueIndex++;
      stream.sliceOffset = 0;
    }
    stream.queuedBytes -= frameBytes;
    if (stream.queuedBytes === 0) stream.resetQueue();
  }

  #onQueueEmpty(stream: Http2Stream): void {
    const { taken, written } = stream;
    stream.taken = undefined;
    stream.written = undefined;
    if (written !== undefined) this.output.onWritten(written);
    if (stream.endsAfterQueue) {
      if (stream.trailers !== undefined) this.#writeBlock(stream, stream.trailers, Flag.END_STREAM);
      this.#endResponse(stream);
    }
    taken?.();
  }

  #endResponse(stream: Http2Stream): void {
    stream.responseEnded = true;
    stream.headSent = true;
    this.#host.onResponseEnd(stream);
    this.#host.wantFlush();
  }

  #writeDataHeader(stream: Http2Stream, sizeBytes: number, endStream: boolean): void {
    const slab = this.output.reserve(FRAME_HEADER_BYTES);
    const at = this.output.offsetOf(FRAME_HEADER_BYTES);
    putFrameHeader(slab, at, sizeBytes, FrameType.DATA, endStream ? Flag.END_STREAM : 0, stream.id);
    this.windowBytes -= sizeBytes;
    stream.sendWindowBytes -= sizeBytes;
    this.#budgets.dataFramesSent++;
    this.sentSincePing = true;
  }

  #writeBlock(stream: Http2Stream, block: HeaderBlock, flags: number): void {
    let octets = encodeBlock(block);
    if (this.#tableUpdateDue) {
      this.#tableUpdateDue = false;
      octets = Uint8Array.of(EMPTY_TABLE_UPDATE, ...octets);
    }
    this.sentSincePing = true;
    // Long parts are sent by reference, and the encoder's octets are overwritten.
    if (octets.length > this.maxFrameBytes) return this.#writeLongBlock(stream, copyOctets(octets), flags);
    const sizeBytes = FRAME_HEADER_BYTES + octets.length;
    const slab = this.output.reserve(sizeBytes);
    const at = this.output.offsetOf(sizeBytes);
    putFrameHeader(slab, at, octets.length, FrameType.HEADERS, flags | Flag.END_HEADERS, stream.id);
    slab.set(octets, at + FRAME_HEADER_BYTES);
  }

  /** HEADERS and CONTINUATION, one behind the other (F-60). */
  #writeLongBlock(stream: Http2Stream, octets: Uint8Array, flags: number): void {
    for (let start = 0; start < octets.length; start += this.maxFrameBytes) {
      const part = octets.subarray(start, start + this.maxFrameBytes);
      const last = start + part.length === octets.length ? Flag.END_HEADERS : 0;
      const slab = this.output.reserve(FRAME_HEADER_BYTES);
      const at = this.output.offsetOf(FRAME_HEADER_BYTES);
      if (start === 0) putFrameHeader(slab, at, part.length, FrameType.HEADERS, flags | last, stream.id);
      else putFrameHeader(slab, at, part.length, FrameType.CONTINUATION, last, stream.id);
      this.output.append(part);
    }
  }
}
