// gRPC calls on raw HTTP/2 frames: the client that measures, made to cost less than what it measures.
//
// Invariant: requests and responses are never confused (stream ids), both windows of the server are respected, and a
// call ends exactly once: with its grpc-status, or with UNAVAILABLE when the stream or the connection broke. Response
// messages are counted, and kept only on request. Uses src/http2's HPACK decoder and frame constants. Source: RFC 9113.

import type { Socket } from "node:net";
import { Code } from "../../src/base/status.ts";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { connectTo, type Target } from "../client/target.ts";
import {
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  Flag,
  FRAME_HEADER_BYTES,
  FrameType,
  SettingId,
} from "../../src/http2/frame.ts";
import { frame, setting, windowUpdate } from "./raw-frames.ts";
import { RequestHeaderEncoder } from "./request-headers.ts";

/** A call that is ready to be sent, many times. */
export interface PreparedCall {
  readonly path: string;
  /** The framed messages, one after the other. */
  readonly body: readonly Uint8Array[];
  /** A code that is a right answer beside OK, such as NOT_FOUND for a miss. */
  readonly accepts?: number;
  /** An answer with fewer bytes is none, whatever its status says. */
  readonly leastBytes?: number;
}

export interface CallResult {
  readonly code: number;
  /** Payload of the response's DATA frames, prefixes included. */
  readonly receivedBytes: number;
  readonly body: Buffer | undefined;
  /** The server's words when it failed. */
  readonly message?: string | undefined;
}

interface Pending {
  readonly onDone: (result: CallResult) => void;
  readonly kept: Buffer[] | undefined;
  readonly body: readonly Uint8Array[];
  receivedBytes: number;
  code: number;
  message: string | undefined;
  /** What of the body is sent: whole parts, and octets of the next one. */
  sentParts: number;
  sentOfPart: number;
  windowBytes: number;
}

const WINDOW_BYTES = 16 * 1024 * 1024;
/** Given back when this much was consumed: a WINDOW_UPDATE per 4 MiB. */
const CREDIT_STEP_BYTES = 4 * 1024 * 1024;
/** Frames are gathered in pages of this size; what does not fit well is written by itself, without a copy. */
const PAGE_BYTES = 64 * 1024;
const COPIED_BYTES = 8 * 1024;

const NOTHING = Buffer.alloc(0);
/** The error code of a stream that is not wanted any more. */
const CANCEL = Buffer.of(0, 0, 0, 8);

/** The payload of a frame, where it was received. */
interface Payload {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

export class RawConnection {
  readonly #socket: Socket;
  readonly #encoder: RequestHeaderEncoder;
  readonly #decoder = new HpackDecoder();
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #leftover: Buffer = NOTHING;
  #sendWindowBytes = DEFAULT_WINDOW_BYTES;
  #initialWindowBytes = DEFAULT_WINDOW_BYTES;
  #maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  #owedBytes = 0;
  readonly #blocked = new Set<number>();
  #page: Buffer = Buffer.allocUnsafeSlow(PAGE_BYTES);
  /** Octets of the page that were written, and that are filled. */
  #pageWritten = 0;
  #pageEnd = 0;
  #flushAwaited = false;
  #closed: string | undefined;
  #spokeHttp2 = false;
  /** A DATA frame that is not complete: octets to come, and whose they are. */
  #dataLeft = 0;
  #dataId = 0;
  #dataFlags = 0;
  /** Of the block that is being decoded. */
  #status = -1;
  #message: string | undefined;

