// The driver over real sockets: bursts that are cut into turns, slow readers, and bytes that stay what they were.

import { createHash, randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { Service, StreamCall } from "../../src/grpc/service.ts";
import type { ServerTransport } from "../../src/grpc/server.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { block, data, END_HEADERS, END_STREAM, headers, settings, windowUpdate } from "./frames.ts";
import { SocketPeer } from "./socket-peer.ts";

const MIB = 1024 * 1024;
const blob = randomBytes(8 * MIB);
let givenBack = 0;

const SERVICE: Service = {
  name: "test.Bytes",
  methods: [
    { kind: "unary", path: "/test.Bytes/Echo", handler: (request: Uint8Array) => request },
    {
      kind: "stream",
      path: "/test.Bytes/Download",
      async handler(call: StreamCall) {
        for (let at = 0; at < blob.length; at += 300_000) {
          const piece = Buffer.from(blob.subarray(at, at + 300_000));
          // Given back, it is overwritten: octets that have not left yet would not be the blob's.
          const written = () => {
            piece.fill(0xee);
            givenBack++;
          };
          await call.write([piece.subarray(0, 1), piece.subarray(1)], written);
        }
      },
    },
    {
      kind: "stream",
      path: "/test.Bytes/Upload",
      async handler(call: StreamCall) {
        const hash = createHash("sha256");
        for (let message = await call.read(); message !== undefined; message = await call.read()) {
          // Not at once: what was handed over must not change while the next reads come in.
          await sleep(message.length % 3);
          hash.update(message);
        }
        await call.write(hash.digest());
      },
    },
  ],
};

const call = (method: string): Buffer =>
  block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/test.Bytes/${method}`],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ]);
const message = (bytes: Uint8Array): Buffer => {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([prefix, bytes]);
};
/** The messages in the DATA frames of a stream. */
function messagesOf(peer: SocketPeer, streamId: number): Buffer[] {
  const body = Buffer.concat(
    peer.frames.filter((frame) => frame.type === 0 && frame.streamId === streamId).map(({ payload }) => payload),
  );
  const messages: Buffer[] = [];
  for (let at = 0; at < body.length; at += 5 + body.readUInt32BE(at + 1))
    messages.push(body.subarray(at + 5, at + 5 + body.readUInt32BE(at + 1)));
  return messages;
}

describe("ConnectionDriver", () => {
  const peers: SocketPeer[] = [];
  let transport: ServerTransport | undefined;
  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.socket.destroy();
    await transport?.close({ signal: AbortSignal.abort() });
  });

  async function start(): Promise<number> {
    transport = createServerTransport({
      services: [SERVICE],
      http1: (_request, response) => response.end(),
      defaultMaxRequestBytes: 4 * MIB,
      logger: silentLogger,
      metrics: new MetricsRegistry(),
    });
    const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
    return address.kind === "tcp" ? address.port : 0;
  }

  async function open(port: number): Promise<SocketPeer> {
    const peer = await SocketPeer.open(port);
    peers.push(peer);
    return peer;
  }

  const ended = (peer: SocketPeer, streamId: number): Promise<unknown> =>
    peer.until((frame) => frame.streamId === streamId && frame.type <= 1 && (frame.flags & END_STREAM) !== 0);

  // More than the 128 that one turn takes, so the rest is set aside and reading stops meanwhile.
  it("answers a thousand requests that came in one piece (L-14)", async () => {
    const peer = await open(await start());
    const ids = Array.from({ length: 1000 }, (_, index) => 1 + 2 * index);
    peer.send(
      ...ids.flatMap((id) => [
        headers(id, call("Echo"), END_HEADERS),
        data(id, message(Buffer.from(String(id))), END_STREAM),
      ]),
    );
    await ended(peer, 1999);
    expect(ids.map((id) => messagesOf(peer, id).map(String))).toEqual(ids.map((id) => [String(id)]));
  });

  // All connections are read into one buffer: what is set aside must not be in it any more.
  it("answers ten such bursts at once, each with its own octets (L-14)", async () => {
    const port = await start();
    const burstPeers = await Promise.all(Array.from({ length: 10 }, () => open(port)));
    const ids = Array.from({ length: 1000 }, (_, index) => 1 + 2 * index);
    const text = (peer: number, id: number): string => `${"x".repeat(peer)} ${id}`;
    for (const [position, peer] of burstPeers.entries()) {
      const requests = ids.flatMap((id) => [
        headers(id, call("Echo"), END_HEADERS),
        data(id, message(Buffer.from(text(position, id))), END_STREAM),
      ]);
      peer.send(...requests);
    }
    for (const [position, peer] of burstPeers.entries()) {
      await ended(peer, 1999);
      expect(ids.map((id) => messagesOf(peer, id).map(String))).toEqual(ids.map((id) => [text(position, id)]));
    }
  });

  it("delivers a download byte for byte to a client that reads in fits and starts", async () => {
    const peer = await open(await start());
    peer.send(settings([[4, 2 ** 31 - 1]]), windowUpdate(0, 1_000_000_000));
    peer.send(headers(1, call("Download"), END_HEADERS), data(1, message(Buffer.alloc(0)), END_STREAM));
    const done = ended(peer, 1);
    for (let pause = 0; pause < 20; pause++) {
      peer.socket.pause();
      await sleep(5);
      peer.socket.resume();
      await sleep(5);
    }
    await done;
    expect(Buffer.concat(messagesOf(peer, 1)).equals(blob)).toBe(true);
    expect(givenBack).toBeGreaterThan(0);
  });

  it("delivers a download byte for byte through small windows", async () => {
    const peer = await open(await start());
    peer.send(
      settings([[4, 10_000]]),
      headers(1, call("Download"), END_HEADERS),
      data(1, message(Buffer.alloc(0)), END_STREAM),
    );
    let granted = 0;
    peer.socket.on("data", () => {
      const received = peer.frames.reduce((sum, frame) => sum + (frame.type === 0 ? frame.payload.length : 0), 0);
      if (received - granted < 4000) return;
      peer.send(windowUpdate(0, received - granted), windowUpdate(1, Math.min(received - granted, 2 ** 20)));
      granted = received;
      // A window that grows with what was taken, so that the test ends soon.
      if (granted < 100_000) peer.send(windowUpdate(1, 300_000), windowUpdate(0, 300_000));
    });
    await ended(peer, 1);
    expect(Buffer.concat(messagesOf(peer, 1)).equals(blob)).toBe(true);
  });

  // All connections read into one buffer (P-2): whatever is kept of it by mistake shows as a wrong hash.
  it("takes uploads of many connections at once, each byte for byte", async () => {
    const port = await start();
    const sums = await Promise.all(
      Array.from({ length: 16 }, async (_, index) => {
        const peer = await open(port);
        const parts = Array.from({ length: 10 }, (__, part) =>
          randomBytes(1 + (((index + 1) * (part + 1) * 997) % 90_000)),
        );
        peer.send(headers(1, call("Upload"), END_HEADERS));
        const body = Buffer.concat(parts.map(message));
        for (let at = 0; at < body.length; at += 16_384) {
          const chunk = body.subarray(at, at + 16_384);
          peer.send(data(1, chunk, at + 16_384 >= body.length ? END_STREAM : 0));
          if (at % 3 === 0) await sleep(1);
        }
        await ended(peer, 1);
        const expected = createHash("sha256");
        for (const part of parts) expected.update(part);
        return messagesOf(peer, 1)[0]?.equals(expected.digest());
      }),
    );
    expect(sums).toEqual(Array.from({ length: 16 }, () => true));
  });
});
