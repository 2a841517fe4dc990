// The frame parser reports the same events however the octets are cut into reads.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConnectionError } from "../../src/http2/frame.ts";
import { FrameParser, type FrameSink } from "../../src/http2/frame-parser.ts";
import {
  continuation,
  data,
  frame,
  goaway,
  headers,
  PADDED,
  ping,
  PRIORITY,
  priority,
  rst,
  settings,
  settingsAck,
  uint32,
  windowUpdate,
} from "./frames.ts";

/** Writes events down; chunks of one DATA frame become one entry, since where they are cut is up to the reads. */
function recorder(): { readonly sink: FrameSink; readonly events: string[] } {
  const events: string[] = [];
  let body = "";
  const hex = (octets: Uint8Array, start: number, end: number): string =>
    Buffer.from(octets.subarray(start, end)).toString("hex");
  const sink: FrameSink = {
    wantsPause: false,
    onDataBegin(streamId, flowBytes) {
      body = "";
      events.push(`begin ${streamId} ${flowBytes}`);
    },
    onDataChunk: (_streamId, octets, start, end) => void (body += hex(octets, start, end)),
    onDataEnd: (streamId, endStream, overheadBytes) =>
      void events.push(`data ${streamId} ${endStream} ${overheadBytes} ${body}`),
    onHeaders: ({ streamId, endStream, dependency }, octets, start, end) =>
      void events.push(`headers ${streamId} ${endStream} ${dependency} ${hex(octets, start, end)}`),
    onPriority: (streamId, dependency) => void events.push(`priority ${streamId} ${dependency}`),
    onRstStream: (streamId, code) => void events.push(`rst ${streamId} ${code}`),
    onSettings: (octets, start, end) => void events.push(`settings ${hex(octets, start, end)}`),
    onSettingsAck: () => void events.push("settings ack"),
    onPing: (ack, octets, start) => void events.push(`ping ${ack} ${hex(octets, start, start + 8)}`),
    onGoaway: (lastStreamId, code) => void events.push(`goaway ${lastStreamId} ${code}`),
    onWindowUpdate: (streamId, increment) => void events.push(`window ${streamId} ${increment}`),
    onUnknownFrame: () => void events.push("unknown"),
  };
  return { sink, events };
}

/** Parses `octets` in reads of the given sizes; the last entry is the error that ended it, if any. */
function parse(octets: Buffer, cuts: readonly number[]): string[] {
  const { sink, events } = recorder();
  const parser = new FrameParser(sink);
  let start = 0;
  try {
    for (const cut of [...cuts, octets.length]) {
      const end = Math.min(octets.length, start + Math.max(cut, 1));
      // A buffer of its own, scribbled over afterwards: nothing may be kept.
      const read = Buffer.from(octets.subarray(start, end));
      if (end > start) parser.consume(read, 0, read.length);
      read.fill(0xee);
      start = end;
    }
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    events.push(`error ${error.code} ${error.message}`);
  }
  return events;
}

const streamId = fc.constantFrom(1, 3, 5, 7);
const octets = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const someFrame = fc.oneof(
  fc.tuple(streamId, octets, fc.constantFrom(0, 1)).map(([id, payload, flags]) => data(id, payload, flags)),
  fc
    .tuple(streamId, octets, fc.integer({ min: 0, max: 50 }))
    .map(([id, payload, pad]) => data(id, Buffer.concat([Buffer.from([pad]), payload, Buffer.alloc(pad)]), PADDED)),
  fc.tuple(streamId, octets).map(([id, payload]) => headers(id, payload)),
  fc
    .tuple(streamId, octets, octets)
    .map(([id, first, second]) => Buffer.concat([headers(id, first, 0), continuation(id, second)])),
  fc
    .tuple(streamId, octets)
    .map(([id, payload]) => headers(id, Buffer.concat([uint32(9), Buffer.from([1]), payload]), 0x4 | PRIORITY)),
  fc.tuple(streamId, streamId).map(([id, dependency]) => priority(id, dependency)),
  streamId.map((id) => rst(id)),
  fc.constantFrom(
    settings(),
    settings([[4, 70_000]]),
    settingsAck(),
    ping(),
    goaway(3),
    windowUpdate(0, 1000),
    windowUpdate(3, 1),
  ),
  fc.tuple(fc.integer({ min: 10, max: 255 }), octets).map(([type, payload]) => frame(type, 0, 0, payload)),
  // Wrong ones.
  fc
    .tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 4 }), octets)
    .map(([type, flags, id, payload]) => frame(type, flags, id, payload)),
);

describe("FrameParser", () => {
  it("reports the same events for every cut of the octets into reads (F-11, T-30)", () => {
    fc.assert(
      fc.property(
        fc.array(someFrame, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 80 }),
        (frames, cuts) => {
          const stream = Buffer.concat([settings(), ...frames]);
          const whole = parse(stream, []);
          expect(parse(stream, cuts)).toEqual(whole);
          expect(
            parse(
              stream,
              Array.from({ length: stream.length }, () => 1),
            ),
          ).toEqual(whole);
        },
      ),
      { numRuns: 400 },
    );
  });

  it("stops where the sink wants a pause and goes on from there (L-14)", () => {
    const { sink, events } = recorder();
    const pausing = Object.assign(sink, { wantsPause: false });
    const parser = new FrameParser(pausing);
    const stream = Buffer.concat([settings(), ping("aaaaaaaa"), ping("bbbbbbbb")]);
    pausing.onPing = (_ack, read, start) => {
      events.push(`ping ${Buffer.from(read.subarray(start, start + 8)).toString()}`);
      pausing.wantsPause = true;
    };
    const at = parser.consume(stream, 0, stream.length);
    expect(at).toBe(9 + 17);
    pausing.wantsPause = false;
    expect(parser.consume(stream, at, stream.length)).toBe(stream.length);
    expect(events.slice(1)).toEqual(["ping aaaaaaaa", "ping bbbbbbbb"]);
  });

  it("knows when a field block is open (L-21)", () => {
    const parser = new FrameParser(recorder().sink);
    const open = Buffer.concat([settings(), headers(1, Buffer.from("x"), 0)]);
    parser.consume(open, 0, open.length);
    expect(parser.blockOpen).toBe(true);
    const end = continuation(1, Buffer.from("y"));
    parser.consume(end, 0, end.length);
    expect(parser.blockOpen).toBe(false);
  });
});
