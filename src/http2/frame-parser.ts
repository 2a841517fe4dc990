// Octets in, frames out: what can be checked without knowing any stream is checked here.
//
// Invariants: the events are the same for every cut of the octets into reads (F-11); a size is checked on the frame's
// header, before its payload is buffered (F-10); DATA is handed on as it arrives; a field block is handed on whole, and
// nothing else is let through while it is open (F-14). Payloads of other frames are buffered only when a read cuts them.

import { ErrorCode } from "./error-code.ts";
import { ConnectionError, DEFAULT_MAX_FRAME_BYTES, Flag, FRAME_HEADER_BYTES, FrameType } from "./frame.ts";

/** What the parser reports. `octets` are valid during the call only. A method may throw a ConnectionError. */
export interface FrameSink {
  /** While true, `consume` returns early; the rest is to be given again later. */
  readonly wantsPause: boolean;
  /** A DATA frame begins; `flowBytes` is its whole payload, which counts against the windows (F-30). */
  onDataBegin(streamId: number, flowBytes: number): void;
  onDataChunk(streamId: number, octets: Uint8Array, start: number, end: number): void;
  /** `overheadBytes` of the frame were pad length and padding. */
  onDataEnd(streamId: number, endStream: boolean, overheadBytes: number): void;
  /** A whole field block; `dependency` is -1 without priority fields. */
  onHeaders(frame: HeadersFrame, octets: Uint8Array, start: number, end: number): void;
  onPriority(streamId: number, dependency: number): void;
  onRstStream(streamId: number, code: number): void;
  onSettings(octets: Uint8Array, start: number, end: number): void;
  onSettingsAck(): void;
  onPing(ack: boolean, octets: Uint8Array, start: number): void;
  onGoaway(lastStreamId: number, code: number): void;
  onWindowUpdate(streamId: number, increment: number): void;
  onUnknownFrame(): void;
}

/** Reused for every HEADERS frame. */
export interface HeadersFrame {
  streamId: number;
  endStream: boolean;
  dependency: number;
}

/** Frames of one field block after the first (L-12), and its octets before decompression (L-13). */
const MAX_CONTINUATIONS = 8;
const MAX_BLOCK_BYTES = 64 * 1024;

const State = { HEADER: 0, PAYLOAD: 1, DATA: 2, SKIP: 3 } as const;

export class FrameParser {
  readonly #sink: FrameSink;
  readonly #maxFrameBytes: number;
  #state: number = State.HEADER;
  #head = new Uint8Array(FRAME_HEADER_BYTES);
  #headBytes = 0;
  #length = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Octets of the current payload that have not arrived. */
  #leftBytes = 0;
  /** A payload that a read has cut. */
  #payload: Uint8Array | undefined;
  #padLengthPending = false;
  #padBytes = 0;
  readonly #headers: HeadersFrame = { streamId: 0, endStream: false, dependency: -1 };
  /** F-3: the first frame is SETTINGS without ACK. */
  #first = true;
  /** The stream whose field block is open; 0 = none. */
  #blockStreamId = 0;
  #block: Uint8Array | undefined;
  #blockBytes = 0;
  #continuations = 0;

