// The streams of one connection: what HEADERS, DATA, RST_STREAM and WINDOW_UPDATE do to them (RFC 9113 sections 5 and 6).
//
// Invariants: a stream's slot is held until its work is over, not merely until the wire is done with it (F-27, L-9);
// requests are handed out after the whole read, so one that is reset in the same read costs no work; octets that a
// closed stream held are given back to the connection's window (FC-1). Errors of the connection are thrown.

import {
  EMPTY_DATA_BUDGET,
  GLITCH_BUDGET,
  STREAM_ERROR_BUDGET,
  type ConnectionBudgets,
  type LimitCounters,
} from "./budgets.ts";
import { ClosedStreams, StreamEnd } from "./closed-streams.ts";
import type { ConnectionWatch } from "./connection-watch.ts";
import { ErrorCode } from "./error-code.ts";
import { ConnectionError, MAX_WINDOW_BYTES } from "./frame.ts";
import type { HeadersFrame } from "./frame-parser.ts";
import { writeRstStream } from "./frame-writer.ts";
import { HeaderBlock } from "./header-block.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { ReceiveWindows, STREAM_WINDOW_BYTES } from "./receive-windows.ts";
import { MAX_HEADER_LIST_BYTES, RequestFields } from "./request-fields.ts";
import type { ConnectionFacts, WholeResponse } from "./request-stream.ts";
import { Sender, type SenderHost } from "./sender.ts";
import { Http2Stream, type StreamHost } from "./stream.ts";

export interface ConnectionStreamsOptions {
  readonly facts: ConnectionFacts;
  readonly maxConcurrentStreams: number;
  readonly limits: LimitCounters;
  readonly budgets: ConnectionBudgets;
  /** Serves one request. */
  readonly onRequest: (stream: Http2Stream) => void;
  readonly wantFlush: () => void;
  /** The last stream has closed and its work is over. */
  readonly onIdle: () => void;
  /** Stream ids run out (F-28). */
  readonly onIdsRunOut: () => void;
  readonly onBug: (error: unknown) => void;
}

/** L-14: new streams of one read, before others get their turn. */
const MAX_STREAMS_PER_READ = 128;
/** L-15: streams before our SETTINGS have been acknowledged. */
const MAX_STREAMS_BEFORE_ACK = 100;
/** F-28 */
const LAST_COMFORTABLE_ID = 2 ** 30;
export const MAX_STREAM_ID = 2 ** 31 - 1;
const EARLY_RESET_MS = 1000;

/** Decoding is never interrupted, so one collector serves all connections. */
const fields = new RequestFields();

/** 431 with a status for gRPC clients (F-57). */
const HEADERS_TOO_LARGE = new HeaderBlock([
  [":status", "431"],
  ["content-type", "application/grpc"],
  ["grpc-status", "8"],
  ["grpc-message", `Request headers above ${MAX_HEADER_LIST_BYTES} octets or 128 fields`],
]);

export class ConnectionStreams implements StreamHost, SenderHost {
  readonly facts: ConnectionFacts;
  readonly sender: Sender;
  readonly windows: ReceiveWindows;
  readonly #options: ConnectionStreamsOptions;
  readonly #budgets: ConnectionBudgets;
  readonly #decoder = new HpackDecoder();
  readonly #streams = new Map<number, Http2Stream>();
  readonly #closed = new ClosedStreams();
  /** The time of the current read or tick; set by the connection. */
  nowMs = 0;
  settingsAcked = false;
  peerMaxHeaderListBytes = Number.POSITIVE_INFINITY;
  /** Streams above it are ignored after the final GOAWAY. */
  acceptedUpToId = MAX_STREAM_ID;
  /** The highest stream id that a HEADERS frame had. */
  lastId = 0;
  /** The highest one handed out; what an error's GOAWAY says. */
  lastDispatchedId = 0;
  /** Streams that are open, and closed ones whose work goes on. */
  #slots = 0;
  #pending: Http2Stream[] = [];
  /** The stream of the DATA frame being read; undefined when its octets are for nobody. */
  #dataStream: Http2Stream | undefined;
  #dataFlowBytes = 0;

