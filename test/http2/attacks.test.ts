// The attack table of section 5.3 that needs no socket: each attack against a Connection, with what must stop it and a
// bound on what it may hold meanwhile. Attacks on sockets are in test/grpc/attacks.test.ts.

import { describe, expect, it } from "vitest";
import { encodeHuffman } from "../../src/http2/huffman.ts";
import {
  block,
  continuation,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
  headers,
  integer,
  PADDED,
  ping,
  priority,
  request,
  rst,
  settings,
  uint32,
  windowUpdate,
} from "./frames.ts";
import { echo, hang, MemoryPeer, respondWith } from "./memory-peer.ts";

/** Repeats an attack in reads of many frames until the connection ends; returns how many frames it took. */
function attack(peer: MemoryPeer, makeFrames: (round: number) => readonly Uint8Array[], rounds: number): number {
  let frames = 0;
  for (let round = 0; round < rounds && !peer.connection.isOver; round += 50) {
    const parts: Uint8Array[] = [];
    for (let index = 0; index < 50; index++) parts.push(...makeFrames(round + index));
    frames += parts.length;
    peer.send(...parts);
  }
  return frames;
}

function endOf(peer: MemoryPeer): string {
  expect(peer.connection.isOver).toBe(true);
  for (const stream of peer.requests) stream.release();
  expect(peer.connection.openStreams).toBe(0);
  expect(peer.bugs).toEqual([]);
  return peer.lines().at(-1) ?? "";
}

const CALM = /^GOAWAY 11 /;
const id = (round: number): number => 1 + 2 * round;