  constructor(sink: FrameSink, maxFrameBytes: number = DEFAULT_MAX_FRAME_BYTES) {
    this.#sink = sink;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Whether a field block has begun and not ended (L-21). */
  get blockOpen(): boolean {
    return this.#blockStreamId !== 0;
  }

  /** Reads octets `start` to `end`; returns where it stopped, which is `end` unless the sink wants a pause. */
  consume(octets: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && !this.#sink.wantsPause) {
      if (this.#state === State.HEADER) at = this.#readHeader(octets, at, end);
      else if (this.#state === State.DATA) at = this.#readData(octets, at, end);
      else if (this.#state === State.PAYLOAD) at = this.#collectPayload(octets, at, end);
      else at = this.#skip(at, end);
    }
    return at;
  }

  #readHeader(octets: Uint8Array, start: number, end: number): number {
    if (this.#headBytes === 0 && end - start >= FRAME_HEADER_BYTES) {
      this.#parseHeader(octets, start);
      return this.#beginPayload(octets, start + FRAME_HEADER_BYTES, end);
    }
    let at = start;
    while (at < end && this.#headBytes < FRAME_HEADER_BYTES) this.#head[this.#headBytes++] = octets[at++]!;
    if (this.#headBytes < FRAME_HEADER_BYTES) return at;
    this.#headBytes = 0;
    this.#parseHeader(this.#head, 0);
    return this.#beginPayload(octets, at, end);
  }

  #parseHeader(octets: Uint8Array, at: number): void {
    this.#length = (octets[at]! << 16) | (octets[at + 1]! << 8) | octets[at + 2]!;
    this.#type = octets[at + 3]!;
    this.#flags = octets[at + 4]!;
    this.#streamId = readUint31(octets, at + 5);
    if (this.#length > this.#maxFrameBytes) {
      fail(ErrorCode.FRAME_SIZE_ERROR, `frame of ${this.#length} octets, the limit is ${this.#maxFrameBytes}`);
    }
    if (this.#first && (this.#type !== FrameType.SETTINGS || (this.#flags & Flag.ACK) !== 0)) {
      fail(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS");
    }
    this.#first = false;
    if (this.#blockStreamId === 0) return;
    if (this.#type === FrameType.CONTINUATION && this.#streamId === this.#blockStreamId) return;
    fail(ErrorCode.PROTOCOL_ERROR, "a frame inside a field block");
  }

  #beginPayload(octets: Uint8Array, at: number, end: number): number {
    const length = this.#length;
    if (this.#type === FrameType.DATA) {
      this.#beginData();
      return length === 0 ? at : this.#readData(octets, at, end);
    }
    if (this.#type > FrameType.CONTINUATION) {
      this.#sink.onUnknownFrame();
      this.#leftBytes = length;
      this.#state = State.SKIP;
      return this.#skip(at, end);
    }
    this.#checkLength();
    if (end - at >= length) {
      this.#dispatch(octets, at, at + length);
      return at + length;
    }
    this.#payload = new Uint8Array(length);
    this.#leftBytes = length;
    this.#state = State.PAYLOAD;
    return this.#collectPayload(octets, at, end);
  }

  #collectPayload(octets: Uint8Array, start: number, end: number): number {
    const payload = this.#payload ?? new Uint8Array(this.#length);
    const count = Math.min(this.#leftBytes, end - start);
    payload.set(octets.subarray(start, start + count), this.#length - this.#leftBytes);
    this.#leftBytes -= count;
    if (this.#leftBytes === 0) {
      this.#payload = undefined;
      this.#state = State.HEADER;
      this.#dispatch(payload, 0, this.#length);
    }
    return start + count;
  }

  #skip(start: number, end: number): number {
    const count = Math.min(this.#leftBytes, end - start);
    this.#leftBytes -= count;
    if (this.#leftBytes === 0) this.#state = State.HEADER;
    return start + count;
  }

  #beginData(): void {
    if (this.#streamId === 0) fail(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0");
    const padded = (this.#flags & Flag.PADDED) !== 0;
    if (padded && this.#length === 0) fail(ErrorCode.FRAME_SIZE_ERROR, "padded DATA without a pad length");
    this.#sink.onDataBegin(this.#streamId, this.#length);
    this.#padLengthPending = padded;
    this.#padBytes = 0;
    this.#leftBytes = padded ? this.#length - 1 : this.#length;
    if (this.#length === 0) this.#sink.onDataEnd(this.#streamId, (this.#flags & Flag.END_STREAM) !== 0, 0);
    else this.#state = State.DATA;
  }

  /** #leftBytes counts data and padding together; the last #padBytes of them are padding. */
  #readData(octets: Uint8Array, start: number, end: number): number {
    let at = start;
    if (this.#padLengthPending) {
      if (at >= end) return at;
      this.#padBytes = octets[at++]!;
      this.#padLengthPending = false;
      if (this.#padBytes > this.#leftBytes) fail(ErrorCode.PROTOCOL_ERROR, "padding longer than its DATA frame");
    }
    const dataBytes = Math.min(this.#leftBytes - this.#padBytes, end - at);
    if (dataBytes > 0) {
      this.#sink.onDataChunk(this.#streamId, octets, at, at + dataBytes);
      this.#leftBytes -= dataBytes;
      at += dataBytes;
    }
    if (this.#leftBytes <= this.#padBytes) {
      // Only padding is left; #padBytes stays the whole so that the overhead is known at the end.
      const count = Math.min(this.#leftBytes, end - at);
      this.#leftBytes -= count;
      at += count;
      if (this.#leftBytes === 0) this.#endData();
    }
    return at;
  }

  #endData(): void {
    this.#state = State.HEADER;
    const padded = (this.#flags & Flag.PADDED) !== 0;
    const overheadBytes = padded ? this.#padBytes + 1 : 0;
    this.#sink.onDataEnd(this.#streamId, (this.#flags & Flag.END_STREAM) !== 0, overheadBytes);
  }

  /** Sizes and stream ids that are wrong whatever the state is; F-20 and F-30 to F-39. */
  #checkLength(): void {
    const length = this.#length;
    const onConnection = this.#streamId === 0;
    switch (this.#type) {
      case FrameType.HEADERS:
        if (onConnection || (this.#streamId & 1) === 0) fail(ErrorCode.PROTOCOL_ERROR, "HEADERS on an even stream id");
        return;
      case FrameType.PRIORITY:
        if (onConnection) fail(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0");
        if (length !== 5) fail(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 octets");
        return;
      case FrameType.RST_STREAM:
        if (onConnection) fail(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0");
        if (length !== 4) fail(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 octets");
        return;
      case FrameType.SETTINGS:
        if (!onConnection) fail(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream");
        if ((this.#flags & Flag.ACK) !== 0 && length !== 0)
          fail(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with content");
        if (length % 6 !== 0) fail(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 octets");
        return;
      case FrameType.PUSH_PROMISE:
        return fail(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client");
      case FrameType.PING:
        if (!onConnection) fail(ErrorCode.PROTOCOL_ERROR, "PING on a stream");
        if (length !== 8) fail(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 octets");
        return;
      case FrameType.GOAWAY:
        if (!onConnection) fail(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream");
        if (length < 8) fail(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY below 8 octets");
        return;
      case FrameType.WINDOW_UPDATE:
        if (length !== 4) fail(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 octets");
        return;
      default:
        // CONTINUATION: with an open block, parseHeader has let only the right one through (F-39).
        if (this.#blockStreamId === 0) fail(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a field block");
    }
  }

  #dispatch(octets: Uint8Array, start: number, end: number): void {
    switch (this.#type) {
      case FrameType.HEADERS:
        return this.#onHeaders(octets, start, end);
      case FrameType.CONTINUATION:
        return this.#onContinuation(octets, start, end);
      case FrameType.PRIORITY:
        return this.#sink.onPriority(this.#streamId, readUint31(octets, start));
      case FrameType.RST_STREAM:
        return this.#sink.onRstStream(this.#streamId, readUint32(octets, start));
      case FrameType.SETTINGS:
        if ((this.#flags & Flag.ACK) !== 0) return this.#sink.onSettingsAck();
        return this.#sink.onSettings(octets, start, end);
      case FrameType.PING:
        return this.#sink.onPing((this.#flags & Flag.ACK) !== 0, octets, start);
      case FrameType.GOAWAY:
        return this.#sink.onGoaway(readUint31(octets, start), readUint32(octets, start + 4));
      default:
        return this.#sink.onWindowUpdate(this.#streamId, readUint31(octets, start));
    }
  }

  #onHeaders(octets: Uint8Array, start: number, end: number): void {
    let from = start;
    let to = end;
    let padBytes = 0;
    if ((this.#flags & Flag.PADDED) !== 0) {
      if (to === from) fail(ErrorCode.FRAME_SIZE_ERROR, "padded HEADERS without a pad length");
      padBytes = octets[from++]!;
    }
    const headers = this.#headers;
    headers.dependency = -1;
    if ((this.#flags & Flag.PRIORITY) !== 0) {
      if (to - from < 5) fail(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without room for its priority fields");
      headers.dependency = readUint31(octets, from);
      from += 5;
    }
    if (padBytes > to - from) fail(ErrorCode.PROTOCOL_ERROR, "padding longer than its HEADERS frame");
    to -= padBytes;
    headers.streamId = this.#streamId;
    headers.endStream = (this.#flags & Flag.END_STREAM) !== 0;
    if ((this.#flags & Flag.END_HEADERS) !== 0) {
      this.#sink.onHeaders(headers, octets, from, to);
      return;
    }
    this.#blockStreamId = this.#streamId;
    this.#continuations = 0;
    this.#blockBytes = 0;
    this.#appendToBlock(octets, from, to);
  }

  #onContinuation(octets: Uint8Array, start: number, end: number): void {
    if (++this.#continuations > MAX_CONTINUATIONS) {
      fail(ErrorCode.ENHANCE_YOUR_CALM, `more than ${MAX_CONTINUATIONS} CONTINUATION frames in a field block`);
    }
    this.#appendToBlock(octets, start, end);
    if ((this.#flags & Flag.END_HEADERS) === 0) return;
    this.#blockStreamId = 0;
    const block = this.#block ?? new Uint8Array(0);
    this.#block = undefined;
    this.#sink.onHeaders(this.#headers, block, 0, this.#blockBytes);
  }

  #appendToBlock(octets: Uint8Array, start: number, end: number): void {
    const neededBytes = this.#blockBytes + end - start;
    if (neededBytes > MAX_BLOCK_BYTES) fail(ErrorCode.ENHANCE_YOUR_CALM, `field block above ${MAX_BLOCK_BYTES} octets`);
    if (this.#block === undefined || this.#block.length < neededBytes) {
      // Doubling keeps the copying linear in the octets of the block (H-9).
      const grown = new Uint8Array(Math.max(neededBytes, 2 * this.#blockBytes, 1024));
      if (this.#block !== undefined) grown.set(this.#block.subarray(0, this.#blockBytes));
      this.#block = grown;
    }
    this.#block.set(octets.subarray(start, end), this.#blockBytes);
    this.#blockBytes = neededBytes;
  }
}

function readUint31(octets: Uint8Array, at: number): number {
  return ((octets[at]! & 0x7f) << 24) | (octets[at + 1]! << 16) | (octets[at + 2]! << 8) | octets[at + 3]!;
}

function readUint32(octets: Uint8Array, at: number): number {
  return readUint31(octets, at) + (octets[at]! >= 0x80 ? 2 ** 31 : 0);
}

function fail(code: ErrorCode, message: string): never {
  throw new ConnectionError(code, message);
}
