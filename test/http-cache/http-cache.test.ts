// The HTTP cache over real connections, with node:http as server and raw sockets or node:http as client.

import { createServer, request as httpRequest, type IncomingHttpHeaders, type Server } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { once } from "node:events";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { CompletenessCheckingActionCache } from "../../src/action-cache/completeness-checking-action-cache.ts";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { ManualClock } from "../../src/base/clock.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { MemoryOpaqueStore } from "../../src/cas/memory-opaque-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { createHttpCache } from "../../src/http-cache/http-cache.ts";
import { ActionResult } from "../../src/proto/remote_execution.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { noise, sample, store } from "../services/sample-blobs.ts";

const zstd = new ZstdPool({ threads: 1 });
afterAll(() => zstd.close());

let server: Server;
let port: number;
let blobs: MemoryBlobStore;
let actionCache: CompletenessCheckingActionCache;

beforeEach(async () => {
  blobs = new MemoryBlobStore();
  const metrics = new MetricsRegistry();
  metrics.counter("ledge_test_total", 'A "test".', { label: 'a"b\\c\nd' }).add(3);
  actionCache = new CompletenessCheckingActionCache(new MemoryActionCache(), blobs, metrics);
  const handler = createHttpCache({
    blobs,
    zstd,
    actionCache,
    opaque: new MemoryOpaqueStore({ clock: new ManualClock() }),
    opaquePrefixes: ["/opaque", "/second/prefix/"],
    maxOpaqueBytes: 1_000_000,
    maxBlobSizeBytes: 100_000_000,
    clock: new ManualClock(),
    digestOf,
    metrics,
    logger: silentLogger,
    storageStatus: () => ({ currentBytes: 11, reservedBytes: 22, maxBytes: 33, entryCount: 44 }),
    version: "1.2.3",
    gitCommit: "abc",
  });
  server = createServer(handler);
  server.on("checkContinue", handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

interface Options {
  readonly headers?: Record<string, string | number>;
  readonly body?: Uint8Array;
}

async function send(method: string, path: string, options: Options = {}): Promise<Answer> {
  const request = httpRequest({ host: "127.0.0.1", port, method, path, headers: options.headers ?? {}, agent: false });
  request.end(options.body);
  const [response] = (await once(request, "response")) as [import("node:http").IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
}

/** Sends bytes as they are and returns everything that comes back until the server closes or `until` has come. */
async function sendRaw(parts: readonly (string | Uint8Array)[], until?: RegExp): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  for (const part of parts) socket.write(part);
  let text = "";
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    text += chunk.toString("latin1");
    if (until?.test(text)) break;
  }
  socket.destroy();
  return text;
}

describe("/cas", () => {
  test("PUT, GET and HEAD of blobs small and large, under any prefix", async () => {
    for (const sizeBytes of [5, 100_000, 3_000_000]) {
      const { data, digest } = sample(noise(sizeBytes));
      expect((await send("PUT", `/cas/${digest.hash}`, { body: data })).status).toBe(200);
      const got = await send("GET", `/some/instance/cas/${digest.hash}`);
      expect(got.status).toBe(200);
      expect(got.body.equals(data)).toBe(true);
      expect(got.headers["content-length"]).toBe(String(sizeBytes));
      expect(got.headers.etag).toBe(`"${digest.hash}"`);
      const head = await send("HEAD", `/cas/${digest.hash}`);
      expect([head.status, head.headers["content-length"], head.body.length]).toEqual([200, String(sizeBytes), 0]);
    }
  });

  test("absent blobs are 404 with a length, also for HEAD", async () => {
    const path = `/cas/${sample("absent").digest.hash}`;
    const got = await send("GET", path);
    expect(got.status).toBe(404);
    expect(got.headers["content-length"]).toBe(String(got.body.length));
    expect((await send("HEAD", path)).status).toBe(404);
  });

  test("the empty blob is always there", async () => {
    const got = await send("GET", `/cas/${sample("").digest.hash}`);
    expect([got.status, got.body.length, got.headers["content-length"]]).toEqual([200, 0, "0"]);
    expect((await send("PUT", `/cas/${sample("").digest.hash}`, { headers: { "Content-Length": 0 } })).status).toBe(
      200,
    );
  });

  test("BLAKE3 has a segment of its own", async () => {
    const { data, digest } = sample("blake", DigestFunction.BLAKE3);
    expect((await send("PUT", `/i/cas/blake3/${digest.hash}`, { body: data })).status).toBe(200);
    expect((await send("GET", `/cas/blake3/${digest.hash}`)).body.toString()).toBe("blake");
    expect((await send("GET", `/cas/${digest.hash}`)).status).toBe(404);
  });

  test("zstd goes to who accepts it", async () => {
    for (const repeat of [1000, 100_000]) {
      const text = "compressible ".repeat(repeat);
      const { hash } = await store(blobs, text);
      const got = await send("GET", `/cas/${hash}`, { headers: { "Accept-Encoding": "gzip, zstd;q=0.5" } });
      expect(got.headers["content-encoding"]).toBe("zstd");
      expect(zstdDecompressSync(got.body).toString()).toBe(text);
      const plain = await send("GET", `/cas/${hash}`, { headers: { "Accept-Encoding": "gzip, zstd;q=0" } });
      expect(plain.headers["content-encoding"]).toBeUndefined();
      expect(plain.headers.vary).toBe("Accept-Encoding");
    }
  });

  test("zstd is taken with the uncompressed size beside it", async () => {
    for (const repeat of [100, 100_000]) {
      const { data, digest } = sample("compressible ".repeat(repeat));
      const headers = { "Content-Encoding": "zstd", "X-Digest-SizeBytes": data.length };
      const { status } = await send("PUT", `/cas/${digest.hash}`, { headers, body: zstdCompressSync(data) });
      expect(status).toBe(200);
      expect(Buffer.from(blobs.get(digest)!).equals(data)).toBe(true);
    }
  });

  test("a chunked body is taken when X-Digest-SizeBytes says its size", async () => {
    const { data, digest } = sample("chunked");
    const headers = { "Transfer-Encoding": "chunked", "X-Digest-SizeBytes": data.length };
    expect((await send("PUT", `/cas/${digest.hash}`, { headers, body: data })).status).toBe(200);
  });

  test("single ranges are honoured, others ignored", async () => {
    const data = noise(200_000);
    const { hash } = await store(blobs, data);
    const range = async (value: string): Promise<Answer> =>
      send("GET", `/cas/${hash}`, { headers: { Range: value, "Accept-Encoding": "zstd" } });
    for (const [value, start, end] of [
      ["bytes=0-9", 0, 9],
      ["bytes=100-", 100, 199_999],
      ["bytes=-5", 199_995, 199_999],
      ["bytes=199990-999999", 199_990, 199_999],
    ] as const) {
      const got = await range(value);
      expect(got.status).toBe(206);
      expect(got.headers["content-range"]).toBe(`bytes ${start}-${end}/200000`);
      expect(got.body.equals(data.subarray(start, end + 1))).toBe(true);
    }
    const beyond = await range("bytes=200000-");
    expect(beyond.status).toBe(416);
    expect(beyond.headers["content-range"]).toBe("bytes */200000");
  });

  test("multi-ranges are answered with everything", async () => {
    const data = noise(1000);
    const { hash } = await store(blobs, data);
    const got = await send("GET", `/cas/${hash}`, { headers: { Range: "bytes=0-1,5-6" } });
    expect([got.status, got.body.length]).toEqual([200, 1000]);
  });

  test("If-None-Match answers 304 without a body", async () => {
    const { hash } = await store(blobs, "x");
    const got = await send("GET", `/cas/${hash}`, { headers: { "If-None-Match": `"other", "${hash}"` } });
    expect([got.status, got.body.length]).toEqual([304, 0]);
  });

  test("many PUTs of one blob at once all succeed", async () => {
    const { data, digest } = sample(noise(600_000));
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => send("PUT", `/cas/${digest.hash}`, { body: data })),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200));
  });
});