  constructor(options: ConnectionStreamsOptions) {
    this.#options = options;
    this.facts = options.facts;
    this.#budgets = options.budgets;
    this.sender = new Sender(this, options.budgets);
    this.windows = new ReceiveWindows(this.sender.output);
  }

  /** Live streams and those whose work goes on. */
  get slots(): number {
    return this.#slots;
  }

  get live(): number {
    return this.#streams.size;
  }

  /** So many streams were opened by this read that others should get their turn (L-14). */
  get wantsPause(): boolean {
    return this.#pending.length >= MAX_STREAMS_PER_READ;
  }

  onHeaders(frame: HeadersFrame, octets: Uint8Array, start: number, end: number): void {
    const { streamId, endStream } = frame;
    // F-31: decoded whatever becomes of it, or the table would fall out of step.
    fields.begin();
    this.#decoder.decode(octets, start, end, fields);
    const live = this.#streams.get(streamId);
    if (live !== undefined) return this.#onTrailers(live, endStream);
    if (streamId <= this.lastId) return this.#onHeadersOfClosed(streamId);
    this.lastId = streamId;
    this.#budgets.streamsOpened++;
    if (streamId > this.acceptedUpToId) return this.#closed.record(streamId, StreamEnd.RESET_BY_US);
    if (streamId > LAST_COMFORTABLE_ID) this.#options.onIdsRunOut();
    const tooEarly = !this.settingsAcked && this.#budgets.streamsOpened > MAX_STREAMS_BEFORE_ACK;
    if (this.#slots >= this.#options.maxConcurrentStreams || tooEarly) return this.#refuse(streamId);
    if (frame.dependency === streamId) return this.#resetId(streamId, ErrorCode.PROTOCOL_ERROR);
    const headers = fields.finishRequest();
    if (headers === undefined || (endStream && fields.contentLength > 0))
      return this.#resetId(streamId, ErrorCode.PROTOCOL_ERROR);
    const stream = new Http2Stream(this, {
      id: streamId,
      headers,
      contentLength: fields.contentLength,
      receiveWindowBytes: STREAM_WINDOW_BYTES,
      sendWindowBytes: this.sender.initialWindowBytes,
      nowMs: this.nowMs,
    });
    this.#streams.set(streamId, stream);
    this.#slots++;
    stream.requestEnded = endStream;
    if (fields.tooLarge) this.#answerTooLarge(stream);
    else this.#pending.push(stream);
  }

  onDataBegin(streamId: number, flowBytes: number): void {
    if (!this.windows.receive(flowBytes)) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window");
    }
    this.#dataFlowBytes = flowBytes;
    const stream = this.#streams.get(streamId);
    this.#dataStream = stream;
    if (stream === undefined) {
      this.windows.creditConnection(flowBytes);
      this.#onDataOfClosed(streamId);
      return;
    }
    if (stream.heldBytes === 0) stream.creditedAtMs = this.nowMs;
    stream.receiveWindowBytes -= flowBytes;
    stream.heldBytes += flowBytes;
    if (stream.requestEnded) this.#streamError(stream, ErrorCode.STREAM_CLOSED);
    else if (stream.receiveWindowBytes < 0) this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
  }

  onDataChunk(_streamId: number, octets: Uint8Array, start: number, end: number): void {
    const stream = this.#dataStream;
    if (stream === undefined || stream.closed) return;
    // F-55: more than announced.
    const beyond = stream.contentLength >= 0 && stream.bodyBytes + end - start > stream.contentLength;
    if (beyond) this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else stream.deliver(octets, start, end);
  }

