// Limits, malformed input, and many clients at once: what a server in a company's network meets every day.
//
// Everything here is bounded: at most a few tens of megabytes and a few hundred streams.

import { connect } from "node:net";
import { Code } from "../../../src/base/status.ts";
import { ByteStream, WriteRequest } from "../../../src/proto/bytestream.ts";
import { ActionCache, Capabilities, ContentAddressableStorage as Cas } from "../../../src/proto/remote_execution.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectRefusal,
  expectThat,
  NotApplicable,
  type Check,
} from "../check.ts";
import { inParts, type Probe } from "../probe.ts";

const { GetCapabilities } = Capabilities.methods;

export const limitChecks: readonly Check[] = defineArea(
  "limits",
  ["cache", "sha256"],
  [
    {
      id: "blob-limit",
      level: "MUST",
      says: "A blob above max_cas_blob_size_bytes is refused before its data is sent.",
      cites: "REv2 CacheCapabilities.max_cas_blob_size_bytes",
      advice: "INVALID_ARGUMENT by the size in the name.",
      needs: ["blob-limit"],
      run: async (p) => {
        const digest = { ...p.absentDigest(), sizeBytes: p.capabilities.cacheCapabilities!.maxCasBlobSizeBytes + 1 };
        const reply = await p.write(p.writeName(digest), [{ offset: 0, data: Buffer.alloc(1000) }]);
        expectCode(
          reply,
          [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE],
          "Write of a blob above the limit",
        );
      },
    },
    {
      id: "absurd-size",
      level: "SHOULD",
      says: "A blob of 2^50 bytes is refused at once.",
      cites:
        "REv2 ContentAddressableStorage: INVALID_ARGUMENT above the limit, RESOURCE_EXHAUSTED when there is no room",
      advice: "Compare with what the store can ever hold; reserve nothing.",
      run: async (p) => {
        const reply = await p.write(p.writeName({ ...p.absentDigest(), sizeBytes: 2 ** 50 }), [
          { offset: 0, data: Buffer.alloc(1000) },
        ]);
        expectRefusal(reply, "Write of 2^50 bytes");
      },
    },
    {
      id: "message-limit",
      level: "MUST",
      says: "A message of 64 MiB is refused without harm.",
      cites: "gRPC: RESOURCE_EXHAUSTED above the receiver's limit",
      advice: "Refuse by the length in the prefix, before the bytes are kept. Accepting it is allowed.",
      run: async (p) => {
        const call = await p.options.channel.start(Cas.methods.FindMissingBlobs.path, { signal: p.signal });
        const prefix = Buffer.from([0, 0, 0, 0, 0]);
        prefix.writeUInt32BE(64 * 1024 * 1024, 1);
        await call.sendRaw(Buffer.concat([prefix, Buffer.alloc(100_000)]));
        call.end();
        await call.receive();
        const outcome = await call.outcome;
        expectThat(outcome.code !== Code.OK, "OK for a message of which a thousandth was sent");
        expectOk(await p.findMissing([p.absentDigest()]), "The next call");
      },
    },
    {
      id: "message-4mib",
      level: "SHOULD",
      says: "A request of nearly 4 MiB is accepted.",
      cites: "the default limit of gRPC servers",
      advice: "Take at least what clients may send by default.",
      run: async (p) => {
        const blobDigests = Array.from({ length: 50_000 }, () => ({
          hash: p.random.bytes(32).toString("hex"),
          sizeBytes: 5,
        }));
        const reply = await p.call(Cas.methods.FindMissingBlobs, { instanceName: p.instanceName, blobDigests });
        // 70 bytes each in the request; the answer is as long.
        expectOk(reply, "FindMissingBlobs of 50,000 digests");
        expectEqual(reply.response!.missingBlobDigests.length, 50_000, "Digests in the answer");
      },
    },
  ],
);

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

