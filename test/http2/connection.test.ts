import { describe, expect, it } from "vitest";
import {
  block,
  continuation,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
  goaway,
  headers,
  PADDED,
  ping,
  PRIORITY,
  priority,
  request,
  rst,
  settings,
  settingsAck,
  uint32,
  windowUpdate,
} from "./frames.ts";
import { hang, MemoryPeer, respondWith } from "./memory-peer.ts";

const lastLine = (peer: MemoryPeer): string => peer.lines().at(-1) ?? "";
const OPEN = END_HEADERS;

/** Each row: a name with its requirement, what the client sends after the handshake, and the last thing we answer. */
const ROWS: readonly (readonly [string, readonly Uint8Array[], string | RegExp])[] = [
  [
    "a frame above MAX_FRAME_SIZE is refused on its header (F-10)",
    [Buffer.from([0, 0x40, 1, 0, 0, 0, 0, 0, 1])],
    "GOAWAY 6",
  ],
  ["unknown frames are skipped (F-13)", [frame(0x16, 0xff, 0, Buffer.alloc(8)), ping()], "PING ACK 12345678"],
  [
    "undefined flags and reserved bits are ignored (F-12)",
    [frame(6, 0x16, 0x8000_0000, Buffer.from("abcdefgh"))],
    "PING ACK abcdefgh",
  ],
  ["another frame inside a field block (F-14)", [headers(1, request(), END_STREAM), priority(3, 0)], "GOAWAY 1"],
  [
    "another stream's HEADERS inside a field block (F-14)",
    [headers(1, request(), END_STREAM), headers(3, request())],
    "GOAWAY 1",
  ],
  ["an unknown frame inside a field block (F-13)", [headers(1, request(), END_STREAM), frame(0x20, 0, 0)], "GOAWAY 1"],
  ["padded DATA without a pad length (F-15)", [headers(1, request(), OPEN), frame(0, PADDED, 1)], "GOAWAY 6"],
  [
    "padding as long as its DATA frame (F-15)",
    [headers(1, request(), OPEN), data(1, Buffer.from([5, 1, 1, 1, 1]), PADDED)],
    "GOAWAY 1",
  ],
  [
    "padding that leaves no data (F-15)",
    [headers(1, request(), OPEN), data(1, Buffer.from([2, 0, 0]), PADDED | END_STREAM)],
    "DATA(1) 0 END_STREAM",
  ],
  [
    "padded HEADERS with too much padding (F-15)",
    [headers(1, Buffer.from([2, 0x82]), END_HEADERS | PADDED)],
    "GOAWAY 1",
  ],
  [
    "HEADERS without room for its priority fields (F-16)",
    [headers(1, Buffer.from([0, 0, 0]), END_HEADERS | PRIORITY)],
    "GOAWAY 6",
  ],
  ["HEADERS on an even stream (F-20)", [headers(2, request())], "GOAWAY 1"],
  ["HEADERS on stream 0 (F-20)", [headers(0, request())], "GOAWAY 1"],
  ["PUSH_PROMISE (F-20)", [frame(5, END_HEADERS, 1, uint32(2))], "GOAWAY 1"],
  ["gaps in stream ids (F-21)", [headers(13, request())], "DATA(13) 0 END_STREAM"],
  ["a stream id that was skipped (F-22)", [headers(5, request()), headers(3, request())], /^GOAWAY 1 last=0/],
  [
    "HEADERS on a stream that ended (F-22)",
    [headers(1, request()), Buffer.alloc(0), headers(1, request())],
    "RST_STREAM(1) 5",
  ],
  ["DATA after END_STREAM (F-24)", [headers(1, request()), data(1, Buffer.from("x"))], "RST_STREAM(1) 5"],
  [
    "trailers without END_STREAM (F-25)",
    [headers(1, request(), OPEN), headers(1, block([["a", "b"]]), OPEN)],
    "RST_STREAM(1) 1",
  ],
  [
    "trailers with a pseudo-header (F-25)",
    [headers(1, request(), OPEN), headers(1, block([[":path", "/"]]))],
    "RST_STREAM(1) 1",
  ],
  [
    "trailers end a request (F-25)",
    [headers(1, request(), OPEN), headers(1, block([["a", "b"]]))],
    "DATA(1) 0 END_STREAM",
  ],
  ["DATA on an idle stream (F-26)", [data(1, Buffer.from("x"))], "GOAWAY 1"],
  ["RST_STREAM on an idle stream (F-26)", [rst(1)], "GOAWAY 1"],
  ["WINDOW_UPDATE on an idle stream (F-26)", [windowUpdate(1, 1)], "GOAWAY 1"],
  ["CONTINUATION on an idle stream (F-26, F-39)", [continuation(1, request())], "GOAWAY 1"],
  ["CONTINUATION after END_HEADERS (F-39)", [headers(1, request(), OPEN), continuation(1, request())], "GOAWAY 1"],
  ["DATA on stream 0 (F-30)", [data(0, Buffer.from("x"))], "GOAWAY 1"],
  ["PRIORITY on stream 0 (F-32)", [priority(0, 1)], "GOAWAY 1"],
  ["PRIORITY of 4 octets (F-32)", [frame(2, 0, 1, uint32(0))], "GOAWAY 6"],
  ["PRIORITY on itself (F-32)", [priority(1, 1)], "GOAWAY 1"],
  ["PRIORITY on an idle stream is harmless (F-32)", [priority(7, 3), ping()], "PING ACK 12345678"],
  [
    "HEADERS depending on itself (F-32)",
    [headers(1, Buffer.concat([uint32(1), Buffer.from([1]), request()]), END_HEADERS | END_STREAM | PRIORITY)],
    "RST_STREAM(1) 1",
  ],
  [
    "HEADERS with priority fields (C-1)",
    [headers(1, Buffer.concat([uint32(0), Buffer.from([1]), request()]), END_HEADERS | END_STREAM | PRIORITY)],
    "DATA(1) 0 END_STREAM",
  ],
  ["RST_STREAM on stream 0 (F-33)", [rst(0)], "GOAWAY 1"],
  ["RST_STREAM of 3 octets (F-33)", [headers(1, request(), OPEN), frame(3, 0, 1, Buffer.alloc(3))], "GOAWAY 6"],
  ["RST_STREAM with an unknown code (F-33)", [headers(1, request(), OPEN), rst(1, 0xff), ping()], "PING ACK 12345678"],
  ["SETTINGS on a stream (F-34)", [frame(4, 0, 1)], "GOAWAY 1"],
  ["SETTINGS ACK with content (F-34)", [frame(4, 1, 0, Buffer.alloc(6))], "GOAWAY 6"],
  ["SETTINGS of 3 octets (F-34)", [frame(4, 0, 0, Buffer.alloc(3))], "GOAWAY 6"],
  ["33 settings in one frame (F-34)", [settings(Array.from({ length: 33 }, () => [0x99, 0] as const))], "GOAWAY 11"],
  ["32 settings in one frame (F-34)", [settings(Array.from({ length: 32 }, () => [0x99, 0] as const))], "SETTINGS ACK"],
  ["ENABLE_PUSH 2 (F-34)", [settings([[2, 2]])], "GOAWAY 1"],
  ["INITIAL_WINDOW_SIZE 2^31 (F-34)", [settings([[4, 2 ** 31]])], "GOAWAY 3"],
  ["MAX_FRAME_SIZE 2^14 - 1 (F-34)", [settings([[5, 16_383]])], "GOAWAY 1"],
  ["MAX_FRAME_SIZE 2^24 (F-34)", [settings([[5, 2 ** 24]])], "GOAWAY 1"],
  ["MAX_FRAME_SIZE 2^24 - 1 (F-34)", [settings([[5, 2 ** 24 - 1]])], "SETTINGS ACK"],
  ["an ACK that nobody asked for (F-34)", [settingsAck()], "GOAWAY 1"],
  ["PING on a stream (F-36)", [frame(6, 0, 1, Buffer.alloc(8))], "GOAWAY 1"],
  ["PING of 6 octets (F-36)", [frame(6, 0, 0, Buffer.alloc(6))], "GOAWAY 6"],
  ["an unknown PING ACK is ignored (F-36)", [ping("xxxxxxxx", 1), ping()], "PING ACK 12345678"],
  ["GOAWAY on a stream (F-37)", [frame(7, 0, 1, Buffer.alloc(8))], "GOAWAY 1"],
  ["GOAWAY of 7 octets (F-37)", [frame(7, 0, 0, Buffer.alloc(7))], "GOAWAY 6"],
  ["WINDOW_UPDATE of 3 octets (F-38)", [frame(8, 0, 0, Buffer.alloc(3))], "GOAWAY 6"],
  ["WINDOW_UPDATE of 0 on the connection (F-38)", [windowUpdate(0, 0)], "GOAWAY 1"],
  ["WINDOW_UPDATE of 0 on a stream (F-38)", [headers(1, request(), OPEN), windowUpdate(1, 0)], "RST_STREAM(1) 1"],
  ["the connection's window above 2^31-1 (F-38)", [windowUpdate(0, 2 ** 31 - 1)], "GOAWAY 3"],
  [
    "a stream's window above 2^31-1 (F-38)",
    [headers(1, request(), OPEN), windowUpdate(1, 2 ** 31 - 1)],
    "RST_STREAM(1) 3",
  ],
  [
    "a setting lifts a window above 2^31-1 (F-35)",
    [headers(1, request(), OPEN), windowUpdate(1, 2 ** 31 - 1 - 65_535), settings([[4, 65_536]])],
    "GOAWAY 3",
  ],
  [
    "9 CONTINUATION frames (L-12)",
    [headers(1, request(), END_STREAM), ...Array.from({ length: 9 }, () => continuation(1, Buffer.alloc(0), 0))],
    "GOAWAY 11",
  ],
  [
    "8 CONTINUATION frames (L-12)",
    [
      headers(1, request(), END_STREAM),
      ...Array.from({ length: 7 }, () => continuation(1, Buffer.alloc(0), 0)),
      continuation(1, Buffer.alloc(0)),
    ],
    "DATA(1) 0 END_STREAM",
  ],
  [
    "a content-length that is kept (F-55)",
    [headers(1, request([["content-length", "3"]]), OPEN), data(1, Buffer.from("abc"), END_STREAM)],
    "DATA(1) 3 END_STREAM",
  ],
  [
    "a body below its content-length (F-55)",
    [headers(1, request([["content-length", "3"]]), OPEN), data(1, Buffer.from("ab"), END_STREAM)],
    "RST_STREAM(1) 1",
  ],
  [
    "a body above its content-length (F-55)",
    [headers(1, request([["content-length", "3"]]), OPEN), data(1, Buffer.from("abcd"))],
    "RST_STREAM(1) 1",
  ],
  ["a content-length without a body (F-55)", [headers(1, request([["content-length", "3"]]))], "RST_STREAM(1) 1"],
  [
    "two content-lengths that differ (F-55)",
    [
      headers(
        1,
        request([
          ["content-length", "0"],
          ["content-length", "1"],
        ]),
      ),
    ],
    "RST_STREAM(1) 1",
  ],
  ["a content-length that is no number (F-55)", [headers(1, request([["content-length", "+1"]]))], "RST_STREAM(1) 1"],
];

