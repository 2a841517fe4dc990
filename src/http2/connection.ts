// The server's side of one HTTP/2 connection, free of I/O: octets and time in, octets and requests out.
//
// Invariants: an error of the connection ends it with one GOAWAY, an error of a stream ends that stream with one
// RST_STREAM (F-93); nothing that a peer sends throws out of `receive` (F-94). Frames are cut by frame-parser.ts, streams
// live in connection-streams.ts, sending is sender.ts, credit is receive-windows.ts, times are connection-watch.ts.

import { ConnectionBudgets, GLITCH_BUDGET, SETTINGS_BUDGET, type LimitCounters } from "./budgets.ts";
import { ConnectionStreams, MAX_STREAM_ID } from "./connection-streams.ts";
import { ConnectionWatch, type AgeLimit } from "./connection-watch.ts";
import { ErrorCode } from "./error-code.ts";
import { ConnectionError, Flag, SettingId } from "./frame.ts";
import { FrameParser, type FrameSink, type HeadersFrame } from "./frame-parser.ts";
import { writeGoaway, writePing, writeSettings, writeSettingsAck } from "./frame-writer.ts";
import { MAX_TABLE_BYTES } from "./hpack-table.ts";
import { readSettings } from "./peer-settings.ts";
import { PingPolicy } from "./ping-policy.ts";
import { STREAM_WINDOW_BYTES } from "./receive-windows.ts";
import { MAX_HEADER_LIST_BYTES } from "./request-fields.ts";
import type { ConnectionFacts } from "./request-stream.ts";
import type { Sender } from "./sender.ts";
import type { Http2Stream } from "./stream.ts";

export interface ConnectionOptions {
  readonly facts: ConnectionFacts;
  readonly maxConcurrentStreams: number;
  readonly limits: LimitCounters;
  readonly nowMs: number;
  /** With its jitter; no limit when it is absent. */
  readonly age?: AgeLimit | undefined;
  /** Serves one request; what it throws ends the connection with INTERNAL_ERROR. */
  readonly onRequest: (stream: Http2Stream) => void;
  /** There is output to take. May be called many times before it is taken. */
  readonly wantFlush: () => void;
  /** A bug of ours showed in this connection. */
  readonly onBug: (error: unknown) => void;
}

export class Connection implements FrameSink {
  readonly streams: ConnectionStreams;
  readonly sender: Sender;
  readonly watch: ConnectionWatch;
  readonly #options: ConnectionOptions;
  readonly #budgets: ConnectionBudgets;
  readonly #parser: FrameParser;
  readonly #pings = new PingPolicy();
  #peerGone = false;
  #over = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#budgets = new ConnectionBudgets(options.limits);
    this.streams = new ConnectionStreams({
      ...options,
      budgets: this.#budgets,
      wantFlush: () => this.#wantFlush(),
      onIdle: () => this.#finishIfIdle(),
      onIdsRunOut: () => this.shutDown("stream ids run out", this.streams.nowMs),
    });
    this.streams.nowMs = options.nowMs;
    this.sender = this.streams.sender;
    this.#parser = new FrameParser(this);
    this.watch = new ConnectionWatch(options.nowMs, options.age);
    // F-4, C-2: SETTINGS first, and the connection's window in the same segment.
    writeSettings(this.sender.output, [
      [SettingId.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams],
      [SettingId.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
      [SettingId.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_BYTES],
      [SettingId.NO_RFC7540_PRIORITIES, 1],
    ]);
    this.streams.windows.open();
    this.#wantFlush();
  }

  /** Live streams and those whose work goes on. */
  get openStreams(): number {
    return this.streams.slots;
  }

  /** Nothing more will be received: the output is to be flushed and the socket closed. */
  get isOver(): boolean {
    return this.#over;
  }

  get wantsPause(): boolean {
    return this.streams.wantsPause;
  }

