// Credit for what clients send (section 4 of the requirements).
//
// Invariant, on both levels: granted - received = what the peer believes it may send, and
//   window = target - held, up to what is not announced yet,
// where held = received and not consumed. Back pressure is withheld credit; the socket is read all the time (FC-10).

import type { OutputBuffer } from "./output-buffer.ts";
import { writeWindowUpdate } from "./frame-writer.ts";
import { DEFAULT_WINDOW_BYTES } from "./frame.ts";
import type { Http2Stream } from "./stream.ts";

/** Advertised as SETTINGS_INITIAL_WINDOW_SIZE. */
export const STREAM_WINDOW_BYTES = 1024 * 1024;
/** Holds 16 stalled streams; above that they wait for each other (FC-12). */
export const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;

/** FC-21: uploads that take a whole window faster than this, twice a round trip, get a larger one. */
const FAST_MS = 100;
const MAX_STREAM_WINDOW_BYTES = 8 * 1024 * 1024;
const MAX_CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024;

/**
 * FC-12: streams that nobody has consumed from for this long no longer count against the connection's window, up to one
 * more window of MAX_LENT_BYTES, so that sixteen stalled uploads do not stop the calls beside them.
 */
const STALLED_MS = 10_000;
const MAX_LENT_BYTES = 64 * 1024 * 1024;

/** FC-15: the most that one announced message may add to a stream's window at once. */
const MAX_EXPECTED_BYTES = 64 * 1024 * 1024;

export class ReceiveWindows {
  readonly #output: OutputBuffer;
  #windowBytes = DEFAULT_WINDOW_BYTES;
  #targetBytes = CONNECTION_WINDOW_BYTES;
  /** Held by streams, without what is lent. */
  #heldBytes = 0;
  #lentBytes = 0;
  #closed = false;

  constructor(output: OutputBuffer) {
    this.#output = output;
  }

  /** Received octets of the connection that nobody has consumed. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** What the peer believes it may send on the connection. */
  get windowBytes(): number {
    return this.#windowBytes;
  }

  /** Opens the connection's window; once, behind our SETTINGS. */
  open(): void {
    this.#announce(0);
  }

  /** The connection is over: credit is counted and no longer announced. */
  close(): void {
    this.#closed = true;
  }

  /** Charges a DATA frame to the connection (FC-1). Returns false when the window was exceeded. */
  receive(flowBytes: number): boolean {
    this.#windowBytes -= flowBytes;
    this.#heldBytes += flowBytes;
    return this.#windowBytes >= 0;
  }

  /** Gives octets back that no stream holds. */
  creditConnection(sizeBytes: number): void {
    this.#heldBytes -= sizeBytes;
    // Small steps when a flush happens anyway would cost a frame each; a quarter keeps the peer busy (FC-13).
    this.#announce(this.#targetBytes / 4);
  }

  credit(stream: Http2Stream, sizeBytes: number, nowMs: number): boolean {
    stream.heldBytes -= sizeBytes;
    stream.creditedAtMs = nowMs;
    this.creditConnection(sizeBytes - this.#takeBack(stream, sizeBytes));
    if (stream.requestEnded) return false;
    const incrementBytes = stream.receiveTargetBytes - stream.heldBytes - stream.receiveWindowBytes;
    if (incrementBytes < stream.receiveTargetBytes / 4) return false;
    this.#grow(stream, incrementBytes, nowMs);
    this.#grant(stream, stream.receiveTargetBytes - stream.heldBytes - stream.receiveWindowBytes);
    return true;
  }

  /** The stream is over: what it held is the connection's again. */
  release(stream: Http2Stream): void {
    const { heldBytes } = stream;
    stream.heldBytes = 0;
    if (heldBytes > 0) this.creditConnection(heldBytes - this.#takeBack(stream, heldBytes));
  }

  /** FC-12: whether the peer has hardly a window left because of what streams hold. */
  get isScarce(): boolean {
    return this.#heldBytes > 0 && this.#windowBytes < this.#targetBytes / 4;
  }

  /**
   * FC-12: gives the connection back what a stalled stream holds; its own window goes on holding the stream. Returns
   * whether it did.
   */
  lend(stream: Http2Stream, nowMs: number): boolean {
    const sizeBytes = stream.heldBytes - stream.lentBytes;
    const stalled = sizeBytes > 0 && nowMs - stream.creditedAtMs > STALLED_MS;
    if (!stalled || this.#lentBytes + sizeBytes > MAX_LENT_BYTES) return false;
    stream.lentBytes += sizeBytes;
    this.#lentBytes += sizeBytes;
    this.creditConnection(sizeBytes);
    return true;
  }

  /** Of `sizeBytes` that the stream gives back, what the connection has already. */
  #takeBack(stream: Http2Stream, sizeBytes: number): number {
    const sizeLent = Math.min(stream.lentBytes, sizeBytes);
    stream.lentBytes -= sizeLent;
    this.#lentBytes -= sizeLent;
    return sizeLent;
  }

  /** FC-15: lets the rest of a message that is larger than the window come at once. */
  expect(stream: Http2Stream, sizeBytes: number): boolean {
    const wantedBytes = Math.min(sizeBytes, MAX_EXPECTED_BYTES);
    if (stream.receiveWindowBytes >= wantedBytes) return false;
    this.#grant(stream, wantedBytes - stream.receiveWindowBytes);
    return true;
  }

  /**
   * FC-21: an upload that takes a whole window in less than two round trips is limited by the window, not by us. Counted
   * are granted octets: within one read credit follows so closely that the window itself never looks empty.
   */
  #grow(stream: Http2Stream, incrementBytes: number, nowMs: number): void {
    stream.grantedBytes += incrementBytes;
    if (stream.grantedBytes < stream.receiveTargetBytes) return;
    const fast = nowMs - stream.windowBegunAtMs < FAST_MS;
    stream.windowBegunAtMs = nowMs;
    stream.grantedBytes = 0;
    const consumed = stream.heldBytes < stream.receiveTargetBytes / 4;
    if (!fast || !consumed || stream.receiveTargetBytes >= MAX_STREAM_WINDOW_BYTES) return;
    stream.receiveTargetBytes *= 2;
    this.#targetBytes = Math.min(
      MAX_CONNECTION_WINDOW_BYTES,
      Math.max(this.#targetBytes, 4 * stream.receiveTargetBytes),
    );
  }

  #grant(stream: Http2Stream, incrementBytes: number): void {
    stream.receiveWindowBytes += incrementBytes;
    writeWindowUpdate(this.#output, stream.id, incrementBytes);
  }

  #announce(thresholdBytes: number): void {
    const incrementBytes = this.#targetBytes - this.#heldBytes - this.#windowBytes;
    if (this.#closed || incrementBytes <= 0 || incrementBytes < thresholdBytes) return;
    this.#windowBytes += incrementBytes;
    writeWindowUpdate(this.#output, 0, incrementBytes);
  }
}