export const concurrencyChecks: readonly Check[] = defineArea(
  "concurrency",
  ["cache", "sha256"],
  [
    {
      id: "racing-writers",
      level: "MUST",
      says: "Twelve uploads of one blob at once all succeed, and the blob is right.",
      cites: "REv2 ContentAddressableStorage: the first to finish wins, the others succeed",
      advice: "No lock by name that fails the others, no shared temporary file.",
      run: async (p) => {
        const blob = p.blob(400_000);
        const replies = await Promise.all(
          Array.from({ length: 12 }, () => p.write(p.writeName(blob.digest), inParts(blob.data, 50_000))),
        );
        for (const reply of replies) {
          expectOk(reply, "One of twelve uploads");
          expectEqual(reply.response?.committedSize, 400_000, "committed_size");
        }
        expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "The blob");
      },
    },
    {
      id: "racing-good-and-bad",
      level: "MUST",
      says: "A wrong upload beside a right one of the same blob changes nothing.",
      cites: "REv2 ContentAddressableStorage: verified before visible",
      advice: "Each upload has its own temporary place.",
      run: async (p) => {
        const blob = p.blob(200_000);
        const bad = Buffer.from(blob.data);
        bad[100_000] = bad[100_000]! ^ 1;
        const writes = [blob.data, bad, blob.data, bad].map(
          async (data) => await p.write(p.writeName(blob.digest), inParts(data, 40_000)),
        );
        const [first, second, third] = await Promise.all(writes);
        expectOk(first!, "A right upload");
        expectOk(third!, "A right upload");
        // A wrong upload may be answered early because the right one has finished.
        expectThat(
          second!.code === Code.OK || second!.code === Code.INVALID_ARGUMENT,
          `a wrong upload: ${second!.code}`,
        );
        expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "The blob");
      },
    },
    {
      id: "racing-paths",
      level: "MUST",
      says: "One blob uploaded by batch and by stream at once is right.",
      cites: "REv2 ContentAddressableStorage",
      advice: "One store behind all paths.",
      run: async (p) => {
        const blob = p.blob(60_000);
        const [stream, batch] = await Promise.all([
          p.write(p.writeName(blob.digest), inParts(blob.data, 10_000)),
          p.batchUpdate([blob]),
        ]);
        expectOk(stream, "Write");
        expectOk(batch, "BatchUpdateBlobs");
        expectEqual(batch.response?.responses[0]?.status?.code ?? 0, Code.OK, "The blob's status");
        expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "The blob");
      },
    },
    {
      id: "read-your-writes",
      level: "MUST",
      says: "A blob is present on another connection as soon as its upload is acknowledged, 50 times.",
      cites: "REv2 ContentAddressableStorage; every client assumes it",
      advice: "Publish to all threads and processes before answering.",
      run: async (p) => {
        const other = p.newConnection();
        for (let round = 0; round < 50; round++) {
          const blob = await p.storeNew(500 + round);
          await other.expectStored(blob.digest, `Round ${round}`);
        }
      },
    },
    {
      id: "no-negative-cache",
      level: "MUST",
      says: "A blob that was asked for while absent is present once it is uploaded.",
      cites: "REv2 ContentAddressableStorage.FindMissingBlobs",
      advice: "Never answer from a negative cache that uploads do not clear.",
      run: async (p) => {
        const blob = p.blob(300);
        await p.expectAbsent(blob.digest, "Before");
        expectCode(await p.read(p.readName(blob.digest)), [Code.NOT_FOUND], "Reading it before");
        await p.store(blob);
        await p.expectStored(blob.digest, "After");
        expectOk(await p.read(p.readName(blob.digest)), "Reading it after");
      },
    },
    {
      id: "not-visible-early",
      level: "MUST",
      says: "A blob is not visible while its upload runs.",
      cites: "REv2 ContentAddressableStorage: verified before visible",
      advice: "Publish after the last byte was verified.",
      run: async (p) => {
        const blob = p.blob(100_000);
        const call = await p.options.channel.start(ByteStream.methods.Write.path, { signal: p.signal });
        await call.send(WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data }));
        await p.pause(100);
        await p.expectAbsent(blob.digest, "Before finish_write");
        await call.send(WriteRequest.encode({ writeOffset: 100_000, finishWrite: true }));
        call.end();
        await call.receive();
        expectOk(await call.outcome, "Write");
        await p.expectStored(blob.digest, "After finish_write");
      },
    },
    {
      id: "overtaken-upload",
      level: "MUST",
      says: "An upload that is overtaken by another of the same blob ends with success.",
      cites: "REv2 ContentAddressableStorage: committed_size of the whole blob",
      advice: "Look in the store again at the end.",
      run: async (p) => {
        const blob = p.blob(100_000);
        const call = await p.options.channel.start(ByteStream.methods.Write.path, { signal: p.signal });
        await call.send(
          WriteRequest.encode({ resourceName: p.writeName(blob.digest), data: blob.data.subarray(0, 50_000) }),
        );
        await p.store(blob);
        await call.send(
          WriteRequest.encode({ writeOffset: 50_000, data: blob.data.subarray(50_000), finishWrite: true }),
        );
        call.end();
        await call.receive();
        expectOk(await call.outcome, "The overtaken upload");
      },
    },
    {
      id: "parallel-reads",
      level: "MUST",
      says: "30 reads of different blobs at once get their own bytes.",
      cites: "RFC 9113: streams are independent",
      advice: "Do not share buffers between streams.",
      run: async (p) => {
        const blobs = p.blobs(30, 80_000);
        await p.store(...blobs);
        await Promise.all(
          blobs.map(async (blob) => {
            const read = await p.read(p.readName(blob.digest));
            expectOk(read, "One of 30 reads");
            expectBytes(read.data, blob.data, "Its bytes");
          }),
        );
      },
    },
    {
      id: "reads-and-writes",
      level: "MUST",
      says: "20 uploads and 20 downloads mixed on one connection are right.",
      cites: "RFC 9113: streams are independent",
      advice: "Watch flow control: an upload must not starve a download.",
      run: async (p) => {
        const [old, fresh] = [p.blobs(20, 150_000), p.blobs(20, 150_000)];
        await p.store(...old);
        await Promise.all([
          ...old.map(async (blob) =>
            expectBytes((await p.read(p.readName(blob.digest))).data, blob.data, "A download"),
          ),
          ...fresh.map(async (blob) =>
            expectOk(await p.write(p.writeName(blob.digest), inParts(blob.data, 30_000)), "An upload"),
          ),
        ]);
        expectEqual((await p.missingOf(fresh.map(({ digest }) => digest))).size, 0, "Uploads missing afterwards");
      },
    },
    {
      id: "small-calls-beside-large",
      level: "SHOULD",
      says: "Small calls are answered within 2 s while a large blob is read on the same connection.",
      cites: "RFC 9113 section 5.2: no head-of-line blocking between streams",
      advice: "Interleave frames.",
      run: async (p) => {
        const blob = await p.storeNew(8 * 1024 * 1024);
        const reading = p.read(p.readName(blob.digest));
        for (let round = 0; round < 20; round++) {
          const begun = performance.now();
          await p.missingOf([blob.digest]);
          expectThat(performance.now() - begun < 2000, "a small call took more than 2 s");
        }
        expectOk(await reading, "The large read");
      },
    },
    {
      id: "racing-results",
      level: "MUST",
      says: "Updates of one action at once leave one whole result.",
      cites: "REv2 ActionCache.UpdateActionResult",
      advice: "Replace entries atomically.",
      needs: ["ac-update"],
      run: async (p) => {
        const files = p.blobs(8, 40);
        await p.store(...files);
        const { digest } = await p.storeNew(140);
        const results = files.map((file) => ({
          outputFiles: [
            { path: "a", digest: file.digest },
            { path: "b", digest: file.digest },
          ],
          executionMetadata: { worker: "w" },
        }));
        const replies = await Promise.all(results.map((result) => p.updateActionResult(digest, result)));
        for (const reply of replies) expectOk(reply, "One of eight updates");
        const reply = await p.getActionResult(digest);
        expectOk(reply, "GetActionResult");
        const [first, second] = reply.response!.outputFiles;
        expectEqual(first?.digest?.hash, second?.digest?.hash, "The two outputs of one result");
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
