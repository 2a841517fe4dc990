// One request and its response: what the connection knows of a stream, and the seam's methods over it.
//
// Life: open → request ended and response ended, or reset → closed; the slot it takes is free when it is closed and its
// work has been released (F-27). The rules that involve the connection (windows, output, resets) are in its sender and
// its receive windows; this keeps the state they share. Sending state:
//
//   queue: [slice][slice][slice]      sendBody and large responses; DATA is cut from it as the windows allow
//           │      └ queueIndex       then trailers, or END_STREAM on the last DATA
//           └ sent, dropped
//
import type { ErrorCode } from "./error-code.ts";
import type { HeaderBlock } from "./header-block.ts";
import type { RequestHeaders } from "./request-headers.ts";
import type { ConnectionFacts, RequestReceiver, RequestStream, WholeResponse } from "./request-stream.ts";

/** What a stream needs of its connection. */
export interface StreamHost {
  readonly facts: ConnectionFacts;
  readonly peerMaxHeaderListBytes: number;
  credit(stream: Http2Stream, sizeBytes: number): void;
  expect(stream: Http2Stream, sizeBytes: number): void;
  respond(stream: Http2Stream, head: HeaderBlock, response: WholeResponse | undefined): void;
  sendHead(stream: Http2Stream, head: HeaderBlock): void;
  sendQueued(stream: Http2Stream): void;
  reset(stream: Http2Stream, code: ErrorCode): void;
  released(stream: Http2Stream): void;
}

export interface StreamStart {
  readonly id: number;
  readonly headers: RequestHeaders;
  readonly contentLength: number;
  readonly receiveWindowBytes: number;
  readonly sendWindowBytes: number;
  readonly nowMs: number;
}

export class Http2Stream implements RequestStream {
  readonly id: number;
  readonly headers: RequestHeaders;
  readonly openedAtMs: number;
  readonly #host: StreamHost;
  #receiver: RequestReceiver | undefined;

  /** Both sides have ended, or one has reset it. */
  closed = false;
  /** Handed to the layer above. */
  dispatched = false;
  /** The work behind it has ended. */
  isReleased = false;

  requestEnded = false;
  readonly contentLength: number;
  /** Octets of body so far. */
  bodyBytes = 0;
  /** What the client may still send; below zero it has cheated. */
  receiveWindowBytes: number;
  /** What the window is kept at. */
  receiveTargetBytes: number;
  /** Received and not credited. */
  heldBytes = 0;
  /** Part of it that the connection's window has back already (FC-12). */
  lentBytes = 0;
  /** When octets were last credited, or first held. */
  creditedAtMs = 0;
  /** Octets granted since `windowBegunAtMs`, up to one window; for tuning. */
  grantedBytes = 0;
  windowBegunAtMs: number;
  /** Views of the read buffer that arrived before there was a receiver; the first in three fields, as most have one. */
  #earlyOctets: Uint8Array | undefined;
  #earlyStart = 0;
  #earlyEnd = 0;
  #earlyRest: Uint8Array[] | undefined;

  sendWindowBytes: number;
  queue: Uint8Array[] = NO_SLICES;
  queueIndex = 0;
  /** Octets of the slice at queueIndex that have been sent. */
  sliceOffset = 0;
  queuedBytes = 0;
  taken: (() => void) | undefined;
  written: (() => void) | undefined;
  trailers: HeaderBlock | undefined;
  /** Nothing comes after the queue but the trailers, if any. */
  endsAfterQueue = false;
  headSent = false;
  responseEnded = false;
  /** In the sender's line of streams that have something to send and a window. */
  inLine = false;
  /** When it last had octets to send and a closed window; for FC-34. */
  blockedSinceMs = 0;

  constructor(host: StreamHost, start: StreamStart) {
    this.#host = host;
    this.id = start.id;
    this.headers = start.headers;
    this.contentLength = start.contentLength;
    this.receiveWindowBytes = start.receiveWindowBytes;
    this.receiveTargetBytes = start.receiveWindowBytes;
    this.sendWindowBytes = start.sendWindowBytes;
    this.openedAtMs = start.nowMs;
    this.windowBegunAtMs = start.nowMs;
  }

  get connection(): ConnectionFacts {
    return this.#host.facts;
  }

