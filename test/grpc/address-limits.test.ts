// L-16: what one client address may take, by the clock, and at a real socket.

import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { AddressLimits } from "../../src/grpc/address-limits.ts";
import type { TlsOptions } from "../../src/grpc/server.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { makeAuthority, makeCertificate } from "./certificates.ts";

describe("AddressLimits", () => {
  const standard = (): AddressLimits => new AddressLimits({ maxConnections: undefined });
  const countOpen = (limits: AddressLimits, address: string | undefined): number => {
    let count = 0;
    while (count < 1000 && limits.open(address, 0)) count++;
    return count;
  };

  it("gives each address 512 connections, and any number to this machine and to sockets without an address", () => {
    const limits = standard();
    const addresses = ["192.0.2.1", "192.0.2.2", "127.0.0.1", "::1", "::ffff:127.0.0.1", undefined];
    expect(addresses.map((address) => countOpen(limits, address))).toEqual([512, 512, 1000, 1000, 1000, 1000]);
  });

  it("gives a connection that ended to the next one", () => {
    const limits = new AddressLimits({ maxConnections: 2 });
    expect(countOpen(limits, "127.0.0.1")).toBe(2);
    limits.close("127.0.0.1");
    expect(countOpen(limits, "127.0.0.1")).toBe(1);
  });

  it("takes the addresses of one IPv6 network, and of an IPv4 one however it is written, for one", () => {
    const limits = new AddressLimits({ maxConnections: 3 });
    const opened = ["2001:db8::1", "2001:db8:0:0:ffff::2", "2001:db8:0:0:1:2:3:4", "2001:db8::5", "2001:db8:0:1::1"];
    expect(opened.map((address) => limits.open(address, 0))).toEqual([true, true, true, false, true]);
    expect(["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"].map((address) => limits.open(address, 0))).toEqual([
      true,
      true,
      true,
    ]);
    expect(limits.open("::FFFF:192.0.2.1", 0)).toBe(false);
  });

  it("has no limit when it is 0", () => {
    expect(countOpen(new AddressLimits({ maxConnections: 0 }), "192.0.2.1")).toBe(1000);
  });

  it("lets 200 TLS handshakes through at once and 50 a second after that", () => {
    const limits = standard();
    const count = (nowMs: number): number => {
      let passed = 0;
      while (limits.handshake("192.0.2.1", nowMs)) passed++;
      return passed;
    };
    expect([0, 0, 1000, 1100, 60_000].map(count)).toEqual([200, 0, 50, 5, 200]);
    expect(limits.handshake("192.0.2.2", 0)).toBe(true);
  });

  it("forgets an address when its connections have ended and its handshakes are past", () => {
    const limits = standard();
    limits.handshake("192.0.2.1", 0);
    limits.open("192.0.2.1", 0);
    limits.tick(60_000);
    expect(limits.size).toBe(1);
    limits.close("192.0.2.1");
    limits.tick(60_000);
    expect(limits.size).toBe(0);
  });
});

describe("a server that limits addresses", () => {
  const cleanups: (() => Promise<void> | void)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  });

  async function start(
    maxConnectionsPerAddress: number,
    tls?: TlsOptions,
  ): Promise<{ port: number; reached: (limit: string) => number }> {
    const metrics = new MetricsRegistry();
    const transport = createServerTransport({
      services: [],
      http1: (_request, response) => response.end("plain"),
      defaultMaxRequestBytes: 1024,
      logger: silentLogger,
      metrics,
      maxConnectionsPerAddress,
      ...(tls === undefined ? {} : { tls }),
    });
    cleanups.push(() => transport.close({ signal: AbortSignal.abort() }));
    const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
    const port = address.kind === "tcp" ? address.port : 0;
    const reached = (limit: string): number =>
      metrics
        .samples()
        .filter(({ name, labels }) => name === "ledge_http2_limits_reached_total" && labels?.["limit"] === limit)
        .reduce((sum, { value }) => sum + value, 0);
    return { port, reached };
  }

  /** Speaks HTTP/1.1, which also counts (P-46); true when it was answered. */
  function isServed(port: number): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1");
      cleanups.push(() => void socket.destroy());
      socket.once("data", () => resolve(true)).once("close", () => resolve(false));
      socket.on("error", () => undefined);
      socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    });
  }

  it("closes the connections of an address above its limit, counts them, and takes new ones when others end", async () => {
    const { port, reached } = await start(3);
    const served: boolean[] = [];
    for (let index = 0; index < 5; index++) served.push(await isServed(port));
    expect(served).toEqual([true, true, true, false, false]);
    expect(reached("address_connections")).toBe(2);
    for (const cleanup of cleanups.splice(1)) await cleanup();
    await expect.poll(() => isServed(port)).toBe(true);
  });

  it("A-33: turns a flood of TLS handshakes away before it costs cryptography", async () => {
    const directory = await mkdtemp(join(tmpdir(), "address-limits-"));
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    const { cert, key } = makeCertificate(directory, "server", makeAuthority(directory));
    const { port, reached } = await start(10_000, { certPath: cert, keyPath: key, minVersion: "TLSv1.3" });
    // Without a handshake of their own they cost the client nothing.
    const sockets = Array.from({ length: 400 }, () => connect(port, "127.0.0.1").on("error", () => undefined));
    cleanups.push(() => sockets.forEach((socket) => socket.destroy()));
    await expect.poll(() => reached("tls_handshakes")).toBeGreaterThan(0);
    // The budget fills up again, so whoever tries again gets in.
    const enters = (): Promise<boolean> =>
      new Promise((resolve) => {
        const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] });
        cleanups.push(() => void socket.destroy());
        socket.once("secureConnect", () => resolve(true)).once("close", () => resolve(false));
        socket.on("error", () => undefined);
      });
    await expect.poll(enters, { timeout: 10_000 }).toBe(true);
  });
});
