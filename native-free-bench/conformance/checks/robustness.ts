// Malformed and hostile input, within a bound of a few tens of megabytes and a few hundred streams.

import { connect } from "node:net";
import { Code } from "../../../src/base/status.ts";
import { ByteStream, WriteRequest } from "../../../src/proto/bytestream.ts";
import { ActionCache, Capabilities } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectOk, expectRefusal, expectThat, NotApplicable, type Check } from "../check.ts";
import { inParts, type Probe } from "../probe.ts";

const { GetCapabilities } = Capabilities.methods;

export const robustnessChecks: readonly Check[] = defineArea(
  "robustness",
  [],
  [
    {
      id: "garbage-bytes",
      level: "MUST",
      says: "A connection that sends noise does not disturb the server.",
      cites: "RFC 9113 section 3.4",
      advice: "Answer as HTTP/1.1 or close; go on serving.",
      run: async (p) => {
        await sendAndClose(p, p.random.bytes(5000));
        await expectAlive(p);
      },
    },
    {
      id: "silent-connection",
      level: "MUST",
      says: "Twenty connections that say nothing do not keep others out.",
      cites: "robustness",
      advice: "Bound the time before the first frame.",
      run: async (p) => {
        const sockets = Array.from({ length: 20 }, () => rawSocket(p));
        await p.pause(200);
        await expectAlive(p.newConnection());
        for (const socket of sockets) socket.destroy();
      },
    },
    {
      id: "cut-preface",
      level: "MUST",
      says: "A connection that ends in the middle of the preface is forgotten.",
      cites: "RFC 9113 section 3.4",
      advice: "Release everything on close.",
      run: async (p) => {
        await sendAndClose(p, Buffer.from("PRI * HTTP/2.0\r\n\r\nSM"));
        await expectAlive(p);
      },
    },
    {
      id: "oversized-frame",
      level: "MUST",
      says: "A frame above the allowed size ends that connection only.",
      cites: "RFC 9113 section 4.2: FRAME_SIZE_ERROR",
      advice: "Decide by the frame's header, before buffering.",
      run: async (p) => {
        const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        const frame = Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
        await sendAndClose(p, Buffer.concat([preface, settings, frame, Buffer.alloc(50_000)]));
        await expectAlive(p);
      },
    },
    {
      id: "rapid-reset",
      level: "MUST",
      says: "200 calls that are cancelled at once do not disturb the next one.",
      cites: "RFC 9113 section 5.4.2",
      advice: "Bound the work of cancelled streams. Closing that connection is allowed.",
      run: async (p) => {
        const other = p.newConnection();
        for (let round = 0; round < 200; round++) {
          const call = await other.options.channel.start(GetCapabilities.path).catch(() => undefined);
          call?.cancel();
        }
        await expectAlive(p);
      },
    },
    {
      id: "half-open-uploads",
      level: "MUST",
      says: "50 uploads that stall in the middle do not keep a 51st from finishing.",
      cites: "robustness",
      advice: "Hold neither a thread nor a large buffer for a silent client.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const other = p.newConnection();
        const stalled = await Promise.all(
          p.blobs(50, 200_000).map(async (blob) => {
            const call = await other.options.channel.start(ByteStream.methods.Write.path);
            await call.send(
              WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data.subarray(0, 20_000) }),
            );
            return call;
          }),
        );
        const blob = p.blob(300_000);
        expectOk(await p.write(p.writeName(blob.digest), inParts(blob.data)), "An upload beside 50 stalled ones");
        for (const call of stalled) call.cancel();
        await p.expectStored(blob.digest, "Afterwards");
      },
    },
    {
      id: "connection-cut",
      level: "MUST",
      says: "An upload whose connection is cut stores nothing and can be made again.",
      cites: "REv2 ContentAddressableStorage",
      advice: "Clean up when the connection goes.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const other = p.newConnection();
        const blob = p.blob(500_000);
        const call = await other.options.channel.start(ByteStream.methods.Write.path);
        await call.send(
          WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data.subarray(0, 200_000) }),
        );
        other.options.channel.close();
        await p.pause(100);
        await p.expectAbsent(blob.digest, "After the cut");
        expectOk(await p.write(p.writeName(blob.digest), inParts(blob.data)), "The upload again");
      },
    },
    {
      id: "deep-protobuf",
      level: "MUST",
      says: "A message nested 5,000 levels deep does no harm.",
      cites: "protobuf: nesting is limited to about 100",
      advice: "INVALID_ARGUMENT or INTERNAL; skip unknown groups and messages without recursion.",
      run: async (p) => {
        let bytes = Buffer.alloc(0);
        // Field 2 of Status-like messages inside an unknown field: what matters is the depth.
        for (let level = 0; level < 5000; level++)
          bytes = Buffer.concat([Buffer.from([0x1a]), varint(bytes.length), bytes]);
        const reply = await p.options.channel.unaryBytes(
          ActionCache.methods.UpdateActionResult.path,
          bytes,
          () => undefined,
          { signal: p.signal },
        );
        expectThat(reply.transport === undefined, `no status: ${reply.transport}`);
        expectRefusal(reply, "A deeply nested message");
        await expectAlive(p);
      },
    },
    {
      id: "length-lie",
      level: "MUST",
      says: "A protobuf field that claims 2 GiB is refused without harm.",
      cites: "protobuf encoding: length-delimited fields",
      advice: "Compare lengths with what is left before allocating.",
      run: async (p) => {
        const bytes = Buffer.concat([Buffer.from([0x0a]), varint(2 ** 31 - 1), Buffer.from("abc")]);
        expectCode(
          await p.options.channel.unaryBytes(GetCapabilities.path, bytes, () => undefined),
          [Code.INVALID_ARGUMENT, Code.INTERNAL],
          "A field of 2 GiB",
        );
      },
    },
    {
      id: "invalid-utf8",
      level: "SHOULD",
      says: "A string that is not UTF-8 is refused or taken as unknown, with a status.",
      cites: "protobuf: strings are UTF-8",
      advice: "INVALID_ARGUMENT or INTERNAL.",
      run: async (p) => {
        const reply = await p.options.channel.unaryBytes(
          GetCapabilities.path,
          Buffer.from([0x0a, 0x02, 0xff, 0xfe]),
          () => undefined,
        );
        expectThat(reply.transport === undefined, `no status: ${reply.transport}`);
      },
    },
    {
      id: "many-connections",
      level: "SHOULD",
      says: "50 connections at once are served.",
      cites: "a build farm's clients",
      advice: "Do not limit connections below that.",
      run: async (p) => {
        const replies = await Promise.all(
          Array.from({ length: 50 }, () => p.newConnection().call(GetCapabilities, { instanceName: p.instanceName })),
        );
        for (const reply of replies) expectOk(reply, "One of 50 connections");
      },
    },
  ],
);

async function expectAlive(p: Probe): Promise<void> {
  expectOk(await p.call(GetCapabilities, { instanceName: p.instanceName }), "GetCapabilities afterwards");
}

function rawSocket(p: Probe) {
  const { target } = p.options.channel;
  if (target.tls) throw new NotApplicable("needs a connection without TLS");
  const socket =
    target.socketPath === undefined ? connect({ host: target.host, port: target.port }) : connect(target.socketPath);
  socket.on("error", () => undefined);
  return socket;
}

async function sendAndClose(p: Probe, bytes: Uint8Array): Promise<void> {
  const socket = rawSocket(p);
  await new Promise<void>((resolve) => {
    socket.on("close", () => resolve());
    socket.resume();
    socket.end(bytes);
    setTimeout(() => socket.destroy(), 500);
  });
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
}
