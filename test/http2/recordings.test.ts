// T-60: what real clients sent, recorded by record-client.ts and given to the connection again in other pieces: every
// request is understood, no limit is reached (C-10), nothing is refused.
//
// The clients made single calls, hundreds at once, an upload, a download and cancelled uploads; curl and grpc-go one call.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CLIENT_PREFACE } from "../../src/http2/preface.ts";
import { HeaderBlock } from "../../src/http2/header-block.ts";
import type { RequestStream } from "../../src/http2/request-stream.ts";
import { MemoryPeer } from "./memory-peer.ts";

const REAPI = "/build.bazel.remote.execution.v2";
const FIND = `${REAPI}.ContentAddressableStorage/FindMissingBlobs`;
const WRITE = "/google.bytestream.ByteStream/Write";
const READ = "/google.bytestream.ByteStream/Read";
const CHECK = "/grpc.health.v1.Health/Check";

const RECORDINGS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  grpcio: {
    [`${REAPI}.Capabilities/GetCapabilities`]: 1,
    [FIND]: 450,
    [WRITE]: 21,
    [READ]: 1,
    [`${REAPI}.ActionCache/GetActionResult`]: 1,
  },
  "grpc-js": { [FIND]: 400, [WRITE]: 21, [READ]: 1 },
  "grpc-go": { "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": 1 },
  curl: { [CHECK]: 1 },
  nghttp2: { [CHECK]: 2000 },
};

const TRAILERS_ONLY = new HeaderBlock([[":status", "200"]]);

/** Takes the whole body, then answers. */
function answerAtEnd(stream: RequestStream): void {
  stream.attach({
    onData: (chunk) => stream.credit(chunk.length),
    onEnd() {
      stream.respond(TRAILERS_ONLY);
      stream.release();
    },
    onAbort: () => stream.release(),
  });
}

describe.each(Object.entries(RECORDINGS))("the recording of %s", (name, calls) => {
  const recorded = gunzipSync(readFileSync(join(import.meta.dirname, "recordings", `${name}.bin.gz`)));
  const octets = recorded.subarray(CLIENT_PREFACE.length);

  function replay(cuts: readonly number[]): MemoryPeer {
    const peer = new MemoryPeer({ handshake: false, maxConcurrentStreams: 1024, onRequest: answerAtEnd });
    let at = 0;
    for (let turn = 0; at < octets.length; turn++) {
      const end = Math.min(octets.length, at + cuts[turn % cuts.length]!);
      peer.send(octets.subarray(at, end));
      at = end;
    }
    return peer;
  }

  it("begins with the preface", () => {
    expect(Buffer.from(CLIENT_PREFACE).equals(recorded.subarray(0, CLIENT_PREFACE.length))).toBe(true);
  });

  it("is understood however it is cut into reads", () => {
    const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 70_000 })), {
      minLength: 1,
      maxLength: 20,
    });
    fc.assert(
      fc.property(cuts, (sizes) => {
        const peer = replay(sizes);
        const found: Record<string, number> = {};
        for (const { headers } of peer.requests) found[headers.path] = (found[headers.path] ?? 0) + 1;
        // A call that is cancelled by the read that began it is never seen; one upload is not cancelled.
        const uploads = found[WRITE] ?? 0;
        expect(uploads).toBeGreaterThanOrEqual(calls[WRITE] === undefined ? 0 : 1);
        expect(uploads).toBeLessThanOrEqual(calls[WRITE] ?? 0);
        expect({ ...found, [WRITE]: 0 }).toEqual({ ...calls, [WRITE]: 0 });
        const errors = peer.lines().filter((line) => /^(RST_STREAM|GOAWAY)/.test(line));
        const limits = peer.metrics.samples().filter((sample) => sample.name.includes("limits"));
        expect({ errors, limits, bugs: peer.bugs }).toEqual({ errors: [], limits: [], bugs: [] });
        const { connection } = peer;
        expect([connection.openStreams, connection.streams.windows.heldBytes]).toEqual([0, 0]);
      }),
      { numRuns: 10, examples: [[[octets.length]], [[16_384]], [[octets.length > 20_000 ? 97 : 1]]] },
    );
  });
});