describe("connections", () => {
  test("are kept alive, also after errors and after duplicates", async () => {
    const { hash } = await store(blobs, "hello");
    const put = `PUT /cas/${hash} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello`;
    const bad = `PUT /cas/${"0".repeat(64)} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello`;
    const get = `GET /cas/${hash} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
    const text = await sendRaw([put, bad, "GET /cas/zz HTTP/1.1\r\nHost: x\r\n\r\n", put, get]);
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual([200, 400, 400, 200, 200].map((status) => `HTTP/1.1 ${status}`));
    expect(text.endsWith("hello")).toBe(true);
  });

  test("Expect: 100-continue is answered before the body, and a refusal instead of it", async () => {
    const { data, digest } = sample("expected");
    const head = (path: string) =>
      `PUT ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n`;
    const text = await sendRaw([head(`/cas/${digest.hash}`), data], /200 OK/);
    expect(text).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200/);
    const refused = await sendRaw([head("/cas/zz")]);
    expect(refused).toMatch(/^HTTP\/1\.1 400/);
    expect(refused).toContain("Connection: close");
  });

  test("a body that is cut stores nothing", async () => {
    const { digest } = sample("expected");
    const socket = connect(port, "127.0.0.1");
    socket.write(`PUT /cas/${digest.hash} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nexpe`);
    await new Promise((resolve) => setTimeout(resolve, 20));
    socket.destroy();
    await once(socket, "close");
    expect(blobs.has(digest)).toBe(false);
    expect((await send("GET", "/status")).status).toBe(200);
  });
});

describe("/ac", () => {
  const hash = "ab".repeat(32);

  test("PUT stores a result that gRPC sees under the instance name, and GET returns it", async () => {
    const digest = await store(blobs, "output");
    const body = ActionResult.encode({ outputFiles: [{ path: "a/b", digest }], stdoutRaw: Buffer.from("inline") });
    expect((await send("PUT", `/my/instance/ac/${hash}`, { body })).status).toBe(200);
    const stored = await actionCache.get({ instanceName: "my/instance", fn: DigestFunction.SHA256, hash });
    const got = await send("GET", `/my/instance/ac/${hash}`);
    expect(got.status).toBe(200);
    expect(got.headers["cache-control"]).toBe("no-cache");
    expect(got.body.equals(stored!)).toBe(true);
    const result = ActionResult.decode(got.body);
    expect(result.stdoutDigest?.sizeBytes).toBe(6);
    expect(result.executionMetadata?.worker).toMatch(/^127\.0\.0\.1:\d+$/);
    expect((await send("GET", `/ac/${hash}`)).status).toBe(404);
  });

  // For people with curl and jq. Only who names exactly this type gets it: Bazel accepts everything and wants bytes.
  test("JSON is taken and given when it is asked for, and is the same entry", async () => {
    const digest = await store(blobs, "output");
    const sizeBytes = String(digest.sizeBytes);
    const result = { outputFiles: [{ path: "a/b", digest: { hash: digest.hash, sizeBytes }, isExecutable: true }] };
    const headers = { "Content-Type": "application/json" };
    const body = Buffer.from(JSON.stringify(result));
    expect((await send("PUT", `/ac/${hash}`, { body, headers })).status).toBe(200);
    const bytes = await send("GET", `/ac/${hash}`, { headers: { Accept: "*/*" } });
    expect(ActionResult.decode(bytes.body).outputFiles[0]).toMatchObject({ path: "a/b", isExecutable: true });
    const got = await send("GET", `/ac/${hash}`, { headers: { Accept: "application/json" } });
    expect(got.headers["content-type"]).toBe("application/json");
    expect(JSON.parse(got.body.toString())).toMatchObject(result);
    const gone = { outputFiles: [{ path: "a", digest: { hash: sample("gone").digest.hash, sizeBytes: 4 } }] };
    await send("PUT", `/ac/${hash}`, { body: Buffer.from(JSON.stringify(gone)), headers });
    expect((await send("GET", `/ac/${hash}`, { headers: { Accept: "application/json" } })).status).toBe(404);
  });

  test("a result whose blobs are gone is absent, for GET and HEAD", async () => {
    const body = ActionResult.encode({ outputFiles: [{ path: "a", digest: sample("gone").digest }] });
    expect((await send("PUT", `/ac/${hash}`, { body })).status).toBe(200);
    expect((await send("GET", `/ac/${hash}`)).status).toBe(404);
    expect((await send("HEAD", `/ac/${hash}`)).status).toBe(404);
  });
});

describe("/opaque", () => {
  test("takes any key and any value, and overwrites", async () => {
    for (const prefix of ["/opaque", "/second/prefix"]) {
      const path = `${prefix}/ac/some%20key/x.o`;
      expect((await send("GET", path)).status).toBe(404);
      expect((await send("PUT", path, { body: Buffer.from("one") })).status).toBe(200);
      expect((await send("PUT", path, { body: Buffer.from("second") })).status).toBe(200);
      const got = await send("GET", path);
      expect([got.status, got.body.toString()]).toEqual([200, "second"]);
      expect((await send("HEAD", path)).headers["content-length"]).toBe("6");
      expect((await send("GET", path, { headers: { Range: "bytes=1-2" } })).body.toString()).toBe("ec");
      expect((await send("DELETE", path)).status).toBe(204);
      expect((await send("DELETE", path)).status).toBe(404);
    }
  });

  test("takes empty values and chunked bodies", async () => {
    await send("PUT", "/opaque/empty", { headers: { "Content-Length": 0 } });
    expect((await send("GET", "/opaque/empty")).status).toBe(200);
    const headers = { "Transfer-Encoding": "chunked" };
    expect((await send("PUT", "/opaque/chunked", { headers, body: Buffer.from("abc") })).status).toBe(200);
    expect((await send("GET", "/opaque/chunked")).body.toString()).toBe("abc");
  });

  // What OpenDAL does before it writes (sccache).
  test("answers PROPFIND and MKCOL for collections that nobody made", async () => {
    const collection = await send("PROPFIND", "/opaque/a/b/", { headers: { Depth: "0" } });
    expect(collection.status).toBe(207);
    expect(collection.body.toString()).toContain("<D:href>/opaque/a/b/</D:href>");
    expect(collection.body.toString()).toContain("<D:collection/>");
    expect(collection.body.toString()).toContain("HTTP/1.1 200 OK");
    expect((await send("MKCOL", "/opaque/a/b/")).status).toBe(201);
    expect((await send("PROPFIND", "/opaque/", { headers: { Depth: "0" } })).status).toBe(207);
    expect((await send("PROPFIND", "/opaque/key", { headers: { Depth: "0" } })).status).toBe(404);
    await send("PUT", "/opaque/key", { body: Buffer.from("value") });
    const file = await send("PROPFIND", "/opaque/key", { headers: { Depth: "0" } });
    expect(file.body.toString()).toMatch(/<D:getlastmodified>.* GMT<.*<D:getcontentlength>5</);
    expect((await send("PROPFIND", "/opaque/", { headers: { Depth: "1" } })).status).toBe(403);
  });

  test("refuses values above its limit before their bodies", async () => {
    const got = await send("PUT", "/opaque/big", { body: Buffer.alloc(1_000_001) });
    expect(got.status).toBe(413);
  });
});

test("/status has the names of bazel-remote", async () => {
  const { body, headers } = await send("GET", "/status");
  expect(headers["content-type"]).toBe("application/json");
  expect(JSON.parse(body.toString())).toEqual({
    CurrSize: 11,
    UncompressedSize: 11,
    ReservedSize: 22,
    MaxSize: 33,
    NumFiles: 44,
    ServerTime: 1000,
    GitCommit: "abc",
    GitTags: "1.2.3",
    NumGoroutines: 1,
  });
});

test("/metrics is Prometheus text", async () => {
  const { body } = await send("GET", "/metrics");
  expect(body.toString()).toContain(
    '# HELP ledge_test_total A "test".\n# TYPE ledge_test_total counter\nledge_test_total{label="a\\"b\\\\c\\nd"} 3\n',
  );
});
