// The same octets to our transport and to the one over node:http2: the same kind of answer (T-33).
//
// Classes are compared, not bytes: response and grpc-status, a reset, a closed connection. Where RFC 9113 leaves a choice
// or node:http2 is known to be lax (T-3), the row says what each does.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ServerTransport, TransportOptions } from "../../src/grpc/server.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
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
  priority,
  rst,
  settings,
  uint32,
  windowUpdate,
} from "../http2/frames.ts";
import { SocketPeer } from "../http2/socket-peer.ts";
import { createNodeHttp2Transport } from "./node-http2-transport.ts";
import { MAX_REQUEST_BYTES, TestService } from "./test-service.ts";

type Fields = readonly (readonly [string, string])[];
const call = (path = "/test.Echo/Sync", extra: Fields = []): Buffer =>
  block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "a"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
    ...extra,
  ]);
const message = (text: string): Buffer => Buffer.concat([Buffer.from([0, 0, 0, 0, text.length]), Buffer.from(text)]);
const hello = data(1, message("hello"), END_STREAM);
const OPEN = END_HEADERS;

/** What is sent on a fresh connection; where the two may differ: [ours, node's]. */
type Row = readonly [name: string, parts: readonly Buffer[], differs?: readonly [string, string]];
const ROWS: readonly Row[] = [
  ["a unary call", [headers(1, call(), OPEN), hello]],
  [
    "a call in pieces",
    [
      headers(1, call().subarray(0, 20), 0),
      continuation(1, call().subarray(20)),
      data(1, message("hello").subarray(0, 3)),
      data(1, message("hello").subarray(3)),
      data(1, Buffer.alloc(0), END_STREAM),
    ],
  ],
  [
    "padding everywhere",
    [
      headers(1, Buffer.concat([Buffer.from([4]), call(), Buffer.alloc(4)]), OPEN | PADDED),
      data(1, Buffer.concat([Buffer.from([9]), message("hello"), Buffer.alloc(9)]), END_STREAM | PADDED),
    ],
  ],
  [
    "trailers on the request",
    [headers(1, call(), OPEN), data(1, message("hello")), headers(1, block([["x-trailer", "1"]]))],
  ],
  ["an unknown method", [headers(1, call("/test.Echo/Nope"), OPEN), hello]],
  ["an unknown service", [headers(1, call("/x/y"), OPEN), hello]],
  ["a failing call", [headers(1, call("/test.Echo/Fail"), OPEN), hello]],
  ["a stream of answers", [headers(1, call("/test.Echo/Count"), OPEN), data(1, message("5"), END_STREAM)]],
  ["an early end", [headers(1, call("/test.Echo/Early"), OPEN), data(1, message("a"))]],
  ["a deadline that has passed", [headers(1, call("/test.Echo/Sync", [["grpc-timeout", "0m"]]), OPEN), hello]],
  ["a malformed deadline", [headers(1, call("/test.Echo/Sync", [["grpc-timeout", "x"]]), OPEN), hello]],
  ["a bad -bin value", [headers(1, call("/test.Echo/Sync", [["a-bin", "*"]]), OPEN), hello]],
  ["two messages in a unary call", [headers(1, call(), OPEN), data(1, message("a")), hello]],
  ["no message in a unary call", [headers(1, call(), OPEN | END_STREAM)]],
  ["an end inside a message", [headers(1, call(), OPEN), data(1, message("hello").subarray(0, 7), END_STREAM)]],
  ["a message over the limit", [headers(1, call(), OPEN), data(1, Buffer.from([0, 255, 0, 0, 0]))]],
  [
    "another content type",
    [
      headers(
        1,
        block([
          [":method", "POST"],
          [":scheme", "http"],
          [":path", "/"],
          [":authority", "a"],
          ["content-type", "text/plain"],
        ]),
        OPEN,
      ),
      hello,
    ],
  ],
  [
    "GET",
    [
      headers(
        1,
        block([
          [":method", "GET"],
          [":scheme", "http"],
          [":path", "/"],
          [":authority", "a"],
        ]),
      ),
    ],
  ],
  [
    // Unix sockets and odd proxies have none (G-5); nghttp2 insists on one.
    "no :authority",
    [
      headers(
        1,
        block([
          [":method", "POST"],
          [":scheme", "http"],
          [":path", "/test.Echo/Sync"],
          ["content-type", "application/grpc"],
        ]),
        OPEN,
      ),
      hello,
    ],
    ["status 200 grpc 0 undefined 10", "reset"],
  ],
  [
    "settings, pings and priorities in between",
    [settings([[4, 100]]), headers(1, call(), OPEN), priority(1, 0), ping("aaaaaaaa"), windowUpdate(1, 5), hello],
  ],
  ["a window of 3 octets", [settings([[4, 3]]), headers(1, call(), OPEN), hello, windowUpdate(1, 100)]],
  [
    "upper case in a name",
    [
      headers(
        1,
        block([
          [":method", "POST"],
          [":scheme", "http"],
          [":path", "/"],
          ["X", "y"],
        ]),
        OPEN,
      ),
    ],
  ],
  ["a connection header", [headers(1, call("/", [["connection", "close"]]), OPEN)]],
  [
    "no :path",
    [
      headers(
        1,
        block([
          [":method", "POST"],
          [":scheme", "http"],
        ]),
        OPEN,
      ),
    ],
  ],
  ["DATA on an idle stream", [data(1, Buffer.from("x"))]],
  ["DATA on stream 0", [data(0, Buffer.from("x"))]],
  ["a bad HPACK index", [headers(1, Buffer.from("80", "hex"))]],
  ["a short PING", [frame(6, 0, 0, Buffer.alloc(6))]],
  ["an odd SETTINGS length", [frame(4, 0, 0, Buffer.alloc(5))]],
  ["ENABLE_PUSH 2", [settings([[2, 2]])]],
  ["WINDOW_UPDATE of 0 on the connection", [windowUpdate(0, 0)]],
  ["a frame above the limit", [frame(0, 0, 1, Buffer.alloc(16_385))]],
  ["PUSH_PROMISE", [frame(5, END_HEADERS, 1, uint32(2))]],
  ["HEADERS on an even stream", [headers(2, call())]],
  ["RST_STREAM on an idle stream", [rst(1)]],
  // RFC 9113: error; nghttp2 drops unsolicited PING ACK's connection and ignores PRIORITY on itself.
  ["a PING ACK nobody asked for", [ping("aaaaaaaa", 1)], ["open", "closed"]],
];

