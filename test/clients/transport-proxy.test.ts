// The transport of dist/ledge and gRPC's C core (Python's grpcio): directly, over TLS and mutual TLS, and through nginx, which
// opens a connection of its own for each call. And curl, which knows HTTP/2 and no gRPC.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeAuthority, makeCertificate, type CertificatePaths } from "../grpc/certificates.ts";
import { runToEnd } from "../support/child-output.ts";
import { nginxPath } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { runPythonScript } from "../support/python-script.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

const CHECKS = 11;

let folder: TemporaryFolder;
let authority: CertificatePaths;
let server: CertificatePaths;
let client: CertificatePaths;
let plain: LedgeServer;
let mutual: LedgeServer;
let nginx: ChildProcess;

beforeAll(async () => {
  folder = await TemporaryFolder.create("transport-proxy");
  authority = makeAuthority(folder.path);
  server = makeCertificate(folder.path, "server", authority);
  client = makeCertificate(folder.path, "client", authority);
  const tls = ["--tls-cert", server.cert, "--tls-key", server.key];
  const flags = ["--slots", "0", "--max-size", "2GiB"];
  [plain, mutual] = await Promise.all([
    LedgeServer.start({ flags }),
    LedgeServer.start({ flags: [...flags, ...tls, "--tls-client-ca", authority.cert] }),
  ]);
  nginx = await startNginx();
}, patient.timeout);

afterAll(async () => {
  if (nginx !== undefined && nginx.exitCode === null) {
    nginx.kill();
    await once(nginx, "exit");
  }
  await plain?.[Symbol.asyncDispose]();
  await mutual?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
}, patient.timeout);

const socketOf = (name: string): string => join(folder.path, `${name}.socket`);

/** One socket in the clear in front of the plain server, and one over TLS in front of mutual TLS. */
async function startNginx(): Promise<ChildProcess> {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${join(folder.path, name)};`,
  );
  const config = `
    daemon off;
    ${process.getuid?.() === 0 ? "user root;" : ""}
    pid ${join(folder.path, "nginx.pid")};
    error_log ${join(folder.path, "nginx.log")};
    events { worker_connections 8192; }
    http {
      access_log off;
      ${temporary.join(" ")}
      client_max_body_size 0;
      http2_max_concurrent_streams 1024;
      keepalive_requests 1000000;
      # The API's header names have dots, for which nginx would drop them.
      ignore_invalid_headers off;
      server { listen unix:${socketOf("clear")} http2; location / { grpc_pass grpc://${plain.address}; } }
      server {
        listen unix:${socketOf("secure")} ssl http2;
        ssl_certificate ${server.cert};
        ssl_certificate_key ${server.key};
        location / {
          grpc_pass grpcs://${mutual.address};
          grpc_ssl_certificate ${client.cert};
          grpc_ssl_certificate_key ${client.key};
          grpc_ssl_trusted_certificate ${authority.cert};
          grpc_ssl_verify on;
          grpc_ssl_name localhost;
        }
      }
    }`;
  const file = join(folder.path, "nginx.conf");
  writeFileSync(file, config);
  const child = spawn(await nginxPath(), ["-p", folder.path, "-c", file], { stdio: "ignore" });
  while (!existsSync(socketOf("secure"))) {
    if (child.exitCode !== null)
      throw new Error(`nginx ended: ${readFileSync(join(folder.path, "nginx.log"), "utf8")}`);
    await sleep(20);
  }
  return child;
}

describe("every kind of call of gRPC's C core works", patient, () => {
  const ways: readonly [name: string, args: () => readonly string[]][] = [
    ["directly", () => [plain.address]],
    ["over mutual TLS", () => [mutual.address, authority.cert, client.key, client.cert]],
    ["through nginx", () => [`unix:${socketOf("clear")}`]],
    ["through nginx, TLS on both sides of it", () => [`unix:${socketOf("secure")}`, authority.cert]],
  ];

  test.each(ways)("%s", async (_name, args) => {
    const output = await runPythonScript("transport", ...args());
    expect(output.exitCode, `${output.stdout}\n${output.stderr}`).toBe(0);
    expect(output.stdout.match(/^right: /gm)).toHaveLength(CHECKS);
  });
});

describe("curl", patient, () => {
  const health = "/grpc.health.v1.Health/Check";

  test("calls a method over HTTP/2 without being asked to upgrade, and sees the trailers", async () => {
    const body = join(folder.path, "empty-message");
    writeFileSync(body, Buffer.alloc(5));
    const headers = ["content-type: application/grpc", "te: trailers"].flatMap((header) => ["-H", header]);
    const args = [
      "-sv",
      "--http2-prior-knowledge",
      ...headers,
      "--data-binary",
      `@${body}`,
      "-o",
      join(folder.path, "answer"),
    ];
    const { stderr, exitCode } = await runToEnd("curl", [...args, `http://${plain.address}${health}`]);
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(/^< HTTP\/2 200/m);
    expect(stderr).toMatch(/^< grpc-status: 0/m);
    expect(readFileSync(join(folder.path, "answer")).toString("hex")).toBe("00000000020801");
  });

  test("is told what this port is for", async () => {
    const { stdout } = await runToEnd("curl", ["-si", "--http2-prior-knowledge", `http://${plain.address}${health}`]);
    expect(stdout).toMatch(/^HTTP\/2 415/);
    expect(stdout).toContain("This port speaks gRPC");
  });
});
