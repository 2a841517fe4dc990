// The server's side of one HTTP/2 connection, free of I/O: octets and time in, octets and requests out.
//
// Invariants: an error of the connection ends it with one GOAWAY, an error of a stream ends that stream with one
// RST_STREAM (F-93); nothing that a peer sends throws out of `receive` (F-94); a stream's slot is held until its work is
// over (F-27); requests are handed out after the whole read, so one that is reset in the same read costs no work.
// Frames are cut by frame-parser.ts, sending is sender.ts, credit is receive-windows.ts, times are connection-watch.ts.

import {
  ConnectionBudgets,
  EMPTY_DATA_BUDGET,
  GLITCH_BUDGET,
  SETTINGS_BUDGET,
  STREAM_ERROR_BUDGET,
  type LimitCounters,
} from "./budgets.ts";
import { ClosedStreams, StreamEnd } from "./closed-streams.ts";
import { ErrorCode } from "./error-code.ts";
import { ConnectionError, Flag, MAX_WINDOW_BYTES, SettingId } from "./frame.ts";
import { FrameParser, type FrameSink, type HeadersFrame } from "./frame-parser.ts";
import { writeGoaway, writePing, writeRstStream, writeSettings, writeSettingsAck } from "./frame-writer.ts";
import { HeaderBlock } from "./header-block.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { MAX_TABLE_BYTES } from "./hpack-table.ts";
import { ConnectionWatch } from "./connection-watch.ts";
import { readSettings } from "./peer-settings.ts";
import { PingPolicy } from "./ping-policy.ts";
import { ReceiveWindows, STREAM_WINDOW_BYTES } from "./receive-windows.ts";
import { MAX_HEADER_LIST_BYTES, RequestFields } from "./request-fields.ts";
import type { ConnectionFacts, WholeResponse } from "./request-stream.ts";
import { Sender, type SenderHost } from "./sender.ts";
import { Http2Stream, type StreamHost } from "./stream.ts";

export interface ConnectionOptions {
  readonly facts: ConnectionFacts;
  readonly maxConcurrentStreams: number;
  readonly limits: LimitCounters;
  readonly nowMs: number;
  /** Serves one request; what it throws ends the connection with INTERNAL_ERROR. */
  readonly onRequest: (stream: Http2Stream) => void;
  /** There is output; asked for again only after `takeOutput`. */
  readonly wantFlush: () => void;
  /** A bug of ours showed in this connection. */
  readonly onBug: (error: unknown) => void;
}

/** L-14: new streams of one read, before others get their turn. */
const MAX_STREAMS_PER_READ = 128;
/** L-15: streams before our SETTINGS have been acknowledged. */
const MAX_STREAMS_BEFORE_ACK = 100;
/** F-28 */
const LAST_COMFORTABLE_ID = 2 ** 30;
const MAX_STREAM_ID = 2 ** 31 - 1;
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

