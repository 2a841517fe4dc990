// The rules of sections 1.3 to 1.6, one row each: what a client sends, what the connection answers.
//
// The same cases as h2spec's and the boundary values it leaves out; run against a Connection without a socket.

import { describe, expect, it } from "vitest";
import {
  block,
  continuation,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
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
import { MemoryPeer } from "./memory-peer.ts";

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

describe("Connection conformance", () => {
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
});
