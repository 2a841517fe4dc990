// Frames survive any cut, and a length that cannot be is refused before anything is buffered for it.

import { describe, expect, it } from "vitest";
import { encodeFrame, FrameDecoder, MAX_FRAME_BYTES, type ServerMessage } from "../../src/runner/runner-protocol.ts";

const MESSAGES: ServerMessage[] = [
  { type: "cancel", runId: 1 },
  { type: "cancel", runId: 2 ** 40 },
];

describe("FrameDecoder", () => {
  it("gives the same messages however the bytes are cut", () => {
    const bytes = Buffer.concat(MESSAGES.map(encodeFrame));
    for (let size = 1; size <= bytes.length; size++) {
      const decoder = new FrameDecoder<ServerMessage>();
      const received: ServerMessage[] = [];
      for (let at = 0; at < bytes.length; at += size) received.push(...decoder.push(bytes.subarray(at, at + size)));
      expect(received).toEqual(MESSAGES);
    }
  });

  it("refuses a frame longer than the bound", () => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(MAX_FRAME_BYTES + 1, 0);
    expect(() => new FrameDecoder().push(header)).toThrow(/at most/);
  });

  it("refuses what is not JSON", () => {
    expect(() => new FrameDecoder().push(Buffer.from([1, 0, 0, 0, 0x7b]))).toThrow(SyntaxError);
  });
});
