// The HTTP/1.1 cache protocol: /cas/ and /ac/ as Bazel and its relatives use them.

import { randomBytes } from "node:crypto";
import { ActionResult } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectBytes, expectCode, expectEqual, expectOk, expectThat, type Check } from "../check.ts";
import type { HttpAnswer } from "../../client/http1-client.ts";
import { Code } from "../../../src/base/status.ts";

const CITES = "the HTTP cache protocol as Bazel's HttpCacheClient speaks it";
const STORED = [200, 201, 202, 204];

export const httpCacheChecks: readonly Check[] = defineArea(
  "http",
  ["http", "sha256"],
  [
    {
      id: "put-get",
      level: "CLIENTS",
      says: "A blob that was PUT is returned by GET.",
      cites: CITES,
      advice: "Answer PUT after the blob is readable.",
      run: async (p) => {
        const blob = p.blob(2000);
        expectStatus(await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: blob.data }), STORED, "PUT");
        const got = await p.http({ method: "GET", path: `/cas/${blob.digest.hash}` });
        expectStatus(got, [200], "GET");
        expectBytes(got.body, blob.data, "The body");
      },
    },
    {
      id: "get-large",
      level: "CLIENTS",
      says: "A blob of 5 MiB goes both ways.",
      cites: CITES,
      advice: "Stream it.",
      run: async (p) => {
        const blob = p.blob(5 * 1024 * 1024);
        expectStatus(await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: blob.data }), STORED, "PUT");
        expectBytes((await p.http({ method: "GET", path: `/cas/${blob.digest.hash}` })).body, blob.data, "The body");
      },
    },
    {
      id: "get-absent",
      level: "CLIENTS",
      says: "GET of an absent blob is 404.",
      cites: `${CITES}: 404 and 204 are misses`,
      advice: "Any other status is an error to Bazel.",
      run: async (p) =>
        expectStatus(await p.http({ method: "GET", path: `/cas/${p.absentDigest().hash}` }), [404], "GET"),
    },
    {
      id: "ac-absent",
      level: "CLIENTS",
      says: "GET of an absent action result is 404.",
      cites: `${CITES}: 404 and 204 are misses`,
      advice: "Any other status is an error to Bazel.",
      run: async (p) =>
        expectStatus(await p.http({ method: "GET", path: `/ac/${p.absentDigest().hash}` }), [404], "GET"),
    },
    {
      id: "content-length",
      level: "CLIENTS",
      says: "Answers have Content-Length or chunked encoding, 404 as well.",
      cites: "Bazel closes the connection otherwise",
      advice: "Always send Content-Length.",
      run: async (p) => {
        const { digest } = await p.storeNew(100);
        for (const path of [`/cas/${digest.hash}`, `/cas/${p.absentDigest().hash}`]) {
          const { headers } = await p.http({ method: "GET", path });
          expectThat(
            headers["content-length"] !== undefined || headers["transfer-encoding"] === "chunked",
            `the answer to ${path} has neither`,
          );
        }
      },
    },
    {
      id: "get-content-length-right",
      level: "MUST",
      says: "Content-Length of a GET is the size of the blob.",
      cites: "RFC 9110 section 8.6",
      advice: "Identity answers carry the exact size.",
      run: async (p) => {
        const { digest } = await p.storeNew(777);
        expectEqual(
          (await p.http({ method: "GET", path: `/cas/${digest.hash}` })).headers["content-length"],
          "777",
          "Content-Length",
        );
      },
    },
    {
      id: "head",
      level: "SHOULD",
      says: "HEAD answers like GET without a body.",
      cites: "RFC 9110 section 9.3.2; bazel-remote as a front-end asks HEAD first",
      advice: "200 with Content-Length, or 404.",
      run: async (p) => {
        const { digest } = await p.storeNew(321);
        const head = await p.http({ method: "HEAD", path: `/cas/${digest.hash}` });
        expectStatus(head, [200], "HEAD");
        expectEqual(head.body.length, 0, "Bytes of the body");
        expectStatus(
          await p.http({ method: "HEAD", path: `/cas/${p.absentDigest().hash}` }),
          [404],
          "HEAD of an absent blob",
        );
      },
    },
    {
      id: "head-length",
      level: "SHOULD",
      says: "HEAD tells the size.",
      cites: "RFC 9110 section 9.3.2",
      advice: "Send Content-Length.",
      run: async (p) => {
        const { digest } = await p.storeNew(321);
        expectEqual(
          (await p.http({ method: "HEAD", path: `/cas/${digest.hash}` })).headers["content-length"],
          "321",
          "Content-Length",
        );
      },
    },
    {
      id: "empty-blob",
      level: "SHOULD",
      says: "The empty blob is there.",
      cites: "REv2: the empty blob is always present",
      advice: "200 with an empty body.",
      run: async (p) => {
        const got = await p.http({ method: "GET", path: `/cas/${p.emptyDigest.hash}` });
        expectStatus(got, [200], "GET");
        expectEqual(got.body.length, 0, "Bytes of the body");
      },
    },
    {
      id: "put-empty",
      level: "CLIENTS",
      says: "PUT of the empty blob succeeds.",
      cites: CITES,
      advice: "Accept it without storing.",
      run: async (p) =>
        expectStatus(
          await p.http({ method: "PUT", path: `/cas/${p.emptyDigest.hash}`, body: Buffer.alloc(0) }),
          STORED,
          "PUT",
        ),
    },
    {
      id: "put-wrong-hash",
      level: "MUST",
      says: "PUT of bytes that do not match the hash is refused and not stored.",
      cites: "content-addressed storage; REv2 equivalent INVALID_ARGUMENT",
      advice: "400, after reading the body.",
      run: async (p) => {
        const { digest } = p.blob(100);
        const answer = await p.http({ method: "PUT", path: `/cas/${digest.hash}`, body: p.blob(100).data });
        expectThat(answer.status >= 400, `PUT: ${answer.status}, expected a refusal`);
        expectStatus(await p.http({ method: "GET", path: `/cas/${digest.hash}` }), [404], "GET afterwards");
      },
    },
    {
      id: "put-wrong-hash-400",
      level: "SHOULD",
      says: "PUT of bytes that do not match the hash is a client error.",
      cites: "RFC 9110 section 15.5",
      advice: "400 rather than 500: the client is wrong and must not retry.",
      run: async (p) => {
        const answer = await p.http({ method: "PUT", path: `/cas/${p.absentDigest().hash}`, body: p.blob(100).data });
        expectThat(answer.status >= 400 && answer.status < 500, `PUT: ${answer.status}`);
      },
    },
    {
      id: "put-again",
      level: "CLIENTS",
      says: "PUT of a present blob succeeds.",
      cites: `${CITES}: Bazel puts every output without asking`,
      advice: "200 without storing it again.",
      run: async (p) => {
        const blob = await p.storeNew(200);
        expectStatus(await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: blob.data }), STORED, "PUT");
      },
    },
    {
      id: "put-wrong-again",
      level: "MUST",
      says: "PUT of wrong bytes for a present blob does not change it.",
      cites: "content-addressed storage",
      advice: "Never overwrite.",
      run: async (p) => {
        const blob = await p.storeNew(200);
        await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: p.blob(200).data });
        expectBytes((await p.http({ method: "GET", path: `/cas/${blob.digest.hash}` })).body, blob.data, "The body");
      },
    },
    {
      id: "same-store-get",
      level: "SHOULD",
      says: "A blob uploaded by gRPC is served by HTTP.",
      cites: "one store behind both protocols",
      advice: "Share the CAS.",
      run: async (p) => {
        const blob = await p.storeNew(150);
        expectBytes((await p.http({ method: "GET", path: `/cas/${blob.digest.hash}` })).body, blob.data, "The body");
      },
    },
    {
      id: "same-store-put",
      level: "SHOULD",
      says: "A blob that was PUT is present over gRPC.",
      cites: "one store behind both protocols",
      advice: "Share the CAS.",
      run: async (p) => {
        const blob = p.blob(150);
        await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: blob.data });
        await p.expectStored(blob.digest, "After PUT");
      },
    },
    {
      id: "ac-round-trip",
      level: "CLIENTS",
      says: "An action result that was PUT is returned by GET.",
      cites: CITES,
      advice: "The body is a serialized ActionResult.",
      needs: ["ac-update"],
      run: async (p) => {
        const file = await p.storeNew(50);
        const { hash } = p.absentDigest(140);
        const body = ActionResult.encode({
          outputFiles: [{ path: "o", digest: file.digest }],
          executionMetadata: { worker: "w" },
        });
        expectStatus(await p.http({ method: "PUT", path: `/ac/${hash}`, body }), STORED, "PUT");
        const got = await p.http({ method: "GET", path: `/ac/${hash}` });
        expectStatus(got, [200], "GET");
        expectEqual(
          ActionResult.decode(got.body).outputFiles[0]?.digest?.hash,
          file.digest.hash,
          "The digest of the output",
        );
      },
    },
    {
      id: "ac-over-grpc",
      level: "SHOULD",
      says: "An action result that was PUT is found over gRPC.",
      cites: "one action cache behind both protocols",
      advice: "Look entries up by hash; HTTP requests carry no size.",
      needs: ["ac-update"],
      run: async (p) => {
        const digest = p.absentDigest(140);
        const body = ActionResult.encode({
          stdoutDigest: (await p.storeNew(20)).digest,
          executionMetadata: { worker: "w" },
        });
        expectStatus(await p.http({ method: "PUT", path: `/ac/${digest.hash}`, body }), STORED, "PUT");
        expectOk(await p.getActionResult(digest), "GetActionResult");
      },
    },
    {
      id: "ac-incomplete",
      level: "SHOULD",
      says: "An action result whose blobs are absent is 404.",
      cites: "as GetActionResult; bazel-remote validates so",
      advice: "Check completeness on GET as well.",
      needs: ["ac-update"],
      run: async (p) => {
        const { hash } = p.absentDigest(140);
        const body = ActionResult.encode({
          outputFiles: [{ path: "o", digest: p.absentDigest() }],
          executionMetadata: { worker: "w" },
        });
        const put = await p.http({ method: "PUT", path: `/ac/${hash}`, body });
        if (put.status < 300) expectStatus(await p.http({ method: "GET", path: `/ac/${hash}` }), [404], "GET");
      },
    },
    {
      id: "ac-garbage",
      level: "SHOULD",
      says: "A body that is no ActionResult is refused under /ac/.",
      cites: "bazel-remote validates so",
      advice: "400; tools with other values need an unvalidated prefix.",
      needs: ["ac-update"],
      run: async (p) => {
        const answer = await p.http({
          method: "PUT",
          path: `/ac/${p.absentDigest().hash}`,
          body: Buffer.from("\xff\xff\xff", "latin1"),
        });
        expectStatus(answer, [400], "PUT");
      },
    },
    {
      id: "short-hash",
      level: "SHOULD",
      says: "A path with a short hash is a client error.",
      cites: "RFC 9110 section 15.5",
      advice: "400 or 404.",
      run: async (p) => expectStatus(await p.http({ method: "GET", path: "/cas/abc" }), [400, 404], "GET"),
    },
    {
      id: "traversal",
      level: "MUST",
      says: "Paths with .. or %2e%2e never leave the cache.",
      cites: "RFC 9110 section 17.3",
      advice: "400 or 404.",
      run: async (p) => {
        for (const path of [
          "/cas/../../../../etc/passwd",
          "/cas/%2e%2e/%2e%2e/etc/passwd",
          "/cas/..%2f..%2fetc%2fpasswd",
        ]) {
          const answer = await p.http({ method: "GET", path });
          // A redirect to the path without dots is a refusal as well: Go's router answers so.
          expectThat(answer.status >= 300 && answer.status < 500, `GET ${path}: ${answer.status}`);
        }
      },
    },
    {
      id: "method",
      level: "SHOULD",
      says: "POST to a blob is 405.",
      cites: "RFC 9110 section 15.5.6",
      advice: "405 with Allow.",
      run: async (p) =>
        expectStatus(
          await p.http({ method: "POST", path: `/cas/${p.absentDigest().hash}`, body: Buffer.from("x") }),
          [405, 400, 501],
          "POST",
        ),
    },
    {
      id: "instance-prefix",
      level: "SHOULD",
      says: "A path with an instance name in front works.",
      cites: "Bazel's --remote_cache may have a path; bazel-remote reads it as the instance",
      advice: "Take the last cas or ac segment; what is before it is the instance.",
      run: async (p) => {
        const blob = p.blob(60);
        expectStatus(
          await p.http({ method: "PUT", path: `/some/prefix/cas/${blob.digest.hash}`, body: blob.data }),
          STORED,
          "PUT",
        );
        expectStatus(await p.http({ method: "GET", path: `/some/prefix/cas/${blob.digest.hash}` }), [200], "GET");
      },
    },
    {
      id: "zstd-get",
      level: "MAY",
      says: "GET with Accept-Encoding: zstd is identity or a zstd stream, as Content-Encoding says.",
      cites: "RFC 9110 section 12.5.3",
      advice: "Label what was done.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.alloc(20_000, 0x61));
        await p.store(blob);
        const got = await p.http({
          method: "GET",
          path: `/cas/${blob.digest.hash}`,
          headers: { "accept-encoding": "zstd" },
        });
        expectBytes(got.headers["content-encoding"] === "zstd" ? p.unzstd(got.body) : got.body, blob.data, "The body");
      },
    },
    {
      id: "no-zstd-unasked",
      level: "MUST",
      says: "A client that refuses zstd (q=0) gets a body that is not encoded.",
      cites: "RFC 9110 section 12.5.3; Bazel hashes what it gets",
      advice: "Identity is the default; a weight of 0 means not acceptable.",
      run: async (p) => {
        const blob = p.blobOf(Buffer.alloc(20_000, 0x62));
        await p.store(blob);
        const got = await p.http({
          method: "GET",
          path: `/cas/${blob.digest.hash}`,
          headers: { "accept-encoding": "zstd;q=0, identity" },
        });
        expectEqual(got.headers["content-encoding"] ?? "identity", "identity", "Content-Encoding");
        expectBytes(got.body, blob.data, "The body");
      },
    },
    {
      id: "keep-alive",
      level: "CLIENTS",
      says: "A 404 and a refused PUT leave the connection usable or closed cleanly.",
      cites: `${CITES}: clients keep pools of connections`,
      advice: "Read the rest of a refused body, or close.",
      run: async (p) => {
        for (let round = 0; round < 5; round++) {
          await p.http({ method: "GET", path: `/cas/${p.absentDigest().hash}` });
          await p.http({ method: "PUT", path: `/cas/${p.absentDigest().hash}`, body: randomBytes(100_000) });
          const blob = p.blob(500);
          expectStatus(
            await p.http({ method: "PUT", path: `/cas/${blob.digest.hash}`, body: blob.data }),
            STORED,
            "A good PUT after a refused one",
          );
        }
      },
    },
    {
      id: "unsupported-encoding",
      level: "SHOULD",
      says: "PUT with an unknown Content-Encoding is refused.",
      cites: "RFC 9110 section 15.5.16",
      advice: "400 or 415; never store encoded bytes.",
      run: async (p) => {
        const blob = p.blob(100);
        const answer = await p.http({
          method: "PUT",
          path: `/cas/${blob.digest.hash}`,
          body: blob.data,
          headers: { "content-encoding": "x-unknown" },
        });
        expectStatus(answer, [400, 415], "PUT");
      },
    },
    {
      id: "zero-length-other-hash",
      level: "MUST",
      says: "PUT of an empty body under another hash is refused.",
      cites: "content-addressed storage",
      advice: "400.",
      run: async (p) => {
        const digest = p.absentDigest();
        const answer = await p.http({ method: "PUT", path: `/cas/${digest.hash}`, body: Buffer.alloc(0) });
        expectThat(answer.status >= 400, `PUT: ${answer.status}`);
        expectCode(await p.read(p.readName(digest)), [Code.NOT_FOUND], "Reading it");
      },
    },
  ],
);

function expectStatus(answer: HttpAnswer, statuses: readonly number[], what: string): void {
  const reason =
    answer.body.length > 0 && answer.body.length < 500 && answer.status >= 400
      ? ` (${answer.body.toString().trim()})`
      : "";
  expectThat(statuses.includes(answer.status), `${what}: ${answer.status}${reason}, expected ${statuses.join(" or ")}`);
}
