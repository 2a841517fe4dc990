// Frames of ours as octets in an output buffer.

import { Flag, FRAME_HEADER_BYTES, FrameType } from "./frame.ts";
import type { OutputBuffer } from "./output-buffer.ts";

/** Fills the nine octets before a payload. */
export function putFrameHeader(
  slab: Uint8Array,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  slab[at] = length >>> 16;
  slab[at + 1] = length >>> 8;
  slab[at + 2] = length;
  slab[at + 3] = type;
  slab[at + 4] = flags;
  putUint32(slab, at + 5, streamId);
}

export function putUint32(slab: Uint8Array, at: number, value: number): void {
  slab[at] = value >>> 24;
  slab[at + 1] = value >>> 16;
  slab[at + 2] = value >>> 8;
  slab[at + 3] = value;
}

export function writeSettings(output: OutputBuffer, entries: readonly (readonly [id: number, value: number])[]): void {
  const length = entries.length * 6;
  const slab = output.reserve(FRAME_HEADER_BYTES + length);
  let at = output.offsetOf(FRAME_HEADER_BYTES + length);
  putFrameHeader(slab, at, length, FrameType.SETTINGS, 0, 0);
  at += FRAME_HEADER_BYTES;
  for (const [id, value] of entries) {
    slab[at] = id >>> 8;
    slab[at + 1] = id;
    putUint32(slab, at + 2, value);
    at += 6;
  }
}

export function writeSettingsAck(output: OutputBuffer): void {
  const slab = output.reserve(FRAME_HEADER_BYTES);
  putFrameHeader(slab, output.offsetOf(FRAME_HEADER_BYTES), 0, FrameType.SETTINGS, Flag.ACK, 0);
}

export interface PingPayload {
  readonly octets: Uint8Array;
  readonly start: number;
}

export function writePing(output: OutputBuffer, flags: number, payload: PingPayload): void {
  const slab = output.reserve(FRAME_HEADER_BYTES + 8);
  const at = output.offsetOf(FRAME_HEADER_BYTES + 8);
  putFrameHeader(slab, at, 8, FrameType.PING, flags, 0);
  for (let index = 0; index < 8; index++)
    slab[at + FRAME_HEADER_BYTES + index] = payload.octets[payload.start + index]!;
}

export function writeRstStream(output: OutputBuffer, streamId: number, code: number): void {
  const slab = output.reserve(FRAME_HEADER_BYTES + 4);
  const at = output.offsetOf(FRAME_HEADER_BYTES + 4);
  putFrameHeader(slab, at, 4, FrameType.RST_STREAM, 0, streamId);
  putUint32(slab, at + FRAME_HEADER_BYTES, code);
}

export function writeWindowUpdate(output: OutputBuffer, streamId: number, increment: number): void {
  const slab = output.reserve(FRAME_HEADER_BYTES + 4);
  const at = output.offsetOf(FRAME_HEADER_BYTES + 4);
  putFrameHeader(slab, at, 4, FrameType.WINDOW_UPDATE, 0, streamId);
  putUint32(slab, at + FRAME_HEADER_BYTES, increment);
}

export interface Goaway {
  readonly lastStreamId: number;
  readonly code: number;
  readonly debug: string;
}

export function writeGoaway(output: OutputBuffer, goaway: Goaway): void {
  const debug = Buffer.from(goaway.debug.slice(0, 200), "latin1");
  const length = 8 + debug.length;
  const slab = output.reserve(FRAME_HEADER_BYTES + length);
  const at = output.offsetOf(FRAME_HEADER_BYTES + length);
  putFrameHeader(slab, at, length, FrameType.GOAWAY, 0, 0);
  putUint32(slab, at + FRAME_HEADER_BYTES, goaway.lastStreamId);
  putUint32(slab, at + FRAME_HEADER_BYTES + 4, goaway.code);
  slab.set(debug, at + FRAME_HEADER_BYTES + 8);
}