/** Requests that are malformed: RST_STREAM(PROTOCOL_ERROR) and no handler. */
const MALFORMED: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
  [
    "no :method (F-50)",
    [
      [":scheme", "http"],
      [":path", "/"],
    ],
  ],
  [
    "no :scheme (F-50)",
    [
      [":method", "GET"],
      [":path", "/"],
    ],
  ],
  [
    "no :path (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
    ],
  ],
  [
    "an empty :path (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", ""],
    ],
  ],
  [
    "two :path (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":path", "/"],
    ],
  ],
  [
    "an unknown pseudo-header (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":x", "y"],
    ],
  ],
  [
    ":status in a request (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":status", "200"],
    ],
  ],
  [
    "a pseudo-header after a field (F-50)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      ["a", "b"],
      [":path", "/"],
    ],
  ],
  [
    "CONNECT (F-50)",
    [
      [":method", "CONNECT"],
      [":scheme", "http"],
      [":path", "/"],
    ],
  ],
  [
    "a space in :path (F-51)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/a b"],
    ],
  ],
  [
    "a fragment in :path (F-51)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/a#b"],
    ],
  ],
  [
    "upper case in a name (F-52)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["X-a", "b"],
    ],
  ],
  [
    "an empty name (F-52, A-6)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["", "b"],
    ],
  ],
  [
    "a newline in a value (F-52, A-31)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["a", "b\r\nc: d"],
    ],
  ],
  [
    "a NUL in a value (F-52)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["a", "b\0"],
    ],
  ],
  [
    "a leading space in a value (F-52)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["a", " b"],
    ],
  ],
  [
    "a trailing tab in a value (F-52)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["a", "b\t"],
    ],
  ],
  [
    "connection (F-53)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["connection", "close"],
    ],
  ],
  [
    "transfer-encoding (F-53, A-31)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["transfer-encoding", "chunked"],
    ],
  ],
  [
    "te: gzip (F-53)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      ["te", "trailers, gzip"],
    ],
  ],
  [
    "host and :authority differ (F-54)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "a"],
      ["host", "b"],
    ],
  ],
  [
    "user information in :authority (F-54)",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "a@b"],
    ],
  ],
];

