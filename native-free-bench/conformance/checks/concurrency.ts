// Many clients at once: racing writers, reading your own writes, streams that do not disturb each other.

import { Code } from "../../../src/base/status.ts";
import { ByteStream, WriteRequest } from "../../../src/proto/bytestream.ts";
import { defineArea, expectBytes, expectCode, expectEqual, expectOk, expectThat, type Check } from "../check.ts";
import { inParts } from "../probe.ts";

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