  onDataEnd(_streamId: number, endStream: boolean, overheadBytes: number): void {
    const stream = this.#dataStream;
    this.#dataStream = undefined;
    if (stream === undefined || stream.closed) return;
    if (!endStream && this.#dataFlowBytes === overheadBytes) this.#budgets.charge(EMPTY_DATA_BUDGET, this.nowMs);
    if (overheadBytes > 0) this.credit(stream, overheadBytes);
    if (endStream) this.#endRequest(stream);
  }

  onRstStream(streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#isIdle(streamId)) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream");
      return;
    }
    this.#abort(stream, StreamEnd.ENDED);
    if (!stream.headSent) this.#budgets.chargeReset(this.nowMs, this.nowMs - stream.openedAtMs < EARLY_RESET_MS);
  }

  onWindowUpdate(streamId: number, incrementBytes: number): void {
    this.#budgets.chargeWindowUpdate();
    if (streamId === 0) {
      if (incrementBytes === 0) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0");
      if (this.sender.windowBytes + incrementBytes > MAX_WINDOW_BYTES) {
        throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window above 2^31-1");
      }
      this.sender.windowBytes += incrementBytes;
      if (this.sender.hasData) this.wantFlush();
      return;
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#isIdle(streamId))
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream");
      return;
    }
    if (incrementBytes === 0) this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else if (stream.sendWindowBytes + incrementBytes > MAX_WINDOW_BYTES)
      this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    else {
      stream.sendWindowBytes += incrementBytes;
      this.sender.onWindow(stream);
      if (this.sender.hasData) this.wantFlush();
    }
  }

  credit(stream: Http2Stream, sizeBytes: number): void {
    if (this.windows.credit(stream, sizeBytes, this.nowMs)) this.wantFlush();
  }

  expect(stream: Http2Stream, sizeBytes: number): void {
    if (this.windows.expect(stream, sizeBytes)) this.wantFlush();
  }

  respond(stream: Http2Stream, head: HeaderBlock, response: WholeResponse | undefined): void {
    this.sender.respond(stream, head, response);
  }

  sendHead(stream: Http2Stream, head: HeaderBlock): void {
    this.sender.sendHead(stream, head);
  }

  sendQueued(stream: Http2Stream): void {
    this.sender.sendQueued(stream);
  }

  reset(stream: Http2Stream, code: ErrorCode): void {
    writeRstStream(this.sender.output, stream.id, code);
    this.#abort(stream, StreamEnd.RESET_BY_US);
    this.wantFlush();
  }

  released(stream: Http2Stream): void {
    if (stream.closed) this.#freeSlot();
  }

  onResponseEnd(stream: Http2Stream): void {
    if (stream.requestEnded) return this.#close(stream, StreamEnd.ENDED);
    // F-63: the client need not send what nobody will read.
    writeRstStream(this.sender.output, stream.id, ErrorCode.NO_ERROR);
    this.#close(stream, StreamEnd.RESET_BY_US);
  }

  wantFlush(): void {
    this.#options.wantFlush();
  }

  /** F-35 */
  changeInitialWindow(value: number): void {
    const differenceBytes = value - this.sender.initialWindowBytes;
    this.sender.initialWindowBytes = value;
    for (const stream of this.#streams.values()) {
      stream.sendWindowBytes += differenceBytes;
      if (stream.sendWindowBytes > MAX_WINDOW_BYTES) {
        throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE lifts a window above 2^31-1");
      }
      this.sender.onWindow(stream);
    }
  }

  /** FC-12, FC-33, FC-34: looks after streams that make no progress. */
  check(watch: ConnectionWatch): void {
    const lends = this.windows.isScarce;
    for (const stream of this.#streams.values()) {
      if (lends && this.windows.lend(stream, this.nowMs)) this.#options.limits.count("lent_streams");
      if (watch.isStuck(stream, this.nowMs)) {
        this.#options.limits.count("stuck_streams");
        this.reset(stream, ErrorCode.CANCEL);
      } else if (stream.sendWindowBytes > 0) this.sender.onWindow(stream);
    }
    this.sender.pump(this.nowMs, true);
    if (this.sender.output.queuedBytes > 0) this.wantFlush();
  }

