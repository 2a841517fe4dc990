// What a connection owes the clock: first frames, acknowledgements, signs of life, an end.
//
// Pure: asked a few times a second, answers what is due.

import { ErrorCode } from "./error-code.ts";
import { ConnectionError } from "./frame.ts";
import type { Http2Stream } from "./stream.ts";

const FIRST_SETTINGS_MS = 10_000; // F-8
const SETTINGS_ACK_MS = 30_000; // F-8
const OPEN_BLOCK_MS = 10_000; // L-21
const KEEPALIVE_MS = 120_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
const IDLE_MS = 60 * 60_000; // L-24
/** F-90: how long new streams are taken when the client does not answer our ping. */
const DRAIN_PING_MS = 5_000;
const STREAM_CHECK_MS = 500;
/** FC-34: a response that the client gives no credit for. */
const BLOCKED_STREAM_MS = 5 * 60_000;

/** How old a connection may get; for fleets behind a load balancer that spreads connections, not calls. */
export interface AgeLimit {
  readonly maxAgeMs: number;
  /** What streams under way get after that, before they are cut off. */
  readonly graceMs: number;
}

/** `overdue`: the grace after `age` is over; `silent`: the peer has gone, as far as we can tell. */
export type WatchResult = "ping" | "goaway" | "idle" | "age" | "overdue" | "silent" | ConnectionError | undefined;

export class ConnectionWatch {
  /** The client has sent GOAWAY: it opens nothing more. */
  peerIsLeaving = false;
  readonly #startedAtMs: number;
  readonly #age: AgeLimit | undefined;
  #aged = false;
  #settingsSeen = false;
  #lastOctetsMs: number;
  #blockOpenSinceMs = 0;
  #idleSinceMs: number;
  #pingSentMs = 0;
  #pingNumber = 0;
  #drainingSinceMs = 0;
  #finalGoawayDue = false;
  #streamsCheckedMs: number;

  /** `age` has its jitter already. */
  constructor(nowMs: number, age: AgeLimit | undefined) {
    this.#startedAtMs = nowMs;
    this.#age = age;
    this.#lastOctetsMs = nowMs;
    this.#idleSinceMs = nowMs;
    this.#streamsCheckedMs = nowMs;
  }

  get isDraining(): boolean {
    return this.#drainingSinceMs !== 0;
  }

  onOctets(nowMs: number): void {
    this.#lastOctetsMs = nowMs;
  }

  onSettings(): void {
    this.#settingsSeen = true;
  }

  blockOpen(open: boolean, nowMs: number): void {
    if (!open) this.#blockOpenSinceMs = 0;
    else if (this.#blockOpenSinceMs === 0) this.#blockOpenSinceMs = nowMs;
  }

  startDraining(nowMs: number): void {
    this.#drainingSinceMs = nowMs;
    this.#finalGoawayDue = true;
  }

  /** The payload of a new ping of ours. */
  newPing(nowMs: number): Uint8Array {
    this.#pingSentMs = nowMs;
    const octets = new Uint8Array(8);
    octets.set([0x6c, 0x65, 0x64, 0x67, 0x65], 0);
    octets[7] = ++this.#pingNumber & 0xff;
    return octets;
  }

  /** Returns true when the acknowledged ping was the one behind the first GOAWAY (F-90). Unknown ones are ignored (F-36). */
  onPingAck(octets: Uint8Array, start: number): boolean {
    if (this.#pingSentMs === 0 || octets[start + 7] !== (this.#pingNumber & 0xff)) return false;
    this.#pingSentMs = 0;
    return this.#finalGoawayDue;
  }

  check(nowMs: number, liveStreams: number, settingsAcked: boolean): WatchResult {
    const ageMs = nowMs - this.#startedAtMs;
    if (!this.#settingsSeen && ageMs > FIRST_SETTINGS_MS) return timeout(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS");
    if (!settingsAcked && ageMs > SETTINGS_ACK_MS)
      return timeout(ErrorCode.SETTINGS_TIMEOUT, "SETTINGS not acknowledged");
    if (this.#blockOpenSinceMs !== 0 && nowMs - this.#blockOpenSinceMs > OPEN_BLOCK_MS) {
      return timeout(ErrorCode.ENHANCE_YOUR_CALM, "a field block that does not end");
    }
    if (this.#finalGoawayDue && nowMs - this.#drainingSinceMs > DRAIN_PING_MS) {
      this.#finalGoawayDue = false;
      return "goaway";
    }
    if (this.#age !== undefined && ageMs > this.#age.maxAgeMs) {
      if (!this.isDraining) {
        this.#aged = true;
        return "age";
      }
      if (this.#aged && nowMs - this.#drainingSinceMs > this.#age.graceMs) return "overdue";
    }
    const silentMs = nowMs - this.#lastOctetsMs;
    if (silentMs > KEEPALIVE_MS && this.#pingSentMs !== 0 && nowMs - this.#pingSentMs > KEEPALIVE_TIMEOUT_MS)
      return "silent";
    if (silentMs > KEEPALIVE_MS && this.#pingSentMs === 0) return "ping";
    if (liveStreams > 0) this.#idleSinceMs = nowMs;
    else if (nowMs - this.#idleSinceMs > IDLE_MS && !this.isDraining) return "idle";
    return undefined;
  }

  /** Whether it is time to look at each stream. */
  streamsDue(nowMs: number): boolean {
    if (nowMs - this.#streamsCheckedMs < STREAM_CHECK_MS) return false;
    this.#streamsCheckedMs = nowMs;
    return true;
  }

  isStuck(stream: Http2Stream, nowMs: number): boolean {
    return stream.blockedSinceMs !== 0 && nowMs - stream.blockedSinceMs > BLOCKED_STREAM_MS;
  }
}

function timeout(code: ErrorCode, message: string): ConnectionError {
  return new ConnectionError(code, message);
}
