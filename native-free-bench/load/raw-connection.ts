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
import { RequestHeaderEncoder } from "./request-headers.ts";

/** A call that is ready to be sent, many times. */
export interface PreparedCall {
  readonly path: string;
  /** The framed messages, one after the other. */
  readonly body: readonly Uint8Array[];
  /** A code that is a right answer beside OK, such as NOT_FOUND for a miss. */
  readonly accepts?: number;
}

export interface CallResult {
  readonly code: number;
  /** Payload of the response's DATA frames, prefixes included. */
  readonly receivedBytes: number;
  readonly body: Buffer | undefined;
}

interface Pending {
  readonly onDone: (result: CallResult) => void;
  readonly kept: Buffer[] | undefined;
  receivedBytes: number;
  code: number;
  /** Body that waits for credit. */
  unsent: Uint8Array[];
  windowBytes: number;
}

const WINDOW_BYTES = 16 * 1024 * 1024;
/** Given back when this much was consumed: a WINDOW_UPDATE per 4 MiB. */
const CREDIT_STEP_BYTES = 4 * 1024 * 1024;

export class RawConnection {
  readonly #socket: Socket;
  readonly #encoder: RequestHeaderEncoder;
  readonly #decoder = new HpackDecoder();
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #leftover: Buffer = Buffer.alloc(0);
  #sendWindowBytes = DEFAULT_WINDOW_BYTES;
  #initialWindowBytes = DEFAULT_WINDOW_BYTES;
  #maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  #owedBytes = 0;
  #blocked: number[] = [];
  #corked = false;
  #closed: string | undefined;
  #status = Code.UNKNOWN as number;

  private constructor(socket: Socket, target: Target) {
    this.#socket = socket;
    this.#encoder = new RequestHeaderEncoder(target.authority, target.tls ? "https" : "http");
    socket.on("data", (chunk: Buffer) => this.#onBytes(chunk));
    socket.on("error", (error) => this.#fail(error.message));
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
      receivedBytes: 0,
      code: Code.UNAVAILABLE,
      unsent: [...prepared.body],
      windowBytes: this.#initialWindowBytes,
    };
    this.#pending.set(id, pending);
    // Calls that begin in one turn of the loop go out in one write.
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      setImmediate(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(frame(FrameType.HEADERS, Flag.END_HEADERS, id, [this.#encoder.encode(prepared.path)]));
    this.#sendBody(id, pending);
  }

  async callOnce(prepared: PreparedCall): Promise<CallResult> {
    return await new Promise((resolve) => this.call(prepared, resolve, true));
  }

  #sendBody(id: number, pending: Pending): void {
    while (pending.unsent.length > 0) {
      const part = pending.unsent[0]!;
      const room = Math.min(pending.windowBytes, this.#sendWindowBytes, this.#maxFrameBytes);
      if (room <= 0 && part.length > 0) {
        if (!this.#blocked.includes(id)) this.#blocked.push(id);
        return;
      }
      const size = Math.min(room, part.length);
      const isLast = size === part.length && pending.unsent.length === 1;
      pending.windowBytes -= size;
      this.#sendWindowBytes -= size;
      this.#socket.write(frameHeader(FrameType.DATA, isLast ? Flag.END_STREAM : 0, id, size));
      if (size > 0) this.#socket.write(size === part.length ? part : part.subarray(0, size));
      if (size === part.length) pending.unsent.shift();
      else pending.unsent[0] = part.subarray(size);
    }
  }

  #unblock(): void {
    for (const id of this.#blocked.splice(0)) {
      const pending = this.#pending.get(id);
      if (pending !== undefined) this.#sendBody(id, pending);
    }
  }

  #onBytes(chunk: Buffer): void {
    let bytes = this.#leftover.length === 0 ? chunk : Buffer.concat([this.#leftover, chunk]);
    for (;;) {
      if (bytes.length < FRAME_HEADER_BYTES) break;
      const size = bytes.readUIntBE(0, 3);
      const end = FRAME_HEADER_BYTES + size;
      if (bytes.length < end) break;
      this.#onFrame(bytes[3]!, bytes[4]!, bytes.readUInt32BE(5) & 0x7fffffff, bytes.subarray(FRAME_HEADER_BYTES, end));
      bytes = bytes.subarray(end);
    }
    this.#leftover = bytes;
  }

  #onFrame(type: number, flags: number, id: number, payload: Buffer): void {
    switch (type) {
      case FrameType.DATA:
        return this.#onData(id, flags, payload);
      case FrameType.HEADERS:
        return this.#onHeaders(id, flags, payload);
      case FrameType.SETTINGS:
        return this.#onSettings(flags, payload);
      case FrameType.WINDOW_UPDATE:
        return this.#onWindowUpdate(id, payload.readUInt32BE(0) & 0x7fffffff);
      case FrameType.PING:
        if ((flags & Flag.ACK) === 0) this.#socket.write(frame(FrameType.PING, Flag.ACK, 0, [payload]));
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

  #onData(id: number, flags: number, payload: Buffer): void {
    const pending = this.#pending.get(id);
    this.#owedBytes += payload.length;
    if (this.#owedBytes >= CREDIT_STEP_BYTES) {
      this.#socket.write(windowUpdate(0, this.#owedBytes));
      this.#owedBytes = 0;
    }
    if (pending === undefined) return;
    const before = Math.floor(pending.receivedBytes / CREDIT_STEP_BYTES);
    pending.receivedBytes += payload.length;
    pending.kept?.push(Buffer.from(payload));
    if (Math.floor(pending.receivedBytes / CREDIT_STEP_BYTES) > before)
      this.#socket.write(windowUpdate(id, CREDIT_STEP_BYTES));
    if ((flags & Flag.END_STREAM) !== 0) this.#finish(id);
  }

  #onHeaders(id: number, flags: number, payload: Buffer): void {
    const padding = (flags & Flag.PADDED) === 0 ? 0 : payload[0]!;
    const start = ((flags & Flag.PADDED) === 0 ? 0 : 1) + ((flags & Flag.PRIORITY) === 0 ? 0 : 5);
    this.#status = -1;
    this.#decoder.decode(payload, start, payload.length - padding, this);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (this.#status >= 0) pending.code = this.#status;
    if ((flags & Flag.END_STREAM) !== 0) this.#finish(id);
  }

  /** Called by the HPACK decoder. */
  onField(name: string, value: string): void {
    if (name === "grpc-status") this.#status = Number(value);
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
    this.#socket.write(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
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
    if (pending.unsent.length > 0) {
      pending.unsent = [];
      this.#socket.write(frame(FrameType.RST_STREAM, 0, id, [Buffer.from([0, 0, 0, 8])]));
    }
    pending.onDone({ code: pending.code, receivedBytes: pending.receivedBytes, body });
  }

  #fail(reason: string): void {
    this.#closed ??= reason;
    this.#socket.destroy();
    for (const id of this.#pending.keys()) this.#finish(id);
  }
}

function frameHeader(type: number, flags: number, id: number, size: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  header.writeUIntBE(size, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(id, 5);
  return header;
}

export function frame(type: number, flags: number, id: number, payload: readonly Uint8Array[]): Buffer {
  const size = payload.reduce((sum, { length }) => sum + length, 0);
  return Buffer.concat([frameHeader(type, flags, id, size), ...payload]);
}

export function setting(id: number, value: number): Buffer {
  const bytes = Buffer.allocUnsafe(6);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt32BE(value, 2);
  return bytes;
}

function windowUpdate(id: number, increment: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(increment, 0);
  return frame(FrameType.WINDOW_UPDATE, 0, id, [bytes]);
}
