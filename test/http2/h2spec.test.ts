// The transport against h2spec, the conformance suite for RFC 9113 and RFC 7541, plain and over TLS (T-1, T-3).

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ServerTransport, TlsOptions } from "../../src/grpc/server.ts";
import { createServerTransport } from "../../src/grpc/transport.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { makeAuthority, makeCertificate } from "../grpc/certificates.ts";
import { runToEnd } from "../support/child-output.ts";
import { h2specPath } from "../support/fetched-clients.ts";

/** What the suite had when this was written; a smaller number means that it did not run. */
const LEAST_CASES = 146;

describe("h2spec --strict", () => {
  let directory = "";
  let program = "";
  let tls: TlsOptions;
  const transports: ServerTransport[] = [];

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "h2spec-"));
    const { cert, key } = makeCertificate(directory, "server", makeAuthority(directory));
    tls = { certPath: cert, keyPath: key, minVersion: "TLSv1.2" };
    program = await h2specPath();
  }, 600_000);
  afterAll(async () => {
    for (const transport of transports) await transport.close({ signal: AbortSignal.abort() });
    await rm(directory, { recursive: true, force: true });
  });

  it.each(["plain", "TLS"])(
    "passes every case over %s",
    async (kind) => {
      const transport = createServerTransport({
        services: [],
        http1: (_request, response) => response.writeHead(400).end(),
        defaultMaxRequestBytes: 1024 * 1024,
        logger: silentLogger,
        metrics: new MetricsRegistry(),
        ...(kind === "TLS" ? { tls } : {}),
      });
      transports.push(transport);
      const address = await transport.listen({ kind: "tcp", host: "127.0.0.1", port: 0 });
      const port = address.kind === "tcp" ? String(address.port) : "";
      const args = ["-h", "127.0.0.1", "-p", port, "-o", "10", "--strict", ...(kind === "TLS" ? ["-t", "-k"] : [])];
      const { stdout } = await runToEnd(program, args, { timeoutMs: 120_000 });
      const summary = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/.exec(stdout);
      if (summary?.[4] !== "0") throw new Error(stdout.slice(Math.max(stdout.indexOf("Failures:"), 0)));
      expect(Number(summary?.[2])).toBeGreaterThanOrEqual(LEAST_CASES);
    },
    130_000,
  );
});