describe("our transport and node:http2", () => {
  const transports: ServerTransport[] = [];
  const ports: number[] = [];

  beforeAll(async () => {
    for (const create of [createServerTransport, createNodeHttp2Transport]) {
      const options: TransportOptions = {
        services: [new TestService().definition],
        http1: (_request, response) => response.end(),
        defaultMaxRequestBytes: MAX_REQUEST_BYTES,
        logger: silentLogger,
        metrics: new MetricsRegistry(),
      };
      const transport = create(options);
      const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
      transports.push(transport);
      ports.push(address.kind === "tcp" ? address.port : 0);
    }
  });
  afterAll(async () => {
    for (const transport of transports) await transport.close({ signal: AbortSignal.abort() });
  });

  it.each(ROWS.map(([name, parts, differs]) => ({ name, parts, differs })))(
    "answer alike: $name",
    async ({ parts, differs }) => {
      const [ours, nodes] = await Promise.all(ports.map((port) => classOf(port, parts)));
      if (differs === undefined) expect(ours).toBe(nodes);
      else expect([ours, nodes]).toEqual(differs);
    },
  );
});

/** Sends `parts`, then a ping once stream 1 has ended; says how it all ended. */
async function classOf(port: number, parts: readonly Buffer[]): Promise<string> {
  const peer = await SocketPeer.open(port);
  peer.send(...parts);
  const expectsAnswer = parts.some((part) => part[3] === 1 && part.readUInt32BE(5) === 1);
  if (expectsAnswer) {
    await peer.until(
      ({ type, flags, streamId }) =>
        type === 7 || (streamId === 1 && (type === 3 || (type <= 1 && (flags & END_STREAM) !== 0))),
    );
  }
  peer.send(ping("the end!"));
  const alive = await peer.until(
    ({ payload, type }) => type === 7 || (type === 6 && payload.toString() === "the end!"),
  );
  peer.socket.destroy();
  if (alive === undefined || alive.type === 7) return "closed";
  const reset = peer.frames.find(({ type, streamId }) => type === 3 && streamId === 1);
  const fields = new Map<string, string>();
  const decoder = new HpackDecoder();
  for (const { type, payload } of peer.frames) {
    if (type === 1)
      decoder.decode(payload, 0, payload.length, { onField: (name, value) => void fields.set(name, value) });
  }
  const bytes = peer.frames
    .filter(({ type, streamId }) => type === 0 && streamId === 1)
    .reduce((sum, { payload }) => sum + payload.length, 0);
  if (fields.size > 0)
    return `status ${fields.get(":status")} grpc ${fields.get("grpc-status")} ${fields.get("grpc-message")} ${bytes}`;
  return reset === undefined ? "open" : "reset";
}
