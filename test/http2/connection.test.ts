// What a connection does over time: settings, windows, fairness, limits of streams, shutting down.

import { describe, expect, it } from "vitest";
import {
  block,
  data,
  describeFrame,
  END_HEADERS,
  END_STREAM,
  frame,
  goaway,
  headers,
  PADDED,
  ping,
  request,
  rst,
  settings,
  settingsAck,
  windowUpdate,
} from "./frames.ts";
import { consume, hang, MemoryPeer, respondWith } from "./memory-peer.ts";

const lastLine = (peer: MemoryPeer): string => peer.lines().at(-1) ?? "";
const OPEN = END_HEADERS;

describe("Connection", () => {
  it("starts with SETTINGS and the connection's window, in one piece (F-4, C-2)", () => {
    const peer = new MemoryPeer({ handshake: false });
    expect(peer.lines()).toEqual(["SETTINGS", "WINDOW_UPDATE(0) 16711681"]);
  });

  it("wants SETTINGS first (F-3)", () => {
    for (const first of [ping(), settingsAck(), headers(1, request())]) {
      const peer = new MemoryPeer({ handshake: false });
      peer.send(first);
      expect(lastLine(peer)).toMatch(/^GOAWAY 1 /);
    }
  });

  it("ends connections that do not send or acknowledge SETTINGS in time (F-8, L-20)", () => {
    const silent = new MemoryPeer({ handshake: false });
    silent.advance(11_000);
    expect(lastLine(silent)).toMatch(/^GOAWAY 4 /);
    const deaf = new MemoryPeer({ handshake: false });
    deaf.send(settings());
    deaf.advance(29_000);
    expect(deaf.connection.isOver).toBe(false);
    deaf.advance(2_000);
    expect(lastLine(deaf)).toMatch(/^GOAWAY 4 /);
  });

  it("ends a connection whose field block does not end (L-21)", () => {
    const peer = new MemoryPeer();
    peer.send(headers(1, request(), END_STREAM));
    peer.advance(11_000);
    expect(lastLine(peer)).toMatch(/^GOAWAY 11 /);
  });

  // A client that a round trip away sends a window and waits cannot use more than a window per round trip.
  it("doubles the window of an upload that takes one within 100 ms, up to 8 MiB, and no other's (FC-21)", () => {
    const granted = (msPerFrame: number): number => {
      const peer = new MemoryPeer({ onRequest: consume });
      peer.send(headers(1, request(), OPEN));
      let bytes = 0;
      for (let index = 0; index < 3000; index++) {
        peer.nowMs += msPerFrame;
        peer.send(data(1, Buffer.alloc(16_384)));
        bytes += 16_384;
      }
      const updates = peer.lines().filter((line) => line.startsWith("WINDOW_UPDATE(1)"));
      return updates.reduce((sum, line) => sum + Number(line.split(" ")[1]), 2 ** 20) - bytes;
    };
    expect(granted(0.1)).toBeGreaterThan(6 * 2 ** 20);
    expect(granted(0.1)).toBeLessThanOrEqual(8 * 2 ** 20);
    expect(granted(5)).toBeLessThanOrEqual(2 ** 20);
  });

  it("applies INITIAL_WINDOW_SIZE to streams that are open, below zero too (F-35)", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(10) });
    peer.send(settings([[4, 3]]), headers(1, request()));
    expect(peer.lines()).toEqual(["SETTINGS ACK", "HEADERS(1)", "DATA(1) 3"]);
    peer.send(settings([[4, 2]]), windowUpdate(1, 2));
    expect(peer.lines()).toEqual(["SETTINGS ACK", "DATA(1) 1"]);
    peer.send(settings([[4, 100]]));
    expect(peer.lines()).toEqual(["SETTINGS ACK", "DATA(1) 6 END_STREAM"]);
  });

  it("never sends more than the connection's window, and goes on where it stopped (F-61)", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(100_000) });
    peer.send(settings([[4, 1_000_000]]), headers(1, request()));
    const first = peer.frames().filter(({ type }) => type === 0);
    expect(first.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(65_535);
    expect(Math.max(...first.map(({ payload }) => payload.length))).toBeLessThanOrEqual(16_384);
    peer.send(windowUpdate(0, 1_000_000));
    const rest = peer.frames();
    expect(rest.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(100_000 - 65_535);
    expect(rest.at(-1)?.flags).toBe(END_STREAM);
  });

  it("shares the connection between responses, and lets small ones pass (FC-32)", () => {
    const sizes = new Map([
      [1, 400_000],
      [3, 400_000],
      [5, 10],
    ]);
    const peer = new MemoryPeer({
      onRequest: (stream) => respondWith(sizes.get(peer.requests.at(-1)?.id ?? 0) ?? 0)(stream),
    });
    peer.send(
      settings([[4, 1_000_000]]),
      windowUpdate(0, 10_000_000),
      headers(1, request()),
      headers(3, request()),
      headers(5, request()),
    );
    const order = peer
      .frames()
      .filter(({ type }) => type === 0)
      .map(({ streamId }) => streamId);
    expect(order[0]).toBe(5);
    expect(order.indexOf(3)).toBeLessThan(order.lastIndexOf(1));
    expect(order.indexOf(1)).toBeLessThan(order.lastIndexOf(3));
  });

  it("saves tiny credit up, but not for a client whose windows are tiny (FC-33, A-1)", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(200_000) });
    peer.send(windowUpdate(0, 10_000_000), headers(1, request()));
    peer.frames();
    peer.send(...Array.from({ length: 100 }, () => windowUpdate(1, 1)));
    expect(peer.lines()).toEqual([]);
    peer.advance(1000);
    expect(peer.lines()).toEqual(["DATA(1) 100"]);
    peer.send(windowUpdate(1, 2000));
    expect(peer.lines()).toEqual(["DATA(1) 2000"]);
  });

  it("gives padding back at once and body when it is consumed (FC-1, F-30, A-25)", () => {
    const held: { readonly credit: (sizeBytes: number) => void }[] = [];
    const peer = new MemoryPeer({
      onRequest(stream) {
        held.push(stream);
        hang(stream);
      },
    });
    peer.send(headers(1, request(), OPEN));
    for (let index = 0; index < 200; index++)
      peer.send(data(1, Buffer.concat([Buffer.from([255]), Buffer.alloc(1 + 255)]), PADDED));
    expect(peer.connection.streams.windows.heldBytes).toBe(200);
    held[0]?.credit(200);
    expect(peer.connection.streams.windows.heldBytes).toBe(0);
  });

  it("credits DATA that arrives after our reset, and answers nothing (F-23, FC-1)", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(0) });
    peer.send(headers(1, request(), OPEN));
    expect(peer.lines()).toEqual(["HEADERS(1)", "DATA(1) 0 END_STREAM", "RST_STREAM(1) 0"]);
    peer.send(data(1, Buffer.alloc(16_384)), rst(1), windowUpdate(1, 5), headers(1, block([["a", "b"]])));
    expect(peer.lines()).toEqual([]);
    expect(peer.connection.streams.windows.heldBytes).toBe(0);
  });

  it("ends a stream that sends beyond its window, and a connection that does (FC-2)", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    peer.send(headers(1, request(), OPEN));
    for (let index = 0; index < 64; index++) peer.send(data(1, Buffer.alloc(16_384)));
    expect(peer.lines()).toEqual([]);
    peer.send(data(1, Buffer.alloc(1)));
    expect(peer.lines()).toContain("RST_STREAM(1) 3");
    const greedy = new MemoryPeer({ onRequest: hang });
    for (let id = 1; id < 40 && !greedy.connection.isOver; id += 2) {
      greedy.send(headers(id, request(), OPEN));
      for (let index = 0; index < 64; index++) greedy.send(data(id, Buffer.alloc(16_384)));
    }
    expect(lastLine(greedy)).toMatch(/^GOAWAY 3 /);
  });

  it("sends no WINDOW_UPDATE for a stream whose request has ended (FC-14)", () => {
    const peer = new MemoryPeer();
    peer.send(
      headers(1, request(), OPEN),
      ...Array.from({ length: 30 }, () => data(1, Buffer.alloc(16_384))),
      data(1, Buffer.alloc(1), END_STREAM),
    );
    expect(peer.lines().filter((line) => line.startsWith("WINDOW_UPDATE(1)"))).toEqual([]);
  });

  it("opens the window for an announced message at once (FC-15)", () => {
    const peer = new MemoryPeer({
      onRequest(stream) {
        hang(stream);
        stream.expect(4 * 1024 * 1024);
      },
    });
    peer.send(headers(1, request(), OPEN));
    expect(peer.lines()).toEqual([`WINDOW_UPDATE(1) ${3 * 1024 * 1024}`]);
  });

  it("refuses streams above the limit, and counts those whose work goes on after a reset (F-27, L-9, A-9)", () => {
    const peer = new MemoryPeer({ maxConcurrentStreams: 2, onRequest: hang });
    peer.send(headers(1, request()), headers(3, request()), headers(5, request()));
    expect(peer.lines()).toEqual(["RST_STREAM(5) 7"]);
    peer.send(rst(1), headers(7, request()));
    expect(peer.lines()).toEqual(["RST_STREAM(7) 7"]);
    peer.requests[0]?.release();
    peer.send(headers(9, request()));
    expect(peer.lines()).toEqual([]);
    expect(peer.requests.map((stream) => stream.id)).toEqual([1, 3, 9]);
  });

  it("never starts a request that is reset in the same read (A-9)", () => {
    const peer = new MemoryPeer();
    peer.send(headers(1, request()), rst(1));
    expect(peer.requests).toEqual([]);
    expect(peer.connection.openStreams).toBe(0);
  });

  it("answers a header list that is too large with 431, and ends the connection for a gross one (F-57, L-25)", () => {
    const peer = new MemoryPeer();
    const many = Array.from({ length: 200 }, (_, index) => [`x-${index}`, "y"] as const);
    peer.send(headers(1, request(many)));
    expect(peer.lines()).toEqual(["HEADERS(1) END_STREAM"]);
    expect(peer.requests).toEqual([]);
    peer.send(headers(3, request()));
    expect(peer.requests.map((stream) => stream.id)).toEqual([3]);
  });

  it("says GOAWAY in two steps and ends with the last stream (F-90, F-91)", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    peer.send(headers(1, request()));
    peer.connection.shutDown("over", peer.nowMs);
    const [first, probe] = peer.frames();
    expect(first?.payload.readUInt32BE(0)).toBe(2 ** 31 - 1);
    peer.send(headers(3, request()), frame(6, 1, 0, probe?.payload), headers(5, request()));
    expect(peer.lines()).toEqual(["GOAWAY 0 last=3"]);
    expect(peer.requests.map((stream) => stream.id)).toEqual([1, 3]);
    for (const stream of peer.requests) stream.reset(8);
    for (const stream of peer.requests) stream.release();
    expect(peer.connection.isOver).toBe(true);
  });

  it("says the final GOAWAY after 5 s without an answer to its ping (F-90)", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    peer.send(headers(1, request()));
    peer.connection.shutDown("over", peer.nowMs);
    peer.advance(6000);
    expect(peer.lines().at(-1)).toBe("GOAWAY 0 last=1");
    peer.send(headers(3, request()), data(3, Buffer.from("x")));
    expect(peer.requests).toHaveLength(1);
  });

  it("finishes what is open after a client's GOAWAY, then ends (F-37)", () => {
    const peer = new MemoryPeer();
    peer.send(headers(1, request(), OPEN), goaway(0xff));
    expect(peer.connection.isOver).toBe(false);
    peer.send(data(1, Buffer.from("x"), END_STREAM));
    expect(peer.connection.isOver).toBe(true);
    expect(peer.lines()).toEqual(["HEADERS(1)", "DATA(1) 1 END_STREAM"]);
  });

  it("pings a silent client and gives up on one that does not answer (section 0)", () => {
    const peer = new MemoryPeer();
    expect(peer.advance(121_000)).toBe(false);
    expect(peer.lines().some((line) => line.startsWith("PING ledge"))).toBe(true);
    expect(peer.advance(21_000)).toBe(true);
  });

  it("says goodbye to a connection that idles for an hour (L-24)", () => {
    const peer = new MemoryPeer();
    for (let step = 0; step < 6 * 61; step++) {
      peer.advance(10_000);
      for (const { type, flags, payload } of peer.frames())
        if (type === 6 && flags === 0) peer.send(frame(6, 1, 0, payload));
    }
    expect(peer.connection.isOver).toBe(true);
  });

  const answerPings = (peer: MemoryPeer): string[] =>
    peer.frames().map((seen) => {
      if (seen.type === 6 && seen.flags === 0) peer.send(frame(6, 1, 0, seen.payload));
      return describeFrame(seen);
    });

  // Behind a load balancer that spreads connections, old ones would stay where they are for ever.
  it("asks a connection that is too old to end, and lets its streams finish", () => {
    const peer = new MemoryPeer({ onRequest: hang, age: { maxAgeMs: 60_000, graceMs: 30_000 } });
    peer.send(headers(1, request(), OPEN));
    peer.advance(59_000);
    expect(answerPings(peer)).toEqual([]);
    peer.advance(2000);
    expect(answerPings(peer).join()).toMatch(/GOAWAY 0 .*max_age/);
    expect(peer.counted("connection_age")).toBe(1);
    expect(lastLine(peer)).toMatch(/^GOAWAY 0 /);
    peer.advance(20_000);
    expect(peer.connection.isOver).toBe(false);
    peer.send(rst(1));
    peer.requests[0]?.release();
    expect(peer.connection.isOver).toBe(true);
  });

  it("cuts a connection off that is still busy when its grace is over", () => {
    const peer = new MemoryPeer({ onRequest: hang, age: { maxAgeMs: 60_000, graceMs: 30_000 } });
    peer.send(headers(1, request(), OPEN));
    peer.advance(61_000);
    answerPings(peer);
    expect(peer.advance(29_000)).toBe(false);
    expect(peer.advance(2000)).toBe(true);
    expect([peer.counted("connection_age"), peer.counted("connection_age_grace")]).toEqual([1, 1]);
  });

  // Sixteen handlers that wait for a disk would otherwise stop every other upload of the connection.
  it("gives the connection back what stalled streams hold, but not to them (FC-12)", () => {
    const peer = new MemoryPeer({ onRequest: hang });
    const window = Array.from({ length: 64 }, (_, index) => index);
    for (let id = 1; id < 33; id += 2) {
      peer.send(headers(id, request(), OPEN), ...window.map(() => data(id, Buffer.alloc(16_384))));
    }
    const { windows } = peer.connection.streams;
    expect([windows.windowBytes, windows.heldBytes]).toEqual([0, 16 * 2 ** 20]);
    peer.lines();
    peer.advance(9000);
    expect(peer.lines()).toEqual([]);
    peer.advance(2000);
    const updates = peer.lines();
    expect(updates.every((line) => line.startsWith("WINDOW_UPDATE(0)"))).toBe(true);
    expect([windows.windowBytes, windows.heldBytes]).toEqual([16 * 2 ** 20, 0]);
    expect(peer.counted("lent_streams")).toBe(16);
    for (const stream of peer.requests.slice(0, 8)) stream.credit(2 ** 20);
    for (let id = 17; id < 33; id += 2) peer.send(rst(id));
    for (const stream of peer.requests.slice(8)) stream.release();
    expect([windows.windowBytes, windows.heldBytes]).toEqual([16 * 2 ** 20, 0]);
    expect(peer.bugs).toEqual([]);
  });

  it("resets a response that its client gives no credit for (FC-34, A-20)", () => {
    const peer = new MemoryPeer({ onRequest: respondWith(100_000) });
    peer.send(headers(1, request()));
    for (let step = 0; step < 6 * 6; step++) {
      peer.advance(10_000);
      for (const { type, flags, payload } of peer.frames())
        if (type === 6 && flags === 0) peer.send(frame(6, 1, 0, payload));
    }
    expect(peer.counted("stuck_streams")).toBe(1);
    expect(peer.connection.openStreams).toBe(0);
  });

  it("starts its blocks with a size update when the client's table is smaller (H-21)", () => {
    const peer = new MemoryPeer();
    peer.send(settings([[1, 0]]), headers(1, request()), headers(3, request()));
    const blocks = peer.frames().filter(({ type }) => type === 1);
    expect(blocks.map(({ payload }) => payload[0])).toEqual([0x20, 0x88]);
  });

  it("tells the work behind every stream when the socket closes (F-95, G-45)", () => {
    let aborted = 0;
    const peer = new MemoryPeer({
      onRequest: (stream) =>
        stream.attach({
          onData: () => undefined,
          onEnd: () => undefined,
          onAbort() {
            aborted++;
            stream.release();
          },
        }),
    });
    peer.send(headers(1, request(), OPEN), headers(3, request()));
    peer.connection.onSocketClosed();
    expect(aborted).toBe(2);
    expect(peer.connection.openStreams).toBe(0);
  });

  it("turns an exception of the layer above into INTERNAL_ERROR on this connection only (F-94)", () => {
    const peer = new MemoryPeer({
      onRequest: () => {
        throw new TypeError("bug");
      },
    });
    peer.send(headers(1, request()));
    expect(lastLine(peer)).toMatch(/^GOAWAY 2 /);
    expect(peer.bugs).toHaveLength(1);
    expect(peer.connection.openStreams).toBe(0);
  });
});
