// gRPC itself: paths, content types, statuses, deadlines, framing.

import { Code } from "../../../src/base/status.ts";
import { Capabilities } from "../../../src/proto/remote_execution.ts";
import { ByteStream } from "../../../src/proto/bytestream.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectRefusal, expectThat, type Check } from "../check.ts";
import type { Probe } from "../probe.ts";

const GRPC = "gRPC over HTTP/2 (PROTOCOL-HTTP2)";

const { GetCapabilities } = Capabilities.methods;

export const grpcChecks: readonly Check[] = defineArea(
  "grpc",
  [],
  [
    {
      id: "unknown-method",
      level: "MUST",
      says: "An unknown method of a known service is UNIMPLEMENTED.",
      cites: `${GRPC}; status codes`,
      advice: "Clients fall back on UNIMPLEMENTED only.",
      run: async (p) =>
        expectCode(
          await raw(p, "/build.bazel.remote.execution.v2.Capabilities/NoSuchMethod"),
          [Code.UNIMPLEMENTED],
          "NoSuchMethod",
        ),
    },
    {
      id: "unknown-service",
      level: "MUST",
      says: "An unknown service is UNIMPLEMENTED.",
      cites: `${GRPC}; status codes`,
      advice: "Answer with HTTP 200 and grpc-status 12.",
      run: async (p) => expectCode(await raw(p, "/no.such.Service/Method"), [Code.UNIMPLEMENTED], "no.such.Service"),
    },
    {
      id: "unknown-is-200",
      level: "SHOULD",
      says: "UNIMPLEMENTED comes with HTTP status 200.",
      cites: GRPC,
      advice: "Put the error into grpc-status.",
      run: async (p) => expectEqual((await raw(p, "/no.such.Service/Method")).httpStatus, 200, ":status"),
    },
    {
      id: "response-content-type",
      level: "MUST",
      says: "Responses have a content-type that begins with application/grpc.",
      cites: GRPC,
      advice: "Clients treat anything else as a proxy's answer.",
      run: async (p) => {
        const reply = await p.call(GetCapabilities, { instanceName: p.instanceName });
        expectThat(
          (reply.headers.get("content-type") ?? "").startsWith("application/grpc"),
          `content-type is "${reply.headers.get("content-type")}"`,
        );
      },
    },
    {
      id: "proto-content-type",
      level: "MUST",
      says: "The content type application/grpc+proto is accepted.",
      cites: GRPC,
      advice: "The suffix is optional.",
      run: async (p) =>
        expectOk(
          await p.call(GetCapabilities, { instanceName: p.instanceName }, { contentType: "application/grpc+proto" }),
          "GetCapabilities",
        ),
    },
    {
      id: "wrong-content-type",
      level: "SHOULD",
      says: "Another content type on a gRPC path is refused.",
      cites: `${GRPC}: HTTP 415`,
      advice: "415 or a gRPC error.",
      run: async (p) => {
        const reply = await p.call(
          GetCapabilities,
          { instanceName: p.instanceName },
          { contentType: "application/json" },
        );
        expectThat(reply.httpStatus >= 400 || reply.code !== 0, `HTTP ${reply.httpStatus} and OK`);
      },
    },
    {
      id: "malformed-message",
      level: "MUST",
      says: "Bytes that are no protobuf are refused with a status, and the connection lives on.",
      cites: `${GRPC}; status codes: INTERNAL or INVALID_ARGUMENT`,
      advice: "INVALID_ARGUMENT tells the client's author more.",
      run: async (p) => {
        const reply = await p.options.channel.unaryBytes(
          GetCapabilities.path,
          Buffer.from("\xff\xff\xff\xff\xff", "latin1"),
          () => undefined,
        );
        expectCode(reply, [Code.INVALID_ARGUMENT, Code.INTERNAL], "A malformed request");
        expectOk(await p.call(GetCapabilities, { instanceName: p.instanceName }), "The next call");
      },
    },
    {
      id: "unknown-fields",
      level: "MUST",
      says: "Unknown fields of a request are ignored.",
      cites: "protobuf encoding: unknown fields",
      advice: "Skip what you do not know: that is how newer clients talk to you.",
      run: async (p) => {
        const known = GetCapabilities.input.encode({ instanceName: p.instanceName });
        // Field 100, a varint; field 101, four bytes.
        const request = Buffer.concat([known, Buffer.from([0xa0, 0x06, 0x05, 0xaa, 0x06, 0x04, 1, 2, 3, 4])]);
        expectOk(
          await p.options.channel.unaryBytes(GetCapabilities.path, request, () => undefined),
          "A request with unknown fields",
        );
      },
    },
    {
      id: "no-message",
      level: "MUST",
      says: "A unary call without a message is refused.",
      cites: GRPC,
      advice: "INTERNAL, UNIMPLEMENTED and INVALID_ARGUMENT are all in use.",
      run: async (p) => {
        const call = await p.options.channel.start(GetCapabilities.path, { signal: p.signal });
        call.end();
        await call.receive();
        expectRefusal(await call.outcome, "A unary call without a message");
      },
    },
    {
      id: "cut-message",
      level: "MUST",
      says: "A message that is cut by the end of the stream is refused.",
      cites: `${GRPC}: Length-Prefixed-Message`,
      advice: "INTERNAL or INVALID_ARGUMENT; never treat the part as the whole.",
      run: async (p) => {
        const call = await p.options.channel.start(GetCapabilities.path, { signal: p.signal });
        void call.sendRaw(Buffer.from([0, 0, 0, 0, 50, 1, 2, 3]));
        call.end();
        await call.receive();
        const outcome = await call.outcome;
        expectThat(outcome.code !== 0, "a cut message got OK");
      },
    },
    {
      id: "message-in-pieces",
      level: "MUST",
      says: "A message whose prefix and payload arrive byte by byte is read.",
      cites: `${GRPC}: messages do not align with DATA frames`,
      advice: "Buffer until the message is complete.",
      run: async (p) => {
        const message = GetCapabilities.input.encode({ instanceName: p.instanceName });
        const framed = Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
        const call = await p.options.channel.start(GetCapabilities.path, { signal: p.signal });
        for (const byte of framed) {
          await call.sendRaw(Buffer.of(byte));
          await p.pause(2);
        }
        call.end();
        await call.receive();
        expectOk(await call.outcome, "A message in pieces");
      },
    },
    {
      id: "compressed-flag",
      level: "MUST",
      says: "A message flagged as compressed without grpc-encoding is refused.",
      cites: "gRPC compression: INTERNAL",
      advice: "Do not hand the bytes to the decoder.",
      run: async (p) => {
        const message = GetCapabilities.input.encode({ instanceName: p.instanceName });
        const call = await p.options.channel.start(GetCapabilities.path, { signal: p.signal });
        void call.sendRaw(Buffer.concat([Buffer.from([1, 0, 0, 0, message.length]), message]));
        call.end();
        await call.receive();
        expectRefusal(await call.outcome, "A compressed flag without an encoding");
      },
    },
    {
      id: "unknown-encoding",
      level: "MUST",
      says: "An unknown grpc-encoding on a compressed message is UNIMPLEMENTED.",
      cites: "gRPC compression: UNIMPLEMENTED with grpc-accept-encoding",
      advice: "Name the encodings you take. INTERNAL is accepted.",
      run: async (p) => {
        const message = GetCapabilities.input.encode({ instanceName: p.instanceName });
        const call = await p.options.channel.start(GetCapabilities.path, {
          signal: p.signal,
          metadata: { "grpc-encoding": "x-none-such" },
        });
        void call.sendRaw(Buffer.concat([Buffer.from([1, 0, 0, 0, message.length]), message]));
        call.end();
        await call.receive();
        expectCode(await call.outcome, [Code.UNIMPLEMENTED, Code.INTERNAL], "An unknown encoding");
      },
    },
    {
      id: "error-message",
      level: "SHOULD",
      says: "A refusal has a message.",
      cites: "gRPC status messages",
      advice: "Say what was wrong, what was expected, what to do.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const reply = await p.findMissing([{ hash: "abc", sizeBytes: 1 }]);
        expectThat(reply.code === 0 || reply.message !== "", "grpc-message is empty");
      },
    },
    {
      id: "message-encoding",
      level: "MUST",
      says: "grpc-message is percent-encoded ASCII, whatever the client sent.",
      cites: `${GRPC}: Status-Message`,
      advice: "Encode % and everything outside 0x20 to 0x7e.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const reply = await p.findMissing([{ hash: "ü\n%41", sizeBytes: 1 }]);
        const text = reply.trailers.get("grpc-message") ?? reply.headers.get("grpc-message") ?? "";
        expectThat(/^[\x20-\x7e]*$/.test(text), "grpc-message has a raw character outside ASCII");
      },
    },
    {
      id: "details-code",
      level: "MUST",
      says: "grpc-status-details-bin, when sent, has the code of grpc-status.",
      cites: "google.rpc.Status in grpc-status-details-bin",
      advice: "Clients compare them and drop the details otherwise.",
      needs: ["cache", "sha256", "exec"],
      run: async (p) => {
        const { startExecution } = await import("../actions.ts");
        const stream = await (await startExecution(p, p.absentDigest(140))).toEnd();
        const { details, code } = stream.outcome!;
        if (details !== undefined) expectEqual(details.code, code, "The code in the details");
      },
    },
    {
      id: "trailers-small",
      level: "CLIENTS",
      says: "Trailers stay below 8 KiB, whatever the client sent.",
      cites: "grpc-java drops the connection above 8 KiB",
      advice: "Clip messages; put long lists into the response.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const reply = await p.read(`${"x".repeat(20_000)}/blobs/zz/1`);
        let size = 0;
        for (const [name, value] of [...reply.trailers, ...reply.headers]) size += name.length + value.length + 32;
        expectThat(size < 8192, `headers and trailers have ${size} bytes`);
      },
    },
    {
      id: "deadline",
      level: "SHOULD",
      says: "A call beyond its grpc-timeout ends with DEADLINE_EXCEEDED.",
      cites: `${GRPC}: Timeout`,
      advice: "Stop the work and answer.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const call = await p.options.channel.start(ByteStream.methods.Write.path, {
          signal: p.signal,
          deadlineMs: 500,
        });
        const digest = p.absentDigest(10);
        await call.send(ByteStream.methods.Write.input.encode({ resourceName: p.writeName(digest) }));
        const outcome = await call.outcome;
        expectCode(outcome, [Code.DEADLINE_EXCEEDED], "A Write that never ends, with a deadline of 500 ms");
      },
    },
    {
      id: "timeout-units",
      level: "MUST",
      says: "grpc-timeout is understood in every unit.",
      cites: `${GRPC}: TimeoutUnit H M S m u n`,
      advice: "Up to eight digits and a unit.",
      run: async (p) => {
        for (const timeout of ["1H", "99999999M", "60S", "30000m", "30000000u", "99999999n"]) {
          const reply = await p.call(
            GetCapabilities,
            { instanceName: p.instanceName },
            { metadata: { "grpc-timeout": timeout } },
          );
          if (timeout !== "99999999n") expectOk(reply, `grpc-timeout ${timeout}`);
        }
      },
    },
    {
      id: "many-streams",
      level: "MUST",
      says: "100 calls at once on one connection are all answered.",
      cites: "RFC 9113 section 5.1.2; Bazel and Buck2 use up to 100",
      advice: "Allow at least 100 concurrent streams.",
      run: async (p) => {
        const replies = await Promise.all(
          Array.from({ length: 100 }, () => p.call(GetCapabilities, { instanceName: p.instanceName })),
        );
        for (const reply of replies) expectOk(reply, "One of 100 calls");
      },
    },
  ],
);

async function raw(p: Probe, path: string) {
  return await p.options.channel.unaryBytes(path, new Uint8Array(0), () => undefined, { signal: p.signal });
}
