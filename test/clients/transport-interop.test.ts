// The transport of dist/ledge and clients with HTTP/2 stacks of their own: nghttp2 (h2load) in the clear, grpc-go (grpcurl)
// and @grpc/grpc-js over mutual TLS, with a thousand streams on a connection.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ByteStream, WriteRequest, WriteResponse } from "../../src/proto/bytestream.ts";
import { makeAuthority, makeCertificate, type CertificatePaths } from "../grpc/certificates.ts";
import { runToEnd } from "../support/child-output.ts";
import { grpcurlPath } from "../support/fetched-clients.ts";
import { LedgeServer } from "../support/ledge-server.ts";
import { patient } from "../support/patience.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

const CHECK = "/grpc.health.v1.Health/Check";
const asIs = (bytes: Buffer): Buffer => bytes;

let folder: TemporaryFolder;
let plain: LedgeServer;
let secure: LedgeServer;
let grpcurl: string;
let authority: CertificatePaths;
let client: CertificatePaths;

beforeAll(async () => {
  folder = await TemporaryFolder.create("transport-interop");
  authority = makeAuthority(folder.path);
  const server = makeCertificate(folder.path, "server", authority);
  client = makeCertificate(folder.path, "client", authority);
  const tls = ["--tls-cert", server.cert, "--tls-key", server.key, "--tls-client-ca", authority.cert];
  [plain, secure, grpcurl] = await Promise.all([
    LedgeServer.start({ flags: ["--slots", "0"] }),
    LedgeServer.start({ flags: ["--slots", "0", ...tls] }),
    grpcurlPath(),
  ]);
}, patient.timeout);

afterAll(async () => {
  await plain?.[Symbol.asyncDispose]();
  await secure?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
}, patient.timeout);

describe("the transport with other HTTP/2 stacks", patient, () => {
  test("answers 20,000 calls of h2load, a thousand streams at a time on one connection", async () => {
    const body = join(folder.path, "empty-message");
    writeFileSync(body, Buffer.alloc(5));
    const args = ["-n", "20000", "-c", "1", "-m", "1000", "-d", body, "-H", "content-type: application/grpc"];
    const { stdout, exitCode } = await runToEnd("h2load", [...args, `http://${plain.address}${CHECK}`]);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout");
    expect(stdout).toContain("status codes: 20000 2xx");
  });

  test("lets grpcurl in with a certificate, and nobody without", async () => {
    const trust = ["-cacert", authority.cert];
    const call = [secure.address, CHECK.slice(1)];
    const known = await runToEnd(grpcurl, [...trust, "-cert", client.cert, "-key", client.key, ...call]);
    expect(JSON.parse(known.stdout)).toEqual({ status: "SERVING" });
    const stranger = await runToEnd(grpcurl, ["-connect-timeout", "5", ...trust, ...call]);
    expect(stranger.exitCode).not.toBe(0);
    const clear = await runToEnd(grpcurl, ["-connect-timeout", "5", "-plaintext", ...call]);
    expect(clear.exitCode).not.toBe(0);
  });

  test("answers a thousand calls at once of @grpc/grpc-js on one connection over mutual TLS", async () => {
    const security = grpc.credentials.createSsl(
      readFileSync(authority.cert),
      readFileSync(client.key),
      readFileSync(client.cert),
    );
    const channel = new grpc.Client(secure.address, security, {
      "grpc.use_local_subchannel_pool": 1,
      // grpc-js would send the address as a server name, which Node refuses.
      "grpc.ssl_target_name_override": "localhost",
    });
    try {
      const check = promisify((done: (error: Error | null, answer?: Buffer) => void) =>
        channel.makeUnaryRequest(CHECK, asIs, asIs, Buffer.alloc(0), new grpc.Metadata(), done),
      );
      const answers = await Promise.all(Array.from({ length: 1000 }, () => check()));
      // HealthCheckResponse with status SERVING: field 1, value 1.
      expect(new Set(answers.map((answer) => answer?.toString("hex")))).toEqual(new Set(["0801"]));
    } finally {
      channel.close();
    }
  });

  // The clients of a fleet behind a load balancer: nothing that they do may fail because their connection got too old.
  test("asks connections to end at their age, without a failed call and without cutting an upload off", async () => {
    await using aging = await LedgeServer.start({ flags: ["--slots", "0", "--max-connection-age", "1s"] });
    const channel = new grpc.Client(aging.address, grpc.credentials.createInsecure());
    try {
      const check = promisify((done: (error: Error | null, answer?: Buffer) => void) =>
        channel.makeUnaryRequest(CHECK, asIs, asIs, Buffer.alloc(0), new grpc.Metadata(), done),
      );
      const data = Buffer.alloc(2 * 1024 * 1024, "a");
      const name = `uploads/${randomUUID()}/blobs/${createHash("sha256").update(data).digest("hex")}/${data.length}`;
      const half = (start: number): Buffer =>
        Buffer.from(
          WriteRequest.encode({
            resourceName: name,
            writeOffset: start,
            finishWrite: start > 0,
            data: data.subarray(start, start + data.length / 2),
          }),
        );
      let upload: grpc.ClientWritableStream<Buffer> | undefined;
      const written = new Promise<Buffer | undefined>((resolve, reject) => {
        upload = channel.makeClientStreamRequest(ByteStream.methods.Write.path, asIs, asIs, (error, answer?: Buffer) =>
          error === null ? resolve(answer) : reject(error),
        );
      });
      upload?.write(half(0));
      while ((await limitsReached(aging, "connection_age")) < 3) await check();
      upload?.end(half(data.length / 2));
      expect(WriteResponse.decode((await written) ?? Buffer.alloc(0)).committedSize).toBe(data.length);
    } finally {
      channel.close();
    }
  });
});

async function limitsReached(server: LedgeServer, limit: string): Promise<number> {
  const page = await (await fetch(`http://${server.address}/metrics`)).text();
  return Number(
    new RegExp(`^ledge_http2_limits_reached_total\\{limit="${limit}"\\} (\\d+)$`, "m").exec(page)?.[1] ?? 0,
  );
}