  /** Nobody is there any more: every stream ends, and its work is told. */
  abortAll(): void {
    this.windows.close();
    for (const stream of this.#streams.values()) {
      try {
        this.#abort(stream, StreamEnd.ENDED);
      } catch (error) {
        this.#options.onBug(error);
      }
    }
    this.#pending = [];
  }

  /** Hands out the requests of this read. */
  dispatchPending(): void {
    if (this.#pending.length === 0) return;
    const pending = this.#pending;
    this.#pending = [];
    for (const stream of pending) {
      if (stream.closed) continue;
      stream.dispatched = true;
      this.lastDispatchedId = stream.id;
      try {
        this.#options.onRequest(stream);
      } catch (error) {
        // Nobody else will say that its work is over.
        stream.release();
        throw error;
      }
    }
  }

  #onTrailers(stream: Http2Stream, endStream: boolean): void {
    fields.finishTrailers();
    if (stream.requestEnded) this.#streamError(stream, ErrorCode.STREAM_CLOSED);
    else if (!endStream || fields.malformed !== undefined) this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    else this.#endRequest(stream);
  }

  /** F-22, F-23. */
  #onHeadersOfClosed(streamId: number): void {
    const end = this.#closed.find(streamId);
    if (end === StreamEnd.RESET_BY_US) this.#budgets.charge(GLITCH_BUDGET, this.nowMs);
    else if (end === StreamEnd.ENDED) throw new ConnectionError(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream");
    else throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS with a stream id below the last one");
  }

  /** F-26: not opened yet, or for the server to open, which we never do. */
  #isIdle(streamId: number): boolean {
    return streamId > this.lastId || (streamId & 1) === 0;
  }

  /** F-23, F-24, F-26. */
  #onDataOfClosed(streamId: number): void {
    if (this.#isIdle(streamId)) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream");
    if (this.#closed.find(streamId) !== StreamEnd.RESET_BY_US) this.#resetId(streamId, ErrorCode.STREAM_CLOSED);
  }

  #endRequest(stream: Http2Stream): void {
    if (stream.contentLength >= 0 && stream.bodyBytes !== stream.contentLength) {
      return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    }
    stream.endRequest();
    if (stream.responseEnded && !stream.closed) this.#close(stream, StreamEnd.ENDED);
  }

  #refuse(streamId: number): void {
    this.#budgets.charge(GLITCH_BUDGET, this.nowMs);
    this.#options.limits.count("refused_streams");
    this.#closed.record(streamId, StreamEnd.RESET_BY_US);
    writeRstStream(this.sender.output, streamId, ErrorCode.REFUSED_STREAM);
    this.wantFlush();
  }

  #answerTooLarge(stream: Http2Stream): void {
    stream.isReleased = true;
    this.#options.limits.count("header_list");
    this.sender.respond(stream, HEADERS_TOO_LARGE, undefined);
  }

  /** SE(code) for a live stream. */
  #streamError(stream: Http2Stream, code: ErrorCode): void {
    this.#abort(stream, StreamEnd.RESET_BY_US);
    this.#resetId(stream.id, code);
  }

  /** SE(code); L-10 bounds how often. */
  #resetId(streamId: number, code: ErrorCode): void {
    writeRstStream(this.sender.output, streamId, code);
    this.#closed.record(streamId, StreamEnd.RESET_BY_US);
    this.wantFlush();
    this.#budgets.charge(STREAM_ERROR_BUDGET, this.nowMs);
  }

  #abort(stream: Http2Stream, end: StreamEnd): void {
    if (!stream.dispatched) stream.isReleased = true;
    this.#close(stream, end);
    stream.abort();
  }

  #close(stream: Http2Stream, end: StreamEnd): void {
    stream.closed = true;
    this.#streams.delete(stream.id);
    this.#closed.record(stream.id, end);
    this.windows.release(stream);
    if (end === StreamEnd.ENDED && stream.responseEnded) stream.detach();
    if (stream.isReleased) this.#freeSlot();
  }

  #freeSlot(): void {
    this.#slots--;
    if (this.#slots === 0) this.#options.onIdle();
  }
}
