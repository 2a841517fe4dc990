// Messages under way share a bounded memory, and one that stops arriving ends its call (FC-16, L-22).

import { afterEach, describe, expect, it, vi } from "vitest";
import { Dispatcher } from "../../src/grpc/dispatcher.ts";
import { MethodTable } from "../../src/grpc/method-table.ts";
import { UploadMemory } from "../../src/grpc/upload-memory.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { block, data, END_HEADERS, END_STREAM, headers, rst } from "../http2/frames.ts";
import { MemoryPeer } from "../http2/memory-peer.ts";
import { TestService } from "./test-service.ts";

const KIB = 1024;
const call = (path: string): Buffer =>
  block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", `/test.Echo/${path}`],
    ["content-type", "application/grpc"],
  ]);
/** The prefix of a message of `sizeBytes`, and its first octets. */
const start = (sizeBytes: number, octets = 0): Buffer => {
  const bytes = Buffer.alloc(5 + octets);
  bytes.writeUInt32BE(sizeBytes, 1);
  return bytes;
};

describe("messages under way", () => {
  afterEach(() => vi.useRealTimers());

  function serve(maxBytes: number): { readonly peer: MemoryPeer; readonly memory: UploadMemory } {
    const memory = new UploadMemory(maxBytes);
    const services = [new TestService().definition];
    const methods = new MethodTable({
      services,
      defaultMaxRequestBytes: 8 * KIB * KIB,
      metrics: new MetricsRegistry(),
    });
    const dispatcher = new Dispatcher(methods, silentLogger, memory);
    return { peer: new MemoryPeer({ onRequest: (stream) => dispatcher.accept(stream) }), memory };
  }

  it("reserve on the prefix and give back when whole, reset, or gone with the connection", () => {
    const { peer, memory } = serve(1024 * KIB);
    peer.send(headers(1, call("Sync"), END_HEADERS), data(1, start(200 * KIB, 10)));
    expect(memory.usedBytes).toBe(200 * KIB - 10);
    for (let rest = 200 * KIB - 10; rest > 0; rest -= 10_000) peer.send(data(1, Buffer.alloc(Math.min(rest, 10_000))));
    expect(memory.usedBytes).toBe(0);
    peer.send(data(1, Buffer.alloc(0), END_STREAM));
    expect(peer.lines().at(-1)).toMatch(/^(HEADERS|DATA)\(1\)/);
    for (const [id, method] of [
      [3, "Sync"],
      [5, "Sum"],
    ] as const) {
      peer.send(headers(id, call(method), END_HEADERS), data(id, start(300 * KIB)));
      expect(memory.usedBytes).toBe(300 * KIB);
      peer.send(rst(id));
      expect(memory.usedBytes).toBe(0);
    }
    peer.send(headers(7, call("Sum"), END_HEADERS), data(7, start(300 * KIB)));
    peer.connection.onSocketClosed();
    expect(memory.usedBytes).toBe(0);
  });

  it("end a call with UNAVAILABLE when all is taken, and let the next ones in afterwards", () => {
    const { peer, memory } = serve(500 * KIB);
    peer.send(
      headers(1, call("Sync"), END_HEADERS),
      data(1, start(400 * KIB)),
      headers(3, call("Sync"), END_HEADERS),
      data(3, start(400 * KIB)),
    );
    expect(memory.usedBytes).toBe(400 * KIB);
    expect(peer.lines()).toContain("HEADERS(3) END_STREAM");
    peer.send(rst(1), headers(5, call("Sync"), END_HEADERS), data(5, start(400 * KIB)));
    expect(peer.lines()).not.toContain("HEADERS(5) END_STREAM");
    expect(memory.usedBytes).toBe(400 * KIB);
  });

  it("count each message of a stream of its own", () => {
    const { peer, memory } = serve(1024 * KIB);
    peer.send(headers(1, call("Sum"), END_HEADERS), data(1, start(100 * KIB)));
    for (let rest = 100 * KIB; rest > 0; rest -= 10 * KIB) peer.send(data(1, Buffer.alloc(10 * KIB)));
    peer.send(data(1, start(70 * KIB, 1)));
    expect(memory.usedBytes).toBe(70 * KIB - 1);
  });

  it("end a call whose message stops arriving, and none that waits between messages (A-21)", () => {
    vi.useFakeTimers();
    const { peer, memory } = serve(1024 * KIB);
    peer.send(headers(1, call("Sum"), END_HEADERS), data(1, start(200 * KIB, 10)));
    peer.send(headers(3, call("Sum"), END_HEADERS), data(3, start(10, 10)));
    for (let minute = 0; minute < 3; minute++) {
      peer.send(data(1, Buffer.alloc(1)));
      vi.advanceTimersByTime(60_100);
    }
    peer.frames();
    expect(memory.usedBytes).toBe(0);
    expect(peer.requests.map((stream) => stream.closed)).toEqual([true, false]);
  });
});