describe("attacks", () => {
  it("A-2: a ping flood ends with the text that gRPC clients know", () => {
    const peer = new MemoryPeer();
    expect(attack(peer, () => [ping()], 100_000)).toBeLessThan(1000);
    expect(endOf(peer)).toMatch(/^GOAWAY 11 .*too_many_pings$/);
    expect(peer.counted("pings") + peer.counted("ping_strikes")).toBe(1);
  });

  it("G-51: pings that measure our DATA are welcome", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(10) });
    for (let round = 0; round < 5000; round++) peer.send(headers(id(round), request()), ping());
    expect(peer.connection.isOver).toBe(false);
  });

  it("A-3: PRIORITY without end", () => {
    const peer = new MemoryPeer();
    attack(peer, (round) => [priority(id(round), 0)], 100_000);
    expect(endOf(peer)).toMatch(CALM);
    expect(peer.counted("priority")).toBe(1);
  });

  it("A-4: malformed requests that each make us reset", () => {
    const peer = new MemoryPeer();
    attack(peer, (round) => [headers(id(round), block([["Bad", "x"]]))], 100_000);
    expect(endOf(peer)).toMatch(CALM);
    expect(peer.counted("stream_errors")).toBe(1);
  });

  it("A-5: SETTINGS without end, and one with thousands of entries", () => {
    const peer = new MemoryPeer();
    attack(peer, () => [settings([[4, 70_000]])], 100_000);
    expect(endOf(peer)).toMatch(CALM);
    const large = new MemoryPeer();
    large.send(settings(Array.from({ length: 2730 }, () => [3, 1] as const)));
    expect(endOf(large)).toMatch(CALM);
  });

  it("A-6: fields with nothing in them are malformed, and hold nothing", () => {
    const peer = new MemoryPeer();
    attack(
      peer,
      (round) => [headers(id(round), Buffer.concat([request(), Buffer.alloc(60, Buffer.from([0x40, 0, 0]))]))],
      100_000,
    );
    expect(endOf(peer)).toMatch(CALM);
    expect(peer.requests).toEqual([]);
  });

  it("A-7: large answers to a client that opens its window and does not read", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(1024 * 1024) });
    // Straight into the connection: nobody takes its output.
    const octets = Buffer.concat([
      settings([[4, 2 ** 31 - 1]]),
      windowUpdate(0, 2 ** 31 - 1 - 65_535),
      ...Array.from({ length: 90 }, (_, round) => headers(id(round), request())),
    ]);
    peer.connection.receive(octets, 0, octets.length, peer.nowMs);
    expect(peer.connection.sender.output.queuedBytes).toBeLessThan(512 * 1024);
  });

  it("A-8: empty DATA and empty CONTINUATION without end", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    peer.send(headers(1, request(), END_HEADERS));
    attack(peer, () => [data(1, Buffer.alloc(0))], 100_000);
    expect(endOf(peer)).toMatch(CALM);
    const block2 = new MemoryPeer();
    block2.send(headers(1, request(), END_STREAM));
    attack(block2, () => [continuation(1, Buffer.alloc(0), 0)], 1000);
    expect(endOf(block2)).toMatch(CALM);
  });

  it("A-9: rapid reset, with and without a handler that goes on", () => {
    for (const onRequest of [echo, hang]) {
      const peer = new MemoryPeer({ onRequest });
      for (let round = 0; round < 20_000 && !peer.connection.isOver; round++) {
        peer.send(headers(id(round), request()));
        peer.send(rst(id(round)));
      }
      expect(peer.connection.isOver || peer.connection.openStreams <= 100).toBe(true);
    }
    const early = new MemoryPeer();
    attack(early, (round) => [headers(id(round), request()), rst(id(round))], 100_000);
    expect(endOf(early)).toMatch(CALM);
    expect(early.requests).toEqual([]);
    expect(early.counted("resets") + early.counted("premature_resets")).toBe(1);
  });

  const TRIGGERS: readonly (readonly [string, (stream: number) => readonly Uint8Array[]])[] = [
    ["WINDOW_UPDATE of 0", (stream) => [headers(stream, request(), END_HEADERS), windowUpdate(stream, 0)]],
    [
      "an overflowing WINDOW_UPDATE",
      (stream) => [headers(stream, request(), END_HEADERS), windowUpdate(stream, 2 ** 31 - 1)],
    ],
    ["DATA after END_STREAM", (stream) => [headers(stream, request()), data(stream, Buffer.from("x"))]],
    ["HEADERS after END_STREAM", (stream) => [headers(stream, request()), headers(stream, request())]],
    ["PRIORITY of a wrong length", (stream) => [headers(stream, request()), frame(2, 0, stream, uint32(0))]],
    [
      "a stream that depends on itself",
      (stream) => [headers(stream, Buffer.concat([uint32(stream), Buffer.from([1]), request()]), 0x25)],
    ],
  ];
  it.each(TRIGGERS)("A-10: resets made by us through %s keep slots until the work is over", (_name, makeFrames) => {
    const peer = new MemoryPeer({ maxConcurrentStreams: 10, onRequest: hang });
    for (let round = 0; round < 50_000 && !peer.connection.isOver; round++) {
      for (const part of makeFrames(id(round))) if (!peer.connection.isOver) peer.send(part);
      expect(peer.requests.length).toBeLessThanOrEqual(10);
    }
    expect(peer.connection.isOver).toBe(true);
    expect(peer.lines().at(-1)).toMatch(/^GOAWAY (11|6|5) /);
  });

  it("A-11: CONTINUATION without end, plain, Huffman and behind an invalid field", () => {
    const filler = [
      Buffer.alloc(16_000, Buffer.from([0x0f, 0x10, 1, 0x61])),
      Buffer.from("00", "hex"),
      encodeHuffman(Buffer.alloc(16_000, "a")),
    ];
    for (const first of [request(), block([["Bad name", "x"]])]) {
      for (const part of filler) {
        const peer = new MemoryPeer();
        peer.send(headers(1, first, END_STREAM));
        attack(peer, () => [continuation(1, part, 0)], 1000);
        expect(endOf(peer)).toMatch(CALM);
      }
    }
  });

  it("A-12: one octet that stands for 4 KiB, many times", () => {
    const peer = new MemoryPeer();
    const entry = Buffer.concat([Buffer.from([0x40, 1, 0x61]), integer(4000, 7, 0), Buffer.alloc(4000, "v")]);
    peer.send(headers(1, Buffer.concat([request(), entry])));
    peer.send(headers(3, Buffer.concat([request(), Buffer.alloc(16_000, 0xbe)])));
    expect(endOf(peer)).toMatch(CALM);
  });

  it("A-13: a string of 4 GiB, an integer without end", () => {
    for (const bad of ["007fffffffff0f", "00ff80808080808080808080"]) {
      const peer = new MemoryPeer();
      peer.send(headers(1, Buffer.concat([request(), Buffer.from(bad, "hex")])));
      expect(endOf(peer)).toMatch(/^GOAWAY 9 /);
    }
  });

  it("A-15: a table size of 2^32-1 for us, and size updates back and forth", () => {
    const peer = new MemoryPeer();
    peer.send(settings([[1, 2 ** 32 - 1]]), headers(1, Buffer.concat([Buffer.from("203fe11f", "hex"), request()])));
    expect(peer.lines()).toContain("DATA(1) 0 END_STREAM");
    peer.send(headers(3, Buffer.concat([Buffer.from("203fe11f20", "hex"), request()])));
    expect(endOf(peer)).toMatch(/^GOAWAY 9 /);
  });

  it("A-17: a body in frames of one octet costs no object per octet", () => {
    let bytes = 0;
    const peer = new MemoryPeer({
      onRequest: (stream) =>
        stream.attach({
          onData(chunk) {
            bytes += chunk.length;
            stream.credit(chunk.length);
          },
          onEnd: () => undefined,
          onAbort: () => undefined,
        }),
    });
    peer.send(headers(1, request(), END_HEADERS));
    const frames = Buffer.concat(Array.from({ length: 1000 }, () => data(1, Buffer.from("x"))));
    for (let round = 0; round < 200; round++) peer.send(frames);
    expect(bytes).toBe(200_000);
    expect(peer.connection.streams.windows.heldBytes).toBe(0);
    // 2 MiB of credit at a quarter of a window each: a handful of frames, not one per octet.
    expect(peer.lines().length).toBeLessThan(10);
  });

  it("A-18: WINDOW_UPDATE without end", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    peer.send(headers(1, request()));
    attack(peer, () => [windowUpdate(1, 1)], 1_000_000);
    expect(endOf(peer)).toMatch(CALM);
    expect(peer.counted("window_updates")).toBe(1);
  });

  it("A-22: the highest stream id at once", () => {
    const peer = new MemoryPeer();
    peer.send(headers(2 ** 31 - 1, request()));
    expect(peer.lines()).toEqual([
      `GOAWAY 0 last=${2 ** 31 - 1} stream ids run out`,
      expect.stringMatching(/^PING ledge/),
      `HEADERS(${2 ** 31 - 1})`,
      `DATA(${2 ** 31 - 1}) 0 END_STREAM`,
    ]);
    peer.send(headers(5, request()));
    expect(endOf(peer)).toMatch(/^GOAWAY 1 /);
  });

  it("A-23: streams before our SETTINGS have been acknowledged", () => {
    const peer = new MemoryPeer({ handshake: false, maxConcurrentStreams: 10_000, onRequest: hang });
    peer.send(settings(), ...Array.from({ length: 1000 }, (_, round) => headers(id(round), request())));
    expect(peer.requests).toHaveLength(100);
    expect(peer.counted("refused_streams")).toBe(900);
  });

  it("A-24: ten thousand fields, and a value of 60 KiB", () => {
    const fields = new MemoryPeer();
    fields.send(headers(1, Buffer.concat([request(), Buffer.alloc(16_000, Buffer.from([0x0f, 0x10, 1, 0x61]))])));
    expect(endOf(fields)).toMatch(CALM);
    const cookie = new MemoryPeer();
    const value = Buffer.concat([integer(60_000, 7, 0), Buffer.alloc(60_000, "c")]);
    const whole = Buffer.concat([request(), Buffer.from([0x0f, 0x11]), value]);
    cookie.send(
      headers(1, whole.subarray(0, 16_000), END_STREAM),
      continuation(1, whole.subarray(16_000, 32_000), 0),
      continuation(1, whole.subarray(32_000, 48_000), 0),
      continuation(1, whole.subarray(48_000)),
    );
    expect(cookie.lines()).toEqual(["HEADERS(1) END_STREAM"]);
    expect(cookie.requests).toEqual([]);
  });

  it("A-25: one octet of data with 255 of padding keeps the windows exact", () => {
    const peer = new MemoryPeer();
    peer.send(headers(1, request(), END_HEADERS));
    const padded = data(1, Buffer.alloc(257, Buffer.from([255])), PADDED);
    for (let round = 0; round < 2000; round++) peer.send(padded);
    expect(peer.connection.streams.windows.heldBytes).toBe(0);
    expect(peer.connection.isOver).toBe(false);
  });

  it("A-39: unknown frames without end", () => {
    const peer = new MemoryPeer();
    attack(peer, () => [frame(0x20, 0, 0, Buffer.alloc(16))], 100_000);
    expect(endOf(peer)).toMatch(CALM);
    expect(peer.counted("glitches")).toBe(1);
  });
});
