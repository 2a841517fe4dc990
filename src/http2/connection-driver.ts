// Drives one connection: a socket's octets in, the connection's output out, and the end of both.
//
// Invariants: output leaves once per read batch, or once per tick when work ends later (P-20); while the kernel does not
// take it, nothing more is made, and reading stops when even control frames pile up (L-6); after an error of the
// connection the GOAWAY is flushed and the input drained for a while, since closing with unread input would destroy it (F-92).

import { copyOctets } from "../base/copy-octets.ts";
import type { Socket } from "node:net";
import type { Connection } from "./connection.ts";

/** Output that waits while the kernel takes none; above it reading stops (L-6). */
const MAX_WAITING_BYTES = 256 * 1024;
/** Rounds of DATA per flush, before others get their turn. */
const MAX_ROUNDS = 8;
const LINGER_MS = 1000;

export interface DriverOptions {
  readonly socket: Socket;
  readonly connection: Connection;
  /** The socket has closed and everything is released; called once. */
  readonly onClosed: () => void;
}

export class ConnectionDriver {
  readonly connection: Connection;
  readonly #socket: Socket;
  readonly #onClosed: () => void;
  #flushScheduled = false;
  /** The kernel has not taken the last output. */
  #blocked = false;
  #blockedSinceMs = 0;
  #reading = false;
  #readingPaused = false;
  /** Octets that were read when the connection wanted a pause. */
  #rest: Uint8Array | undefined;
  #ending = false;
  #closed = false;

  constructor(options: DriverOptions) {
    this.connection = options.connection;
    this.#socket = options.socket;
    this.#onClosed = options.onClosed;
    this.#socket.on("drain", () => this.#onDrain());
    this.#socket.on("end", () => this.#onEnd());
    this.#socket.on("error", () => this.#socket.destroy());
    this.#socket.on("close", () => this.#close());
  }

  /** Takes a read; returns false when reading is to stop. */
  onRead(octets: Uint8Array, count: number): boolean {
    this.#receive(octets, 0, count);
    return !this.#readingPaused;
  }

  /** Called by the connection. */
  wantFlush(): void {
    if (this.#flushScheduled || this.#reading || this.#blocked || this.#closed) return;
    this.#flushScheduled = true;
    // Behind all promise reactions of this turn, so that the answers of a batch leave together.
    process.nextTick(() => this.#flush());
  }

  /** A few times a second. */
  tick(nowMs: number): void {
    const stalled = this.#blocked && nowMs - this.#blockedSinceMs > MAX_STALL_MS;
    if (this.connection.tick(nowMs) || stalled) this.#socket.destroy();
  }

  shutDown(reason: string, nowMs: number): void {
    this.connection.shutDown(reason, nowMs);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #receive(octets: Uint8Array, start: number, end: number): void {
    this.#reading = true;
    const nowMs = performance.now();
    const at = this.connection.receive(octets, start, end, nowMs);
    this.#reading = false;
    if (at < end) {
      // L-14: too many new streams at once. Others first; the read buffer is theirs too, hence the copy.
      this.#rest = copyOctets(octets, at, end);
      this.#pauseReading();
      setImmediate(() => this.#continue());
    }
    this.#flush();
    if (this.connection.sender.output.queuedBytes > MAX_WAITING_BYTES) this.#pauseReading();
  }

  #continue(): void {
    const rest = this.#rest;
    if (rest === undefined || this.#closed) return;
    this.#rest = undefined;
    this.#receive(rest, 0, rest.length);
    this.#resumeReading();
  }

  #pauseReading(): void {
    if (this.#readingPaused) return;
    this.#readingPaused = true;
    this.#socket.pause();
  }

  #resumeReading(): void {
    const waiting = this.#rest !== undefined || this.connection.sender.output.queuedBytes > MAX_WAITING_BYTES;
    if (!this.#readingPaused || waiting) return;
    this.#readingPaused = false;
    this.#socket.resume();
  }

  #flush(): void {
    this.#flushScheduled = false;
    if (this.#closed || this.#blocked) return;
    const { connection } = this;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const pieces = connection.takeOutput(performance.now());
      if (pieces.length === 0) break;
      this.#write(pieces);
      if (this.#socket.writableLength === 0) connection.sender.output.recycle();
      else connection.sender.output.abandon();
      if (this.#socket.writableNeedDrain && this.#socket.writableLength > 0) {
        this.#blocked = true;
        this.#blockedSinceMs = performance.now();
        return;
      }
      if (!connection.sender.hasData) break;
    }
    if (connection.sender.hasData && !this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(() => this.#flush());
      return;
    }
    if (connection.isOver) this.#end();
  }

  #write(pieces: readonly Uint8Array[]): void {
    const socket = this.#socket;
    if (pieces.length === 1) {
      socket.write(pieces[0]!);
      return;
    }
    socket.cork();
    for (const piece of pieces) socket.write(piece);
    socket.uncork();
  }

  #onDrain(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    if (this.#socket.writableLength === 0) this.connection.sender.output.recycle();
    this.#flush();
    this.#resumeReading();
  }

  /** The client has closed its side: what is under way may still be answered, then we close ours. */
  #onEnd(): void {
    this.connection.onGoaway();
    if (this.connection.openStreams === 0) this.#end();
    // A client that half-closes at the transport and waits for answers is not one of gRPC's; one that has gone is.
    else this.#socket.destroy();
  }

  #end(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#socket.end();
    this.#readingPaused = false;
    this.#socket.resume();
    setTimeout(() => this.#socket.destroy(), LINGER_MS).unref();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rest = undefined;
    this.connection.onSocketClosed();
    this.#onClosed();
  }
}

/** FC-34: the kernel takes nothing for this long. */
const MAX_STALL_MS = 60_000;
