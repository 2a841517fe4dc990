// One HTTP/2 connection of the load: opens, answers what keeps it alive, and leaves streams to its user.
//
// Invariant: reads go into one buffer that all connections share, and output leaves once per turn; so the generator
// costs a fraction of what it measures. The server's windows are kept for uploads only: small calls never fill them.

import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { DEFAULT_WINDOW_BYTES, Flag, FrameType, MAX_WINDOW_BYTES, SettingId } from "../../src/http2/frame.ts";
import { frame, setting, windowUpdate } from "../load/raw-frames.ts";
import { FrameReader } from "./frame-reader.ts";

export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** PEM of the server's certificate; undefined is cleartext. */
  readonly certificate?: Buffer | undefined;
}

/** What happens on streams. Payloads are valid during the call only. */
export interface StreamEvents {
  onData(streamId: number, sizeBytes: number, flags: number): void;
  onHeaders(streamId: number, flags: number, payload: Uint8Array): void;
  /** RST_STREAM, GOAWAY or the connection's end. */
  onBroken(reason: string): void;
  /** After a read, when all its frames have been told. */
  onReadEnd(): void;
  onWindow?(streamId: number, incrementBytes: number): void;
  onInitialWindow?(sizeBytes: number): void;
}

/** 1 MiB: fewer reads, 0.13 CPU seconds a gigabyte instead of 0.23 with 64 KiB. */
const readBuffer = Buffer.allocUnsafeSlow(1024 * 1024);

/** What gRPC clients that read large blobs advertise, give or take a factor of four. */
const STREAM_WINDOW_BYTES = 16 * 1024 * 1024;

export function openSocket(endpoint: Endpoint, onRead: (octets: Uint8Array, count: number) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { host, port, certificate } = endpoint;
    let socket: Socket;
    if (certificate === undefined) {
      const callback = (count: number): boolean => {
        onRead(readBuffer, count);
        return true;
      };
      socket = connectTcp({ host, port, noDelay: true, onread: { buffer: readBuffer, callback } });
      socket.once("connect", () => resolve(socket));
    } else {
      socket = connectTls({ host, port, ca: certificate, ALPNProtocols: ["h2"], minVersion: "TLSv1.3" });
      socket.once("secureConnect", () => resolve(socket));
      socket.on("data", (chunk: Buffer) => onRead(chunk, chunk.length));
    }
    socket.setNoDelay(true);
    socket.once("error", reject);
  });
}

export class LoadConnection {
  readonly events: StreamEvents;
  #socket: Socket | undefined;
  #nextStreamId = 1;
  #unackedBytes = 0;
  #closed = false;

  private constructor(events: StreamEvents) {
    this.events = events;
  }

  static async open(endpoint: Endpoint, events: StreamEvents): Promise<LoadConnection> {
    const connection = new LoadConnection(events);
    const reader = new FrameReader(connection);
    const socket = await openSocket(endpoint, (octets, count) => {
      reader.push(octets, count);
      events.onReadEnd();
    });
    connection.#socket = socket;
    socket.on("error", (error) => connection.#break(error.message));
    socket.on("close", () => connection.#break("the server closed the connection"));
    const settings = frame(FrameType.SETTINGS, 0, 0, [
      setting(SettingId.ENABLE_PUSH, 0),
      setting(SettingId.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
    ]);
    const window = windowUpdate(0, MAX_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
    socket.write(Buffer.concat([CLIENT_PREFACE, settings, window]));
    return connection;
  }

  get socket(): Socket {
    if (this.#socket === undefined) throw new Error("the server spoke before the connection was open");
    return this.#socket;
  }

  nextStreamId(): number {
    const id = this.#nextStreamId;
    this.#nextStreamId += 2;
    return id;
  }

  /** Gives a stream more to send. */
  credit(streamId: number, sizeBytes: number): void {
    this.socket.write(windowUpdate(streamId, sizeBytes));
  }

  close(): void {
    this.#closed = true;
    this.#socket?.destroy();
  }

  onData(streamId: number, sizeBytes: number, flags: number): void {
    this.#unackedBytes += sizeBytes;
    if (this.#unackedBytes >= STREAM_WINDOW_BYTES) {
      this.credit(0, this.#unackedBytes);
      this.#unackedBytes = 0;
    }
    this.events.onData(streamId, sizeBytes, flags);
  }

  onFrame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    switch (type) {
      case FrameType.HEADERS:
        this.events.onHeaders(streamId, flags, payload);
        return;
      case FrameType.SETTINGS:
        if ((flags & Flag.ACK) !== 0) return;
        this.#onSettings(payload);
        this.socket.write(frame(FrameType.SETTINGS, Flag.ACK, 0, []));
        return;
      case FrameType.PING:
        if ((flags & Flag.ACK) === 0) this.socket.write(frame(FrameType.PING, Flag.ACK, 0, [payload]));
        return;
      case FrameType.WINDOW_UPDATE:
        this.events.onWindow?.(streamId, readUint32(payload, 0));
        return;
      case FrameType.RST_STREAM:
        // NO_ERROR follows an answer that came before the request had ended.
        if (readUint32(payload, 0) !== 0) this.#break(`RST_STREAM ${readUint32(payload, 0)} on stream ${streamId}`);
        return;
      case FrameType.GOAWAY:
        this.#break(`GOAWAY ${readUint32(payload, 4)} ${Buffer.from(payload.subarray(8)).toString("latin1")}`);
        return;
      default:
        return;
    }
  }

  #onSettings(payload: Uint8Array): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const id = (payload[at]! << 8) | payload[at + 1]!;
      if (id === SettingId.INITIAL_WINDOW_SIZE) this.events.onInitialWindow?.(readUint32(payload, at + 2));
    }
  }

  #break(reason: string): void {
    if (this.#closed) return;
    this.close();
    this.events.onBroken(reason);
  }
}

function readUint32(octets: Uint8Array, at: number): number {
  return ((octets[at]! << 24) | (octets[at + 1]! << 16) | (octets[at + 2]! << 8) | octets[at + 3]!) >>> 0;
}