  private constructor(socket: Socket, target: Target) {
    this.#socket = socket;
    this.#encoder = new RequestHeaderEncoder(target.authority, target.tls ? "https" : "http");
    socket.on("data", (chunk: Buffer) => this.#onBytes(chunk));
    socket.on("error", (error) => this.#fail(`the connection broke: ${error.message}`));
    socket.on("close", () => this.#fail("the server closed the connection"));
    const settings = frame(FrameType.SETTINGS, 0, 0, [
      setting(SettingId.ENABLE_PUSH, 0),
      setting(SettingId.INITIAL_WINDOW_SIZE, WINDOW_BYTES),
      setting(SettingId.MAX_FRAME_SIZE, 1024 * 1024),
    ]);
    socket.write(Buffer.concat([CLIENT_PREFACE, settings, windowUpdate(0, WINDOW_BYTES - DEFAULT_WINDOW_BYTES)]));
  }

  static async open(target: Target): Promise<RawConnection> {
    return new RawConnection(await connectTo(target, 5000), target);
  }

  get failure(): string | undefined {
    return this.#closed;
  }

  close(): void {
    this.#closed ??= "closed";
    this.#socket.destroy();
  }

  /** Sends a call. `onDone` is called exactly once, never before this returns. */
  call(prepared: PreparedCall, onDone: (result: CallResult) => void, keepBody = false): void {
    if (this.#closed !== undefined) {
      setImmediate(onDone, { code: Code.UNAVAILABLE, receivedBytes: 0, body: undefined });
      return;
    }
    const id = this.#nextId;
    this.#nextId += 2;
    const pending: Pending = {
      onDone,
      kept: keepBody ? [] : undefined,
      body: prepared.body,
      receivedBytes: 0,
      code: Code.UNAVAILABLE,
      message: undefined,
      sentParts: 0,
      sentOfPart: 0,
      windowBytes: this.#initialWindowBytes,
    };
    this.#pending.set(id, pending);
    const fields = this.#encoder.encode(prepared.path);
    this.#putHeader(FrameType.HEADERS, Flag.END_HEADERS, id, fields.length);
    this.#put(fields);
    this.#sendBody(id, pending);
    // Calls that begin in one turn of the loop go out in one write, at its end.
    this.#flushSoon();
  }

  async callOnce(prepared: PreparedCall): Promise<CallResult> {
    return await new Promise((resolve) => this.call(prepared, resolve, true));
  }

  #sendBody(id: number, pending: Pending): void {
    const { body } = pending;
    while (pending.sentParts < body.length) {
      const part = body[pending.sentParts]!;
      const leftBytes = part.length - pending.sentOfPart;
      const room = Math.min(pending.windowBytes, this.#sendWindowBytes, this.#maxFrameBytes);
      if (room <= 0 && leftBytes > 0) return void this.#blocked.add(id);
      const size = Math.min(room, leftBytes);
      const endsPart = size === leftBytes;
      const isLast = endsPart && pending.sentParts === body.length - 1;
      pending.windowBytes -= size;
      this.#sendWindowBytes -= size;
      this.#putHeader(FrameType.DATA, isLast ? Flag.END_STREAM : 0, id, size);
      if (size > 0)
        this.#put(size === part.length ? part : part.subarray(pending.sentOfPart, pending.sentOfPart + size));
      pending.sentOfPart = endsPart ? 0 : pending.sentOfPart + size;
      if (endsPart) pending.sentParts++;
    }
  }

  #unblock(): void {
    const ids = [...this.#blocked];
    this.#blocked.clear();
    for (const id of ids) {
      const pending = this.#pending.get(id);
      if (pending !== undefined) this.#sendBody(id, pending);
    }
  }

  #putHeader(type: number, flags: number, id: number, size: number): void {
    if (this.#pageEnd + FRAME_HEADER_BYTES > PAGE_BYTES) this.#nextPage();
    const page = this.#page;
    let at = this.#pageEnd;
    page[at++] = size >>> 16;
    page[at++] = size >>> 8;
    page[at++] = size;
    page[at++] = type;
    page[at++] = flags;
    page[at++] = id >>> 24;
    page[at++] = id >>> 16;
    page[at++] = id >>> 8;
    page[at++] = id;
    this.#pageEnd = at;
  }

  #put(octets: Uint8Array): void {
    if (octets.length > COPIED_BYTES) {
      this.#writePage();
      this.#socket.write(octets);
      return;
    }
    if (this.#pageEnd + octets.length > PAGE_BYTES) this.#nextPage();
    this.#page.set(octets, this.#pageEnd);
    this.#pageEnd += octets.length;
  }

  #flushSoon(): void {
    if (this.#flushAwaited) return;
    this.#flushAwaited = true;
    this.#socket.cork();
    queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    this.#writePage();
    this.#flushAwaited = false;
    this.#socket.uncork();
  }

  /** The socket borrows what is written: a page is filled once, and left to it. */
  #writePage(): void {
    if (this.#pageEnd > this.#pageWritten) this.#socket.write(this.#page.subarray(this.#pageWritten, this.#pageEnd));
    this.#pageWritten = this.#pageEnd;
  }

  #nextPage(): void {
    this.#writePage();
    this.#page = Buffer.allocUnsafeSlow(PAGE_BYTES);
    this.#pageWritten = 0;
    this.#pageEnd = 0;
  }

  #onBytes(chunk: Buffer): void {
    const bytes = this.#leftover.length === 0 ? chunk : Buffer.concat([this.#leftover, chunk]);
    let at = 0;
    if (!this.#spokeHttp2 && !this.#checkGreeting(bytes)) return;
    this.#flushSoon();
    for (;;) {
      if (this.#dataLeft > 0) at += this.#onDataPart(bytes, at);
      if (at + FRAME_HEADER_BYTES > bytes.length) break;
      const end = at + FRAME_HEADER_BYTES + ((bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!);
      const id = bytes.readUInt32BE(at + 5) & 0x7fffffff;
      const flags = bytes[at + 4]!;
      // Large frames come in many reads: putting them together first would copy what nobody keeps.
      if (bytes.length < end && bytes[at + 3] === FrameType.DATA && (flags & Flag.PADDED) === 0) {
        this.#dataLeft = end - at - FRAME_HEADER_BYTES;
        this.#dataId = id;
        this.#dataFlags = flags;
        at += FRAME_HEADER_BYTES;
        continue;
      }
      if (bytes.length < end) break;
      this.#onFrame(bytes[at + 3]!, flags, id, { bytes, start: at + FRAME_HEADER_BYTES, end });
      at = end;
    }
    this.#leftover = at === bytes.length ? NOTHING : bytes.subarray(at);
  }

  /** Part of a DATA frame; returns how many octets it took. */
  #onDataPart(bytes: Buffer, start: number): number {
    const size = Math.min(this.#dataLeft, bytes.length - start);
    this.#dataLeft -= size;
    const flags = this.#dataLeft === 0 ? this.#dataFlags : 0;
    this.#onData(this.#dataId, flags, { bytes, start, end: start + size });
    return size;
  }

  /** The server's first frame is SETTINGS; what else servers say when they expected something else is well known. */
  #checkGreeting(bytes: Buffer): boolean {
    this.#leftover = bytes;
    if (bytes.length < FRAME_HEADER_BYTES) return false;
    this.#spokeHttp2 = bytes[3] === FrameType.SETTINGS && bytes.readUInt32BE(5) === 0;
    if (this.#spokeHttp2) return true;
    if (bytes[0] === 0x15 && bytes[1] === 3)
      this.#fail("it answers with a TLS alert; try grpcs:// in place of grpc://");
    else if (bytes.toString("latin1", 0, 5) === "HTTP/") this.#fail("it answers HTTP/1.1, not HTTP/2");
    else this.#fail("what it answers is not HTTP/2");
    return false;
  }

  #onFrame(type: number, flags: number, id: number, payload: Payload): void {
    if (type === FrameType.DATA) return this.#onData(id, flags, payload);
    if (type === FrameType.HEADERS) return this.#onHeaders(id, flags, payload);
    this.#onControlFrame(type, flags, id, payload.bytes.subarray(payload.start, payload.end));
  }

  #onControlFrame(type: number, flags: number, id: number, payload: Buffer): void {
    switch (type) {
      case FrameType.SETTINGS:
        return this.#onSettings(flags, payload);
      case FrameType.WINDOW_UPDATE:
        return this.#onWindowUpdate(id, payload.readUInt32BE(0) & 0x7fffffff);
      case FrameType.PING:
        if ((flags & Flag.ACK) === 0) this.#put(frame(FrameType.PING, Flag.ACK, 0, [payload]));
        return;
      case FrameType.RST_STREAM:
        return this.#finish(id);
      case FrameType.GOAWAY:
        this.#closed ??= `the server ended the connection (GOAWAY ${payload.readUInt32BE(4)} ${payload.subarray(8).toString()})`;
        return;
      case FrameType.CONTINUATION:
        return this.#fail("a CONTINUATION frame; responses of that size are not measured");
      default:
        return;
    }
  }

  #onData(id: number, flags: number, { bytes, start, end }: Payload): void {
    const pending = this.#pending.get(id);
    const size = end - start;
    this.#owedBytes += size;
    if (this.#owedBytes >= CREDIT_STEP_BYTES) {
      this.#put(windowUpdate(0, this.#owedBytes));
      this.#owedBytes = 0;
    }
    if (pending === undefined) return;
    const before = Math.floor(pending.receivedBytes / CREDIT_STEP_BYTES);
    pending.receivedBytes += size;
    if (pending.kept !== undefined) {
      const padding = (flags & Flag.PADDED) === 0 ? 0 : bytes[start]!;
      pending.kept.push(Buffer.from(bytes.subarray((flags & Flag.PADDED) === 0 ? start : start + 1, end - padding)));
    }
    if (Math.floor(pending.receivedBytes / CREDIT_STEP_BYTES) > before) this.#put(windowUpdate(id, CREDIT_STEP_BYTES));
    if ((flags & Flag.END_STREAM) !== 0) this.#finish(id);
  }

  #onHeaders(id: number, flags: number, { bytes, start, end }: Payload): void {
    const padding = (flags & Flag.PADDED) === 0 ? 0 : bytes[start]!;
    const skipped = ((flags & Flag.PADDED) === 0 ? 0 : 1) + ((flags & Flag.PRIORITY) === 0 ? 0 : 5);
    this.#status = -1;
    this.#message = undefined;
    this.#decoder.decode(bytes, start + skipped, end - padding, this);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (this.#status >= 0) pending.code = this.#status;
    if (this.#message !== undefined) pending.message = this.#message;
    if ((flags & Flag.END_STREAM) !== 0) this.#finish(id);
  }

  /** Called by the HPACK decoder. */
  onField(name: string, value: string): void {
    if (name === "grpc-status") this.#status = Number(value);
    else if (name === "grpc-message") this.#message = value;
  }

  #onSettings(flags: number, payload: Buffer): void {
    if ((flags & Flag.ACK) !== 0) return;
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const id = payload.readUInt16BE(at);
      const value = payload.readUInt32BE(at + 2);
      if (id === SettingId.MAX_FRAME_SIZE) this.#maxFrameBytes = Math.min(value, 65_536);
      if (id === SettingId.INITIAL_WINDOW_SIZE) {
        for (const pending of this.#pending.values()) pending.windowBytes += value - this.#initialWindowBytes;
        this.#initialWindowBytes = value;
      }
    }
    this.#put(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
    this.#unblock();
  }

  #onWindowUpdate(id: number, increment: number): void {
    if (id === 0) this.#sendWindowBytes += increment;
    else {
      const pending = this.#pending.get(id);
      if (pending !== undefined) pending.windowBytes += increment;
    }
    this.#unblock();
  }

  #finish(id: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    const body = pending.kept === undefined ? undefined : Buffer.concat(pending.kept);
    // A server may answer before it has the whole request; what is left of it must not go out on a closed stream.
    if (pending.sentParts < pending.body.length) {
      this.#blocked.delete(id);
      if (!this.#socket.destroyed) this.#put(frame(FrameType.RST_STREAM, 0, id, [CANCEL]));
    }
    pending.onDone({ code: pending.code, receivedBytes: pending.receivedBytes, body, message: pending.message });
  }

  #fail(reason: string): void {
    this.#closed ??= reason;
    this.#socket.destroy();
    for (const id of this.#pending.keys()) this.#finish(id);
  }
}
