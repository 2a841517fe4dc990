// TLS and mutual TLS of the transport: ALPN, versions, client certificates, reload.

import { once } from "node:events";
import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { connect as connectTls, type ConnectionOptions } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { TlsOptions } from "../../src/grpc/server.ts";
import type { Call } from "../../src/grpc/service.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import type { Logger } from "../../src/telemetry/log.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { makeAuthority, makeCertificate, type CertificatePaths } from "./certificates.ts";

const asIs = (bytes: Buffer): Buffer => bytes;

describe("transport over TLS", () => {
  const cleanups: (() => Promise<void> | void)[] = [];
  let directory = "";
  let authority: CertificatePaths;
  let server: CertificatePaths;
  let client: CertificatePaths;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "tls-"));
    authority = makeAuthority(directory);
    server = makeCertificate(directory, "server", authority);
    client = makeCertificate(directory, "client", authority);
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  });

  async function start(tls: Partial<TlsOptions> = {}, logger: Logger = silentLogger): Promise<number> {
    const transport = createServerTransport({
      services: [
        {
          name: "test.Tls",
          methods: [
            {
              kind: "unary",
              path: "/test.Tls/Who",
              handler: (_request: Uint8Array, call: Call) =>
                new TextEncoder().encode(JSON.stringify(call.clientCertificate ?? null)),
            },
          ],
        },
      ],
      http1: (_request, response) => response.end("plain"),
      defaultMaxRequestBytes: 8 * 1024 * 1024,
      logger,
      metrics: new MetricsRegistry(),
      tls: { certPath: server.cert, keyPath: server.key, minVersion: "TLSv1.2", ...tls },
    });
    const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
    cleanups.push(() => transport.close({ signal: AbortSignal.abort() }));
    return address.kind === "tcp" ? address.port : 0;
  }

  async function who(port: number, clientFiles?: CertificatePaths): Promise<string> {
    const ca = await readFile(authority.cert);
    const key = clientFiles === undefined ? null : await readFile(clientFiles.key);
    const cert = clientFiles === undefined ? null : await readFile(clientFiles.cert);
    const rpc = new grpc.Client(`localhost:${port}`, grpc.credentials.createSsl(ca, key, cert), {
      "grpc.use_local_subchannel_pool": 1,
    });
    cleanups.push(() => rpc.close());
    return new Promise((resolve, reject) => {
      rpc.makeUnaryRequest(
        "/test.Tls/Who",
        asIs,
        asIs,
        Buffer.alloc(0),
        { deadline: Date.now() + 5000 },
        (error, response) => {
          if (error === null) resolve(String(response));
          else reject(error);
        },
      );
    });
  }

  /** What the handshake settles on; rejects when it fails. */
  function handshake(
    port: number,
    options: ConnectionOptions,
  ): Promise<{ readonly alpn: string | false | null; readonly version: string | null; readonly subject: string }> {
    return new Promise((resolve, reject) => {
      const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options }, () => {
        resolve({
          alpn: socket.alpnProtocol,
          version: socket.getProtocol(),
          subject: socket.getPeerX509Certificate()?.subject ?? "",
        });
        socket.destroy();
      });
      socket.on("error", reject);
    });
  }

  it("serves gRPC with ALPN h2, and HTTP/1.1 to those who ask for nothing or for it (F-2, F-97)", async () => {
    const port = await start();
    expect(await who(port)).toBe("null");
    for (const ALPNProtocols of [undefined, ["http/1.1"]]) {
      const answer = await new Promise<string>((resolve, reject) => {
        request(
          {
            port,
            host: "127.0.0.1",
            path: "/",
            rejectUnauthorized: false,
            agent: false,
            ...(ALPNProtocols === undefined ? {} : { ALPNProtocols }),
          },
          (response) => {
            text(response).then(resolve, reject);
          },
        )
          .on("error", reject)
          .end();
      });
      expect(answer).toBe("plain");
    }
    expect(await handshake(port, { ALPNProtocols: ["http/1.1", "h2"] })).toMatchObject({ alpn: "h2" });
  });

  it("closes a connection that chose h2 and speaks something else (F-2)", async () => {
    const port = await start();
    const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] });
    socket.on("error", () => undefined);
    socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(await text(socket).catch(() => "")).toBe("");
  });

  it("demands a client certificate of the named authority, and tells handlers who it is", async () => {
    const port = await start({ clientCaPath: authority.cert });
    const named = JSON.parse(await who(port, client)) as Record<string, unknown>;
    expect(named["subject"]).toContain("CN=client");
    expect(named["subjectAltNames"]).toEqual(["DNS:localhost", "IP Address:127.0.0.1"]);
    await expect(who(port)).rejects.toThrow(/UNAVAILABLE/);
    const strangerDirectory = await mkdtemp(join(tmpdir(), "tls-"));
    cleanups.push(() => rm(strangerDirectory, { recursive: true, force: true }));
    const stranger = makeCertificate(strangerDirectory, "stranger", makeAuthority(strangerDirectory));
    await expect(who(port, stranger)).rejects.toThrow(/UNAVAILABLE/);
  });

  it("refuses versions below the least one", async () => {
    const port = await start({ minVersion: "TLSv1.3" });
    expect(await handshake(port, {})).toMatchObject({ version: "TLSv1.3" });
    await expect(handshake(port, { maxVersion: "TLSv1.2" })).rejects.toThrow();
    const older = await start();
    expect(await handshake(older, { maxVersion: "TLSv1.2" })).toMatchObject({ version: "TLSv1.2" });
    await expect(
      handshake(older, { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" }),
    ).rejects.toThrow();
  });

  it("does not start with a certificate that does not fit its key, naming the files", async () => {
    await expect(start({ keyPath: client.key })).rejects.toThrow(new RegExp(`${server.cert}.*${client.key}`));
    await expect(start({ certPath: join(directory, "none.crt") })).rejects.toThrow(/none\.crt/);
    const broken = join(directory, "broken.crt");
    await writeFile(broken, "no certificate");
    await expect(start({ certPath: broken })).rejects.toThrow(/broken\.crt/);
  });

  it("uses new files for new connections, keeps old ones going, and keeps out a pair that does not fit", async () => {
    const certPath = join(directory, "live.crt");
    const keyPath = join(directory, "live.key");
    await copyFile(server.cert, certPath);
    await copyFile(server.key, keyPath);
    const warnings: string[] = [];
    const port = await start(
      { certPath, keyPath },
      { ...silentLogger, warn: (_message, fields) => void warnings.push(String(fields?.["reason"])) },
    );
    const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false });
    cleanups.push(() => session.destroy());
    const ping = (): Promise<void> =>
      new Promise((resolve, reject) => session.ping((error) => (error instanceof Error ? reject(error) : resolve())));
    await once(session, "connect");
    await ping();
    expect((await handshake(port, {})).subject).toContain("CN=server");

    await copyFile(client.cert, certPath);
    await expect.poll(() => warnings.length, { timeout: 15_000 }).toBeGreaterThan(0);
    expect(warnings[0]).toContain("does not belong to the key");
    expect((await handshake(port, {})).subject).toContain("CN=server");

    await copyFile(client.key, keyPath);
    await expect.poll(async () => (await handshake(port, {})).subject, { timeout: 15_000 }).toContain("CN=client");
    await ping();
  });
});