describe("Connection", () => {
  it.each(ROWS)("%s", (_name, parts, expected) => {
    const peer = new MemoryPeer();
    peer.send(...parts);
    if (typeof expected === "string")
      expect(lastLine(peer)).toMatch(new RegExp(`^${expected.replace(/[()]/g, "\\$&")}( last=\\d+ .*)?$`));
    else expect(lastLine(peer)).toMatch(expected);
    expect(peer.bugs).toEqual([]);
    expect(peer.connection.isOver).toBe(String(expected).includes("GOAWAY"));
  });

  // What arrives in one read is handed out after it, so a stream that has ended here is still open there.
  const sameEnd = ROWS.filter(([name]) => !name.startsWith("HEADERS on a stream that ended"));
  it.each(sameEnd)("octet by octet: %s", (_name, parts) => {
    const whole = new MemoryPeer();
    whole.send(...parts);
    const slow = new MemoryPeer();
    slow.sendSlowly(...parts);
    // Requests are handed out after each read, so only the order of answers and late resets may differ.
    expect(slow.connection.isOver).toBe(whole.connection.isOver);
    expect(slow.lines().at(-1)?.split(" ")[0]).toBe(whole.lines().at(-1)?.split(" ")[0]);
    expect(slow.bugs).toEqual([]);
  });

  it.each(MALFORMED)("refuses a request with %s, and keeps the connection (F-58)", (_name, fields) => {
    const peer = new MemoryPeer();
    peer.send(headers(1, block(fields)), headers(3, request()));
    expect(peer.requests.map((stream) => stream.id)).toEqual([3]);
    expect(peer.lines()).toEqual(["RST_STREAM(1) 1", "HEADERS(3)", "DATA(3) 0 END_STREAM"]);
  });

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
