// Attacks from loopback on a whole server: its memory stays bounded, nothing is left, and other connections are served.
//
// What each budget does is in test/http2/attacks.test.ts; these need sockets, a kernel and time.

import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, it } from "vitest";
import type { ServerTransport } from "../../src/grpc/server.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import {
  block,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
  headers,
  ping,
  PREFACE,
  rst,
  settings,
  windowUpdate,
} from "../http2/frames.ts";
import { SocketPeer } from "../http2/socket-peer.ts";
import { rawCall } from "./raw-call.ts";
import { MAX_REQUEST_BYTES, TestService } from "./test-service.ts";

const call = (path: string): Buffer =>
  block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/test.Echo/${path}`],
    [":authority", "a"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ]);
const EMPTY_MESSAGE = Buffer.alloc(5);
const MIB = 1024 * 1024;

describe("a server under attack", () => {
  const metrics = new MetricsRegistry();
  const peers: SocketPeer[] = [];
  let transport: ServerTransport | undefined;
  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.socket.destroy();
    await transport?.close({ signal: AbortSignal.abort() });
  });

  async function start(): Promise<number> {
    const service = new TestService();
    transport = createServerTransport({
      services: [service.definition],
      http1: (_request, response) => response.end("plain"),
      defaultMaxRequestBytes: MAX_REQUEST_BYTES,
      logger: silentLogger,
      metrics,
    });
    const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
    return address.kind === "tcp" ? address.port : 0;
  }

  async function open(port: number): Promise<SocketPeer> {
    const peer = await SocketPeer.open(port);
    peers.push(peer);
    return peer;
  }

  const gauge = (name: string): number => metrics.samples().find((sample) => sample.name === name)?.value ?? -1;
  const serves = async (port: number): Promise<void> => {
    expect(await rawCall(`http://127.0.0.1:${port}`, "/test.Echo/Sync", {})).toMatchObject({ grpcStatus: "0" });
  };
  const nothingLeft = async (): Promise<void> => {
    for (const peer of peers.splice(0)) peer.socket.destroy();
    await expect
      .poll(() => [gauge("ledge_connections"), gauge("ledge_http2_streams"), transport?.activeCalls], {
        timeout: 20_000,
      })
      .toEqual([0, 0, 0]);
  };

  it("A-7, A-20: a client that asks for a hundred endless answers and reads none of them", async () => {
    const port = await start();
    await serves(port);
    const before = process.memoryUsage().rss;
    const peer = await open(port);
    peer.socket.pause();
    peer.send(settings([[4, 2 ** 31 - 1]]), windowUpdate(0, 2 ** 31 - 1 - 65_535));
    for (let id = 1; id < 200; id += 2)
      peer.send(headers(id, call("Flood"), END_HEADERS), data(id, EMPTY_MESSAGE, END_STREAM));
    await expect.poll(() => gauge("ledge_http2_streams")).toBe(100);
    await serves(port);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * MIB);
    await nothingLeft();
  });

  it("A-9: streams opened and reset as fast as a socket carries them", async () => {
    const port = await start();
    const peer = await open(port);
    for (let round = 0; round < 400 && !peer.closed; round++) {
      const parts: Buffer[] = [];
      for (let index = 0; index < 25; index++) {
        const id = 1 + 2 * (round * 25 + index);
        parts.push(headers(id, call("Hang"), END_HEADERS), rst(id));
      }
      peer.send(...parts);
      if (round % 50 === 0) await serves(port);
    }
    await peer.until(({ type }) => type === 7);
    expect(peer.lines().at(-1)).toMatch(/^GOAWAY 11 /);
    await nothingLeft();
  });

  it("A-2: pings from a client that does not read the answers", async () => {
    const port = await start();
    const peer = await open(port);
    peer.socket.pause();
    const flood = Buffer.concat(Array.from({ length: 1000 }, () => ping()));
    for (let round = 0; round < 50; round++) peer.send(flood);
    await serves(port);
    peer.socket.resume();
    await peer.until(({ type }) => type === 7);
    expect(peer.lines().at(-1)).toContain("too_many_pings");
    await nothingLeft();
  });

  it("A-11: a field block that never ends", async () => {
    const port = await start();
    const peer = await open(port);
    peer.send(headers(1, call("Sync"), 0));
    for (let round = 0; round < 100 && !peer.closed; round++) peer.send(frame(9, 0, 1, Buffer.alloc(16_000)));
    await serves(port);
    await peer.until(() => false);
    expect(peer.closed).toBe(true);
    await nothingLeft();
  });

  it("A-35: clients that vanish in every phase of a call", async () => {
    const port = await start();
    const phases: readonly (readonly Buffer[])[] = [
      [],
      [PREFACE.subarray(0, 10)],
      [PREFACE],
      [PREFACE, settings(), headers(1, call("Sync"), 0)],
      [PREFACE, settings(), headers(1, call("HangStream"), END_HEADERS), data(1, EMPTY_MESSAGE.subarray(0, 3))],
      [PREFACE, settings(), headers(1, call("Hang"), END_HEADERS), data(1, EMPTY_MESSAGE, END_STREAM)],
      [PREFACE, settings(), headers(1, call("Flood"), END_HEADERS), data(1, EMPTY_MESSAGE)],
      [PREFACE, settings(), headers(1, call("Sum"), END_HEADERS), data(1, Buffer.from([0, 0, 16, 0, 0, 1, 2, 3]))],
      [Buffer.from("GET /x HTTP/1.1\r\nHo")],
    ];
    for (let round = 0; round < 30; round++) {
      await Promise.all(
        phases.map(async (parts, index) => {
          const socket = connect(port, "127.0.0.1");
          socket.on("error", () => undefined);
          await new Promise((resolve) => socket.once("connect", resolve));
          for (const part of parts) socket.write(part);
          await new Promise((resolve) => setTimeout(resolve, (round * 7 + index) % 11));
          if (round % 2 === 0) socket.resetAndDestroy();
          else socket.destroy();
        }),
      );
    }
    await serves(port);
    await nothingLeft();
  });

  // P-42: a node:http server that does not listen itself never looks at the clock unless it is made to.
  it("A-21: HTTP/1.1 headers that trickle in are cut off", async () => {
    const port = await start();
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write("GET /x HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 408 /);
    await nothingLeft();
  });
});
