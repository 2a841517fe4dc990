// HTTP/2 frames as bytes, for the client that measures and the server that answers it.

import { FRAME_HEADER_BYTES, FrameType } from "../../src/http2/frame.ts";

export function frameHeader(type: number, flags: number, id: number, size: number): Buffer {
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

export function windowUpdate(id: number, increment: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(increment, 0);
  return frame(FrameType.WINDOW_UPDATE, 0, id, [bytes]);
}