export class Connection implements FrameSink, StreamHost, SenderHost {
  readonly facts: ConnectionFacts;
  readonly watch: ConnectionWatch;
  readonly sender: Sender;
  readonly windows: ReceiveWindows;
  readonly #options: ConnectionOptions;
  readonly #budgets: ConnectionBudgets;
  readonly #parser: FrameParser;
  readonly #decoder = new HpackDecoder();
  readonly #pings = new PingPolicy();
  readonly #streams = new Map<number, Http2Stream>();
  readonly #closed = new ClosedStreams();
  #nowMs: number;
  /** The highest stream id that a HEADERS frame had. */
  #lastId = 0;
  /** The highest one handed out; what GOAWAY says. */
  #lastDispatchedId = 0;
  /** Streams above it are ignored after the final GOAWAY. */
  #acceptedUpToId = MAX_STREAM_ID;
  /** Streams that are open, and closed ones whose work goes on. */
  #slots = 0;
  #pending: Http2Stream[] = [];
  /** The stream of the DATA frame being read; undefined when its octets are for nobody. */
  #dataStream: Http2Stream | undefined;
  #dataFlowBytes = 0;
  #settingsAcked = false;
  #peerGone = false;
  #over = false;
  peerMaxHeaderListBytes = Number.POSITIVE_INFINITY;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.facts = options.facts;
    this.#nowMs = options.nowMs;
    this.#budgets = new ConnectionBudgets(options.limits);
    this.sender = new Sender(this, this.#budgets);
    this.windows = new ReceiveWindows(this.sender.output);
    this.#parser = new FrameParser(this);
    this.watch = new ConnectionWatch(options.nowMs);
    // F-4, C-2: SETTINGS first, and the connection's window in the same segment.
    writeSettings(this.sender.output, [
      [SettingId.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams],
      [SettingId.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
      [SettingId.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_BYTES],
      [SettingId.NO_RFC7540_PRIORITIES, 1],
    ]);
    this.windows.open();
    this.wantFlush();
  }

  /** Live streams and those whose work goes on. */
  get openStreams(): number {
    return this.#slots;
  }

  /** Nothing more will be received: the output is to be flushed and the socket closed. */
  get isOver(): boolean {
    return this.#over;
  }

  get wantsPause(): boolean {
    return this.#pending.length >= MAX_STREAMS_PER_READ;
  }

  /** Takes what a read brought; returns where it stopped: before `end` when the rest is to be given again later. */
  receive(octets: Uint8Array, start: number, end: number, nowMs: number): number {
    this.#nowMs = nowMs;
    this.watch.onOctets(nowMs);
    if (this.#over) return end;
    try {
      const at = this.#parser.consume(octets, start, end);
      this.#dispatchPending();
      this.watch.blockOpen(this.#parser.blockOpen, nowMs);
      return at;
    } catch (error) {
      this.#fail(error);
      return end;
    }
  }

  /** Puts DATA behind what is in the output already, and hands the whole out. */
  takeOutput(nowMs: number): readonly Uint8Array[] {
    this.#nowMs = nowMs;
    try {
      this.sender.pump(nowMs, false);
    } catch (error) {
      this.#fail(error);
    }
    return this.sender.output.take();
  }

  /** Does what the time asks for; to be called a few times a second. Returns true when the socket is to be destroyed. */
  tick(nowMs: number): boolean {
    this.#nowMs = nowMs;
    try {
      const due = this.watch.check(nowMs, this.#streams.size, this.#settingsAcked);
      if (due === "destroy") return true;
      if (due === "ping") this.#sendWatchPing();
      else if (due === "goaway") this.#finalGoaway();
      else if (due === "idle") this.shutDown("max_idle", nowMs);
      else if (due !== undefined) throw due;
      if (this.watch.streamsDue(nowMs)) this.#checkStreams(nowMs);
    } catch (error) {
      this.#fail(error);
    }
    return false;
  }

  /** F-90: says that no new streams are wanted, and ends when those under way have. */
  shutDown(reason: string, nowMs: number): void {
    if (this.#over || this.watch.isDraining) return;
    this.watch.startDraining(nowMs);
    writeGoaway(this.sender.output, { lastStreamId: MAX_STREAM_ID, code: ErrorCode.NO_ERROR, debug: reason });
    this.#sendWatchPing();
    this.#finishIfIdle();
  }

  /** The socket has closed (F-95). */
  onSocketClosed(): void {
    this.#over = true;
    this.#peerGone = true;
    this.#abortAll();
  }

  // FrameSink

  onHeaders(frame: HeadersFrame, octets: Uint8Array, start: number, end: number): void {
    const { streamId, endStream } = frame;
    // F-31: decoded whatever becomes of it, or the table would fall out of step.
    fields.begin();
    this.#decoder.decode(octets, start, end, fields);
    const live = this.#streams.get(streamId);
    if (live !== undefined) return this.#onTrailers(live, endStream);
    if (streamId <= this.#lastId) return this.#onHeadersOfClosed(streamId);
    this.#lastId = streamId;
    this.#budgets.streamsOpened++;
    if (streamId > this.#acceptedUpToId) return this.#closed.record(streamId, StreamEnd.RESET_BY_US);
    if (streamId > LAST_COMFORTABLE_ID) this.shutDown("stream ids run out", this.#nowMs);
    const tooEarly = !this.#settingsAcked && this.#budgets.streamsOpened > MAX_STREAMS_BEFORE_ACK;
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
      nowMs: this.#nowMs,
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
      this.#onDataOfClosed(streamId);
      this.windows.creditConnection(flowBytes);
      return;
    }
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
    if (!endStream && this.#dataFlowBytes === overheadBytes) this.#budgets.charge(EMPTY_DATA_BUDGET, this.#nowMs);
    if (overheadBytes > 0) this.credit(stream, overheadBytes);
    if (endStream) this.#endRequest(stream);
  }

  onPriority(streamId: number, dependency: number): void {
    this.#budgets.chargePriority();
    // A connection error, since resetting an idle stream would be one of ours (F-32, A-10).
    if (dependency === streamId) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself");
  }

  onRstStream(streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (streamId > this.#lastId) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream");
      return;
    }
    this.#abort(stream, StreamEnd.ENDED);
    if (!stream.headSent) this.#budgets.chargeReset(this.#nowMs, this.#nowMs - stream.openedAtMs < EARLY_RESET_MS);
  }

  onSettings(octets: Uint8Array, start: number, end: number): void {
    this.#budgets.charge(SETTINGS_BUDGET, this.#nowMs);
    readSettings(octets, start, end, (id, value) => this.#applySetting(id, value));
    this.watch.onSettings();
    writeSettingsAck(this.sender.output);
    this.wantFlush();
  }

  onSettingsAck(): void {
    if (this.#settingsAcked) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK without SETTINGS");
    this.#settingsAcked = true;
  }

  onPing(ack: boolean, octets: Uint8Array, start: number): void {
    if (ack) {
      if (this.watch.onPingAck(octets, start)) this.#finalGoaway();
      return;
    }
    if (this.sender.sentSincePing) this.#budgets.refundPing();
    this.#budgets.chargePing(this.#nowMs);
    this.#pings.onPing(this.#nowMs, this.sender.sentSincePing, this.#options.limits);
    this.sender.sentSincePing = false;
    writePing(this.sender.output, Flag.ACK, { octets, start });
    this.wantFlush();
  }

  onGoaway(): void {
    this.watch.peerIsLeaving = true;
    this.#finishIfIdle();
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
      if (streamId > this.#lastId)
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

  onUnknownFrame(): void {
    this.#budgets.charge(GLITCH_BUDGET, this.#nowMs);
  }

  // StreamHost and SenderHost

  credit(stream: Http2Stream, sizeBytes: number): void {
    if (this.windows.credit(stream, sizeBytes, this.#nowMs)) this.wantFlush();
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
    if (!this.#peerGone) this.#options.wantFlush();
  }

  #dispatchPending(): void {
    if (this.#pending.length === 0) return;
    const pending = this.#pending;
    this.#pending = [];
    for (const stream of pending) {
      if (stream.closed) continue;
      stream.dispatched = true;
      this.#lastDispatchedId = stream.id;
      this.#options.onRequest(stream);
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
    if (end === StreamEnd.RESET_BY_US) this.#budgets.charge(GLITCH_BUDGET, this.#nowMs);
    else if (end === StreamEnd.ENDED) throw new ConnectionError(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream");
    else throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS with a stream id below the last one");
  }

  /** F-23, F-24, F-26. */
  #onDataOfClosed(streamId: number): void {
    if (streamId > this.#lastId) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream");
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
    this.#budgets.charge(GLITCH_BUDGET, this.#nowMs);
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
    this.#budgets.charge(STREAM_ERROR_BUDGET, this.#nowMs);
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
    if (stream.heldBytes > 0) this.windows.creditConnection(stream.heldBytes);
    stream.heldBytes = 0;
    if (end === StreamEnd.ENDED && stream.responseEnded) stream.detach();
    if (stream.isReleased) this.#freeSlot();
  }

  #freeSlot(): void {
    this.#slots--;
    if (this.#slots === 0) this.#finishIfIdle();
  }

  #applySetting(id: number, value: number): void {
    if (id === SettingId.INITIAL_WINDOW_SIZE) this.#changeInitialWindow(value);
    else if (id === SettingId.MAX_FRAME_SIZE) this.sender.maxFrameBytes = value;
    else if (id === SettingId.MAX_HEADER_LIST_SIZE) this.peerMaxHeaderListBytes = value;
    else if (id === SettingId.HEADER_TABLE_SIZE && value < MAX_TABLE_BYTES) this.sender.announceEmptyTable();
  }

  /** F-35 */
  #changeInitialWindow(value: number): void {
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

  #sendWatchPing(): void {
    writePing(this.sender.output, 0, { octets: this.watch.newPing(this.#nowMs), start: 0 });
    this.wantFlush();
  }

  #finalGoaway(): void {
    if (this.#over || this.#acceptedUpToId !== MAX_STREAM_ID) return;
    this.#acceptedUpToId = this.#lastId;
    writeGoaway(this.sender.output, { lastStreamId: this.#lastId, code: ErrorCode.NO_ERROR, debug: "" });
    this.wantFlush();
    this.#finishIfIdle();
  }

  #finishIfIdle(): void {
    if (this.#over || this.#slots > 0 || this.#pending.length > 0) return;
    const drained = this.watch.isDraining && this.#acceptedUpToId !== MAX_STREAM_ID;
    if (!drained && !this.watch.peerIsLeaving) return;
    this.#over = true;
    this.wantFlush();
  }

  /** FC-33, FC-34, L-22: looks after streams that make no progress. */
  #checkStreams(nowMs: number): void {
    for (const stream of this.#streams.values()) {
      if (this.watch.isStuck(stream, nowMs)) {
        this.#options.limits.count("stuck_streams");
        this.reset(stream, ErrorCode.CANCEL);
      } else if (stream.sendWindowBytes > 0) this.sender.onWindow(stream);
    }
    this.sender.pump(nowMs, true);
    if (this.sender.output.queuedBytes > 0) this.wantFlush();
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    const known = error instanceof ConnectionError;
    if (!known) this.#options.onBug(error);
    const code = known ? error.code : ErrorCode.INTERNAL_ERROR;
    this.#options.limits.count(`connection_error_${code}`);
    const debug = known ? error.message : "internal error";
    writeGoaway(this.sender.output, { lastStreamId: this.#lastDispatchedId, code, debug });
    this.#abortAll();
    this.#options.wantFlush();
  }

  #abortAll(): void {
    for (const stream of this.#streams.values()) {
      try {
        this.#abort(stream, StreamEnd.ENDED);
      } catch (error) {
        this.#options.onBug(error);
      }
    }
    this.#pending = [];
  }
}
