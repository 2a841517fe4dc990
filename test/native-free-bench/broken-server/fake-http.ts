// The HTTP cache of the fake server, with its faults.

import type { RequestListener } from "node:http";
import { zstdDecompressSync } from "node:zlib";
import { findDigestFunction } from "../../../native-free-bench/digest-functions.ts";
import { ActionResult, DigestFunction_Value as Fn } from "../../../src/proto/remote_execution.ts";
import type { FakeStore } from "./fake-store.ts";

export function httpListener(store: FakeStore): RequestListener {
  const fn = findDigestFunction(Fn.SHA256)!;
  return (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const answer = (status: number, body: Uint8Array = Buffer.alloc(0)): void => {
        response.writeHead(status, { "content-length": body.length });
        response.end(request.method === "HEAD" ? undefined : body);
      };
      const match = /^\/(?:.*\/)?(ac|cas)\/([0-9a-f]{64})$/.exec(request.url ?? "");
      if (match === null || (request.url ?? "").includes("..")) return answer(400, Buffer.from("no such path"));
      const [, kind = "", hash = ""] = match;
      if (request.method === "GET" || request.method === "HEAD") {
        const result = kind === "ac" ? store.findResultByHash(hash) : undefined;
        const found =
          kind === "cas" ? store.findByHash(hash) : result === undefined ? undefined : ActionResult.encode(result);
        return found === undefined ? answer(store.has("http.absent-is-500") ? 500 : 404) : answer(200, found);
      }
      if (request.method !== "PUT") return answer(405);
      const encoding = request.headers["content-encoding"] ?? "identity";
      if (encoding !== "identity" && encoding !== "zstd") return answer(415);
      const body = encoding === "zstd" ? zstdDecompressSync(Buffer.concat(chunks)) : Buffer.concat(chunks);
      const key = { fn, hash, sizeBytes: body.length };
      if (kind === "cas") {
        if (!store.matches(key, body) && !store.has("http.no-verify"))
          return answer(400, Buffer.from("the body does not match"));
        store.put(key, body);
        return answer(200);
      }
      try {
        store.putResult("", key, ActionResult.decode(body));
      } catch {
        return answer(400, Buffer.from("no ActionResult"));
      }
      return answer(200);
    });
  };
}
