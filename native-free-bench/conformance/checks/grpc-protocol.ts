// gRPC itself: paths, content types, statuses, deadlines, metadata; and health and reflection where they are served.

import { Code } from "../../../src/base/status.ts";
import { Capabilities, RequestMetadata } from "../../../src/proto/remote_execution.ts";
import { Health, HealthCheckResponse, HealthCheckResponse_ServingStatus } from "../../../src/proto/health.ts";
import { ServerReflection, ServerReflectionResponse } from "../../../src/proto/reflection.ts";
import type { ServerReflectionRequestInit } from "../../../src/proto/reflection.ts";
import { ByteStream } from "../../../src/proto/bytestream.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectPresent,
  expectRefusal,
  expectThat,
  type Check,
} from "../check.ts";
import type { Probe } from "../probe.ts";

const GRPC = "gRPC over HTTP/2 (PROTOCOL-HTTP2)";
const { GetCapabilities } = Capabilities.methods;
const METADATA_KEY = "build.bazel.remote.execution.v2.requestmetadata-bin";

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

export const metadataChecks: readonly Check[] = defineArea(
  "metadata",
  ["cache", "sha256"],
  [
    {
      id: "request-metadata",
      level: "MUST",
      says: "A call with RequestMetadata is answered.",
      cites: "REv2 RequestMetadata",
      advice: "Every client sends it.",
      run: async (p) => {
        const value = Buffer.from(
          RequestMetadata.encode({
            toolDetails: { toolName: "ledge", toolVersion: "1" },
            actionId: "a",
            toolInvocationId: p.random.uuid(),
          }),
        ).toString("base64");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "unpadded",
      level: "MUST",
      says: "RequestMetadata in base64 without padding is accepted.",
      cites: `${GRPC}: Binary-Header`,
      advice: "Accept both forms.",
      run: async (p) => {
        const value = Buffer.from(RequestMetadata.encode({ toolInvocationId: "12345" }))
          .toString("base64")
          .replace(/=+$/, "");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "garbage",
      level: "SHOULD",
      says: "Malformed RequestMetadata does not fail a call.",
      cites: "REv2 RequestMetadata: optional and informative",
      advice: "Ignore what you cannot decode.",
      run: async (p) => {
        const value = Buffer.from("\xff\xff\xff\xff", "latin1").toString("base64");
        expectOk(await p.findMissing([p.absentDigest()], { metadata: { [METADATA_KEY]: value } }), "FindMissingBlobs");
      },
    },
    {
      id: "unknown-headers",
      level: "MUST",
      says: "Unknown metadata, text and binary, is ignored.",
      cites: `${GRPC}: Custom-Metadata`,
      advice: "Proxies and clients add their own.",
      run: async (p) => {
        const metadata = { "x-team": "build", "x-trace-bin": "AAEC", authorization: "Bearer none" };
        expectOk(
          await p.findMissing([p.absentDigest()], {
            metadata: { "x-team": metadata["x-team"], "x-trace-bin": metadata["x-trace-bin"] },
          }),
          "FindMissingBlobs",
        );
      },
    },
    {
      id: "long-header",
      level: "SHOULD",
      says: "A metadata value of 6 KB is accepted.",
      cites: "bearer tokens are that long; gRPC recommends room for 8 KiB",
      advice: "Allow at least 8 KiB of headers.",
      run: async (p) =>
        expectOk(
          await p.findMissing([p.absentDigest()], { metadata: { "x-long": "v".repeat(6000) } }),
          "FindMissingBlobs",
        ),
    },
    {
      id: "resource-name-header",
      level: "SHOULD",
      says: "A resource-name header that equals the request's name is accepted.",
      cites: "REv2: build.bazel.remote.execution.v2.resource-name",
      advice: "It is there for routing.",
      run: async (p) => {
        const blob = await p.storeNew(30);
        const name = p.readName(blob.digest);
        const read = await p.read(name, { metadata: { "build.bazel.remote.execution.v2.resource-name": name } });
        expectOk(read, "Read");
        expectBytes(read.data, blob.data, "The bytes");
      },
    },
    {
      id: "resource-name-header-other",
      level: "MAY",
      says: "A resource-name header that differs from the request's name is refused.",
      cites: "REv2: the header must equal the name",
      advice: "INVALID_ARGUMENT: a router in front may have used it.",
      run: async (p) => {
        const blob = await p.storeNew(30);
        const read = await p.read(p.readName(blob.digest), {
          metadata: { "build.bazel.remote.execution.v2.resource-name": "blobs/other/1" },
        });
        expectCode(read, [Code.INVALID_ARGUMENT], "Read");
      },
    },
  ],
);

export const healthChecks: readonly Check[] = defineArea(
  "health",
  ["health"],
  [
    {
      id: "overall",
      level: "MAY",
      says: "The server as a whole is SERVING.",
      cites: "grpc.health.v1 Health.Check",
      advice: "Answer for the empty service name.",
      run: async (p) => {
        const reply = await p.call(Health.methods.Check, {});
        expectOk(reply, "Check");
        expectEqual(reply.response?.status, HealthCheckResponse_ServingStatus.SERVING, "The status");
      },
    },
    {
      id: "unknown-service",
      level: "MUST",
      says: "Check of an unknown service is NOT_FOUND.",
      cites: "grpc.health.v1 Health.Check",
      advice: "Not SERVICE_UNKNOWN, which is for Watch.",
      run: async (p) =>
        expectCode(await p.call(Health.methods.Check, { service: "no.such.Service" }), [Code.NOT_FOUND], "Check"),
    },
    {
      id: "watch",
      level: "MAY",
      says: "Watch sends the current status at once.",
      cites: "grpc.health.v1 Health.Watch",
      advice: "UNIMPLEMENTED tells clients not to watch.",
      run: async (p) => {
        const call = await p.options.channel.start(Health.methods.Watch.path, { signal: p.signal });
        void call.send(Health.methods.Watch.input.encode({}));
        call.end();
        const bytes = await Promise.race([call.receive(), p.pause(3000)]);
        call.cancel();
        if (bytes === undefined) return expectCode(await call.outcome, [Code.UNIMPLEMENTED], "Watch");
        expectEqual(HealthCheckResponse.decode(bytes).status, HealthCheckResponse_ServingStatus.SERVING, "The status");
      },
    },
  ],
);

export const reflectionChecks: readonly Check[] = defineArea(
  "reflection",
  ["reflection"],
  [
    {
      id: "list",
      level: "MAY",
      says: "list_services names Capabilities.",
      cites: "grpc.reflection.v1 ListServiceResponse",
      advice: "List what is served.",
      run: async (p) => {
        const [answer] = await reflect(p, [{ listServices: "" }]);
        const names = answer?.listServicesResponse?.service.map(({ name }) => name) ?? [];
        expectThat(
          names.includes("build.bazel.remote.execution.v2.Capabilities"),
          `listed are ${names.join(", ") || "none"}`,
        );
      },
    },
    {
      id: "symbol",
      level: "MAY",
      says: "A service's file is found by its name.",
      cites: "grpc.reflection.v1 file_containing_symbol",
      advice: "Send the file and what it imports.",
      run: async (p) => {
        const [answer] = await reflect(p, [{ fileContainingSymbol: "build.bazel.remote.execution.v2.Capabilities" }]);
        expectThat((answer?.fileDescriptorResponse?.fileDescriptorProto.length ?? 0) > 0, "no file");
      },
    },
    {
      id: "unknown-symbol",
      level: "MUST",
      says: "An unknown symbol is an error_response and the stream goes on.",
      cites: "grpc.reflection.v1 ErrorResponse",
      advice: "Code 5 in the answer, not as the call's status.",
      run: async (p) => {
        const answers = await reflect(p, [{ fileContainingSymbol: "no.such.Symbol" }, { listServices: "" }]);
        expectEqual(answers[0]?.errorResponse?.errorCode, Code.NOT_FOUND, "error_code");
        expectPresent(answers[1]?.listServicesResponse, "the second answer");
      },
    },
  ],
);

async function raw(p: Probe, path: string) {
  return await p.options.channel.unaryBytes(path, new Uint8Array(0), () => undefined, { signal: p.signal });
}

async function reflect(p: Probe, requests: readonly ServerReflectionRequestInit[]) {
  const { path, input } = ServerReflection.methods.ServerReflectionInfo;
  const call = await p.options.channel.start(path, { signal: p.signal });
  for (const request of requests) await call.send(input.encode(request));
  call.end();
  const answers: ServerReflectionResponse[] = [];
  for (let bytes = await call.receive(); bytes !== undefined; bytes = await call.receive())
    answers.push(ServerReflectionResponse.decode(bytes));
  expectOk(await call.outcome, "ServerReflectionInfo");
  return answers;
}