  get maxHeaderListBytes(): number {
    return this.#host.peerMaxHeaderListBytes;
  }

  /** Takes body octets of the current read: to the receiver, or aside until there is one, at the end of this read. */
  deliver(octets: Uint8Array, start: number, end: number): void {
    this.bodyBytes += end - start;
    if (this.#receiver !== undefined) this.#receiver.onData(octets.subarray(start, end));
    else if (this.#earlyOctets === undefined) {
      this.#earlyOctets = octets;
      this.#earlyStart = start;
      this.#earlyEnd = end;
    } else (this.#earlyRest ??= []).push(octets.subarray(start, end));
  }

  /** The client has half-closed. */
  endRequest(): void {
    this.requestEnded = true;
    this.#receiver?.onEnd();
  }

  /** Nothing can be sent or received any more. */
  abort(): void {
    this.#dropQueue();
    this.#dropEarly();
    const receiver = this.#receiver;
    this.#receiver = undefined;
    receiver?.onAbort();
  }

  /** Both sides have ended well. */
  detach(): void {
    this.#receiver = undefined;
    this.#dropEarly();
  }

  attach(receiver: RequestReceiver): void {
    const octets = this.#earlyOctets;
    const start = this.#earlyStart;
    const end = this.#earlyEnd;
    const rest = this.#earlyRest;
    this.#dropEarly();
    if (this.closed) return;
    this.#receiver = receiver;
    // Several pieces are cheaper to take one by one than to put together first.
    if (this.requestEnded && rest === undefined && receiver.onBody !== undefined) {
      receiver.onBody(octets ?? EMPTY, start, end);
      return;
    }
    if (octets !== undefined) receiver.onData(octets.subarray(start, end));
    // The receiver may have let go, or the stream may have ended, on what it was given before.
    for (const part of rest ?? []) if (this.#receiver === receiver) receiver.onData(part);
    if (this.requestEnded && !this.closed) receiver.onEnd();
  }

  #dropEarly(): void {
    this.#earlyOctets = undefined;
    this.#earlyRest = undefined;
  }

  credit(sizeBytes: number): void {
    if (!this.closed) this.#host.credit(this, sizeBytes);
  }

  expect(sizeBytes: number): void {
    if (!this.closed && !this.requestEnded) this.#host.expect(this, sizeBytes);
  }

  respond(head: HeaderBlock, response?: WholeResponse): void {
    if (!this.closed && !this.headSent) this.#host.respond(this, head, response);
  }

  sendHead(head: HeaderBlock): void {
    if (!this.closed && !this.headSent) this.#host.sendHead(this, head);
  }

  sendBody(slices: readonly Uint8Array[], taken: () => void, written?: () => void): void {
    if (this.closed || this.endsAfterQueue) return;
    for (const slice of slices) this.enqueue(slice);
    this.taken = taken;
    this.written = written;
    this.#host.sendQueued(this);
  }

  sendTrailers(trailers: HeaderBlock): void {
    if (this.closed || this.endsAfterQueue) return;
    this.trailers = trailers;
    this.endsAfterQueue = true;
    this.#host.sendQueued(this);
  }

  reset(code: ErrorCode): void {
    if (!this.closed) this.#host.reset(this, code);
  }

  release(): void {
    if (this.isReleased) return;
    this.isReleased = true;
    this.#host.released(this);
  }

  enqueue(slice: Uint8Array): void {
    if (slice.length === 0) return;
    if (this.queue === NO_SLICES) this.queue = [];
    this.queue.push(slice);
    this.queuedBytes += slice.length;
  }

  /** Everything queued has been sent, or will not be. */
  #dropQueue(): void {
    this.queue = NO_SLICES;
    this.queueIndex = 0;
    this.sliceOffset = 0;
    this.queuedBytes = 0;
    this.taken = undefined;
    this.written = undefined;
    this.trailers = undefined;
  }

  /** Called by the sender when the queue is empty. */
  resetQueue(): void {
    this.queue = NO_SLICES;
    this.queueIndex = 0;
    this.sliceOffset = 0;
  }
}

/** Shared by all streams that queue nothing; never changed. */
const NO_SLICES: Uint8Array[] = [];
const EMPTY = new Uint8Array(0);
