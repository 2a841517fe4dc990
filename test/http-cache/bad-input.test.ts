// What clients send wrong over HTTP: one row per case, with the status, the message, and a server that goes on.

import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { assertAlive, BadInputServer, hash } from "../services/bad-input-table.ts";
import { MAX_BLOB_SIZE_BYTES } from "../services/served.ts";
import { sample } from "../services/sample-blobs.ts";

const server = new BadInputServer();

describe("HTTP", () => {
  /** Sends bytes as they are; returns status line and body. */
  async function raw(request: string): Promise<string> {
    const socket = connect(server.served.port, "127.0.0.1");
    socket.write(request, "latin1"); // no half-close: Node takes that for a client that went away
    let text = "";
    for await (const chunk of socket as AsyncIterable<Buffer>) text += chunk.toString("latin1");
    return text;
  }
  const head = (line: string, headers = "") => `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`;
  const put = (path: string, body: string, headers = "") =>
    `${head(`PUT ${path}`, `Content-Length: ${body.length}\r\n${headers}`)}${body}`;

  test.each([
    ["a wrong method", head(`POST /cas/${hash}`, "Content-Length: 0\r\n"), 405, /POST is not possible/],
    ["DELETE of a blob", head(`DELETE /cas/${hash}`), 405, /only GET, HEAD, PUT/],
    ["PUT of the status", put("/status", "x"), 405, /only GET, HEAD/],
    ["a path with ..", head(`GET /a/../cas/${hash}`), 400, /segment "\.\."/],
    ["a path with %2e%2e", head(`GET /a/%2e%2E/cas/${hash}`), 400, /segment "\.\."/],
    ["a path with .", head(`GET /./cas/${hash}`), 400, /segment "\."/],
    ["a doubled slash", head(`GET //cas/${hash}`), 400, /empty segment/],
    ["an encoded slash", head(`GET /a%2fb/cas/${hash}`), 400, /contains a slash/],
    ["an encoded NUL", head(`GET /a%00b/cas/${hash}`), 400, /NUL/],
    ["bad percent-encoding", head(`GET /%zz/cas/${hash}`), 400, /not percent-encoded/],
    ["no segment ac or cas", head(`GET /blobs/${hash}`), 400, /no segment "ac" or "cas"/],
    ["no hash", head("GET /cas/"), 400, /one hash must follow "cas"/],
    ["a short hash", head("GET /cas/abc"), 400, /3 characters, expected 64/],
    ["an upper-case hash", head(`GET /cas/${hash.toUpperCase()}`), 400, /lower-case/],
    ["something behind the hash", head(`GET /cas/${hash}/x`), 400, /one hash must follow/],
    ["a reserved instance name", head(`GET /blobs/ac/${hash}`), 400, /reserved segment "blobs"/],
    ["PUT with another content", put(`/cas/${hash}`, "something else"), 400, /received bytes are/],
    ["PUT without a size", head(`PUT /cas/${hash}`), 411, /Content-Length/],
    [
      "PUT with a chunked body and no size",
      head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
      411,
      /./,
    ],
    [
      "sizes that contradict",
      put(`/cas/${hash}`, "abc", "X-Digest-SizeBytes: 4\r\n"),
      400,
      /says 4 bytes, Content-Length 3/,
    ],
    ["a size that is no number", put(`/cas/${hash}`, "abc", "X-Digest-SizeBytes: x\r\n"), 400, /not a decimal number/],
    ["an empty body for a hash", put(`/cas/${hash}`, ""), 400, /size_bytes is 0 but hash/],
    ["an unknown encoding", put(`/cas/${hash}`, "abc", "Content-Encoding: br\r\n"), 400, /"br" is not supported/],
    ["zstd without a size", put(`/cas/${hash}`, "abc", "Content-Encoding: zstd\r\n"), 400, /needs the header X-Digest/],
    [
      "corrupt zstd",
      put(`/cas/${hash}`, "abc", "Content-Encoding: zstd\r\nX-Digest-SizeBytes: 9\r\n"),
      400,
      /zstd stream/,
    ],
    [
      "a chunked body shorter than said",
      `${head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\nX-Digest-SizeBytes: 9\r\n")}3\r\nabc\r\n0\r\n\r\n`,
      400,
      /3 bytes, declared were 9/,
    ],
    [
      "a chunked body longer than said",
      `${head(`PUT /cas/${hash}`, "Transfer-Encoding: chunked\r\nX-Digest-SizeBytes: 2\r\n")}3\r\nabc\r\n0\r\n\r\n`,
      400,
      /longer than the declared 2 bytes/,
    ],
    [
      "a blob above the limit",
      head(`PUT /cas/${hash}`, `Content-Length: ${MAX_BLOB_SIZE_BYTES + 1}\r\n`),
      413,
      /at most/,
    ],
    ["an action result above the limit", head(`PUT /ac/${hash}`, "Content-Length: 99999999\r\n"), 413, /at most/],
    ["an action result that is none", put(`/ac/${hash}`, "\x0a\xff\x01"), 400, /Cannot decode .*ActionResult/],
    ["an action result with an empty path", put(`/ac/${hash}`, "\x12\x00"), 400, /an output file has an empty path/],
    [
      "JSON that is no action result",
      put(`/ac/${hash}`, `{"exit":1}`, "Content-Type: application/json\r\n"),
      400,
      /no field "exit"/,
    ],
    ["a key that is too long", head(`GET /opaque/${"k".repeat(1025)}`), 400, /more than 1024 bytes/],
    ["PUT of an opaque collection", put("/opaque/a/", "x"), 400, /is a collection/],
    ["a wrong method for opaque values", head("PATCH /opaque/a"), 405, /PATCH is not possible/],
  ])("%s", async (_name, request, status, message) => {
    const blobsBefore = server.blobs.count;
    const text = await raw(request);
    expect(text.slice(0, 12)).toBe(`HTTP/1.1 ${status}`);
    expect(text).toMatch(message);
    expect(text).toMatch(/content-length: \d+/i);
    await assertAlive(server, blobsBefore);
  });

  test("a Content-Length that lies, body cut", async () => {
    const blobsBefore = server.blobs.count;
    const { digest: cut } = sample("four score and seven");
    const socket = connect(server.served.port, "127.0.0.1");
    socket.end(head(`PUT /cas/${cut.hash}`, "Content-Length: 20\r\n") + "four score");
    socket.resume();
    await new Promise((resolve) => socket.once("close", resolve));
    expect(server.blobs.has(cut)).toBe(false);
    await assertAlive(server, blobsBefore);
  });
});
