// A client without a socket: octets go straight into a Connection, whose time and output the test holds.

import { LimitCounters } from "../../src/http2/budgets.ts";
import { Connection } from "../../src/http2/connection.ts";
import type { AgeLimit } from "../../src/http2/connection-watch.ts";
import { HeaderBlock } from "../../src/http2/header-block.ts";
import type { RequestReceiver, RequestStream } from "../../src/http2/request-stream.ts";
import type { Http2Stream } from "../../src/http2/stream.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { describeFrame, readFrames, settings, settingsAck, type Frame } from "./frames.ts";

export interface MemoryPeerOptions {
  readonly maxConcurrentStreams?: number;
  readonly age?: AgeLimit;
  /** Default: `echo`. */
  readonly onRequest?: (stream: RequestStream) => void;
  /** Sends SETTINGS and takes ours; default true. */
  readonly handshake?: boolean;
}

export class MemoryPeer {
  readonly connection: Connection;
  readonly metrics = new MetricsRegistry();
  readonly bugs: unknown[] = [];
  readonly requests: Http2Stream[] = [];
  nowMs = 1000;
  flushWanted = 0;
  #unread: Frame[] = [];
  #partial: Buffer = Buffer.alloc(0);

  constructor(options: MemoryPeerOptions = {}) {
    const onRequest = options.onRequest ?? echo;
    this.connection = new Connection({
      facts: { id: 1, peer: "memory:", clientCertificate: undefined },
      maxConcurrentStreams: options.maxConcurrentStreams ?? 100,
      limits: new LimitCounters(this.metrics),
      nowMs: this.nowMs,
      age: options.age,
      onRequest: (stream) => {
        this.requests.push(stream);
        onRequest(stream);
      },
      wantFlush: () => void this.flushWanted++,
      onBug: (error) => this.bugs.push(error),
    });
    if (options.handshake === false) return;
    this.send(settings(), settingsAck());
    this.frames();
  }

  /** Gives octets to the connection as one read; goes on when it pauses. */
  send(...parts: readonly Uint8Array[]): void {
    const octets = Buffer.concat(parts);
    let at = 0;
    while (at < octets.length) {
      const next = this.connection.receive(octets, at, octets.length, this.nowMs);
      this.#collect();
      if (next === at) throw new Error("the connection does not go on");
      at = next;
    }
  }

  /** Gives each octet as a read of its own. */
  sendSlowly(...parts: readonly Uint8Array[]): void {
    for (const octet of Buffer.concat(parts)) this.send(Uint8Array.of(octet));
  }

  advance(ms: number): boolean {
    let destroyed = false;
    for (let rest = ms; rest > 0 && !destroyed; rest -= 500) {
      this.nowMs += Math.min(500, rest);
      destroyed = this.connection.tick(this.nowMs);
      this.#collect();
    }
    return destroyed;
  }

  /** What the connection sent since the last call. */
  frames(): Frame[] {
    this.#collect();
    return this.#unread.splice(0);
  }

  /** The same as text. */
  lines(): string[] {
    return this.frames().map(describeFrame);
  }

  counted(limit: string): number {
    return this.metrics.samples().find((sample) => sample.labels["limit"] === limit)?.value ?? 0;
  }

  #collect(): void {
    for (;;) {
      const pieces = this.connection.takeOutput(this.nowMs);
      if (pieces.length === 0) return;
      const { frames, rest } = readFrames(Buffer.concat([this.#partial, ...pieces]));
      this.#unread.push(...frames);
      this.#partial = rest;
    }
  }
}

const OK_HEAD = new HeaderBlock([[":status", "200"]]);

/** Answers with the body it got, when the request has ended. */
export function echo(stream: RequestStream): void {
  const chunks: Uint8Array[] = [];
  const receiver: RequestReceiver = {
    onData(chunk) {
      chunks.push(chunk.slice());
      stream.credit(chunk.length);
    },
    onEnd() {
      stream.respond(OK_HEAD, { body: Buffer.concat(chunks) });
      stream.release();
    },
    onAbort: () => stream.release(),
  };
  stream.attach(receiver);
}

/** Answers with `sizeBytes` at once, whatever comes. */
export function respondWith(sizeBytes: number): (stream: RequestStream) => void {
  return (stream) => {
    stream.attach({
      onData: (chunk) => stream.credit(chunk.length),
      onEnd: () => undefined,
      onAbort: () => stream.release(),
    });
    stream.respond(OK_HEAD, { body: Buffer.alloc(sizeBytes, "d") });
    stream.release();
  };
}

/** Takes requests and never answers; their slots stay taken. */
export function hang(stream: RequestStream): void {
  stream.attach({ onData: () => undefined, onEnd: () => undefined, onAbort: () => undefined });
}

/** Takes the body as it comes, and never answers. */
export function consume(stream: RequestStream): void {
  stream.attach({
    onData: (chunk) => stream.credit(chunk.length),
    onEnd: () => undefined,
    onAbort: () => stream.release(),
  });
}