  /** Takes what a read brought; returns where it stopped: before `end` when the rest is to be given again later. */
  receive(octets: Uint8Array, start: number, end: number, nowMs: number): number {
    this.streams.nowMs = nowMs;
    this.watch.onOctets(nowMs);
    if (this.#over) return end;
    try {
      const at = this.#parser.consume(octets, start, end);
      this.streams.dispatchPending();
      this.watch.blockOpen(this.#parser.blockOpen, nowMs);
      return at;
    } catch (error) {
      this.#fail(error);
      return end;
    }
  }

  /** Puts DATA behind what is in the output already, and hands the whole out. */
  takeOutput(nowMs: number): readonly Uint8Array[] {
    this.streams.nowMs = nowMs;
    try {
      this.sender.pump(nowMs, false);
    } catch (error) {
      this.#fail(error);
    }
    return this.sender.output.take();
  }

  /** Does what the time asks for; to be called a few times a second. Returns true when the socket is to be destroyed. */
  tick(nowMs: number): boolean {
    this.streams.nowMs = nowMs;
    try {
      const due = this.watch.check(nowMs, this.streams.live, this.streams.settingsAcked);
      if (due === "silent" || due === "overdue") {
        this.#options.limits.count(due === "silent" ? "keepalive" : "connection_age_grace");
        return true;
      }
      if (due === "ping") this.#sendWatchPing();
      else if (due === "goaway") this.#finalGoaway();
      else if (due === "idle") this.shutDown("max_idle", nowMs);
      else if (due === "age") {
        this.#options.limits.count("connection_age");
        this.shutDown("max_age", nowMs);
      } else if (due !== undefined) throw due;
      if (this.watch.streamsDue(nowMs)) this.streams.check(this.watch);
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
    this.streams.abortAll();
  }

  // FrameSink

  onHeaders(frame: HeadersFrame, octets: Uint8Array, start: number, end: number): void {
    this.streams.onHeaders(frame, octets, start, end);
  }

  onDataBegin(streamId: number, flowBytes: number): void {
    this.streams.onDataBegin(streamId, flowBytes);
  }

  onDataChunk(streamId: number, octets: Uint8Array, start: number, end: number): void {
    this.streams.onDataChunk(streamId, octets, start, end);
  }

  onDataEnd(streamId: number, endStream: boolean, overheadBytes: number): void {
    this.streams.onDataEnd(streamId, endStream, overheadBytes);
  }

  onPriority(streamId: number, dependency: number): void {
    this.#budgets.chargePriority();
    // A connection error, since resetting an idle stream would be one of ours (F-32, A-10).
    if (dependency === streamId) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself");
  }

  onRstStream(streamId: number): void {
    this.streams.onRstStream(streamId);
  }

  onSettings(octets: Uint8Array, start: number, end: number): void {
    this.#budgets.charge(SETTINGS_BUDGET, this.streams.nowMs);
    readSettings(octets, start, end, (id, value) => this.#applySetting(id, value));
    this.watch.onSettings();
    writeSettingsAck(this.sender.output);
    this.#wantFlush();
  }

  onSettingsAck(): void {
    if (this.streams.settingsAcked)
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK without SETTINGS");
    this.streams.settingsAcked = true;
  }

  onPing(ack: boolean, octets: Uint8Array, start: number): void {
    if (ack) {
      if (this.watch.onPingAck(octets, start)) this.#finalGoaway();
      return;
    }
    if (this.sender.sentSincePing) this.#budgets.refundPing();
    this.#budgets.chargePing(this.streams.nowMs);
    this.#pings.onPing(this.streams.nowMs, this.sender.sentSincePing, this.#options.limits);
    this.sender.sentSincePing = false;
    writePing(this.sender.output, Flag.ACK, { octets, start });
    this.#wantFlush();
  }

  onGoaway(): void {
    this.watch.peerIsLeaving = true;
    this.#finishIfIdle();
  }

  onWindowUpdate(streamId: number, incrementBytes: number): void {
    this.streams.onWindowUpdate(streamId, incrementBytes);
  }

  onUnknownFrame(): void {
    this.#budgets.charge(GLITCH_BUDGET, this.streams.nowMs);
  }

  #applySetting(id: number, value: number): void {
    if (id === SettingId.INITIAL_WINDOW_SIZE) this.streams.changeInitialWindow(value);
    else if (id === SettingId.MAX_FRAME_SIZE) this.sender.maxFrameBytes = value;
    else if (id === SettingId.MAX_HEADER_LIST_SIZE) this.streams.peerMaxHeaderListBytes = value;
    else if (id === SettingId.HEADER_TABLE_SIZE && value < MAX_TABLE_BYTES) this.sender.announceEmptyTable();
  }

  #sendWatchPing(): void {
    writePing(this.sender.output, 0, { octets: this.watch.newPing(this.streams.nowMs), start: 0 });
    this.#wantFlush();
  }

  #finalGoaway(): void {
    if (this.#over || this.streams.acceptedUpToId !== MAX_STREAM_ID) return;
    this.streams.acceptedUpToId = this.streams.lastId;
    writeGoaway(this.sender.output, { lastStreamId: this.streams.lastId, code: ErrorCode.NO_ERROR, debug: "" });
    this.#wantFlush();
    this.#finishIfIdle();
  }

  #finishIfIdle(): void {
    if (this.#over || this.streams.slots > 0) return;
    const drained = this.watch.isDraining && this.streams.acceptedUpToId !== MAX_STREAM_ID;
    if (!drained && !this.watch.peerIsLeaving) return;
    this.#over = true;
    this.#wantFlush();
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    const known = error instanceof ConnectionError;
    if (!known) this.#options.onBug(error);
    const code = known ? error.code : ErrorCode.INTERNAL_ERROR;
    this.#options.limits.count(`connection_error_${code}`);
    const debug = known ? error.message : "internal error";
    writeGoaway(this.sender.output, { lastStreamId: this.streams.lastDispatchedId, code, debug });
    this.streams.abortAll();
    this.#options.wantFlush();
  }

  #wantFlush(): void {
    if (!this.#peerGone) this.#options.wantFlush();
  }
}
