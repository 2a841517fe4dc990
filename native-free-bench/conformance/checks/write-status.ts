// ByteStream.QueryWriteStatus and resumed uploads.

import { Code } from "../../../src/base/status.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectRefusal,
  expectThat,
  type Check,
} from "../check.ts";
import { inParts } from "../probe.ts";

export const writeStatusChecks: readonly Check[] = defineArea(
  "write-status",
  ["cache", "sha256", "write-status"],
  [
    {
      id: "complete",
      level: "MUST",
      says: "A present blob is complete with its size.",
      cites: "google.bytestream QueryWriteStatusResponse",
      advice: "Look in the store, not only among running uploads.",
      run: async (p) => {
        const blob = await p.storeNew(444);
        const reply = await p.writeStatus(p.writeName(blob.digest));
        expectOk(reply, "QueryWriteStatus");
        expectEqual(reply.response?.complete, true, "complete");
        expectEqual(reply.response?.committedSize, 444, "committed_size");
      },
    },
    {
      id: "unknown",
      level: "SHOULD",
      says: "An unknown upload is 0 bytes and incomplete, or NOT_FOUND.",
      cites: "google.bytestream ByteStream.QueryWriteStatus",
      advice: "Bazel asks between retries; any other error ends its upload.",
      run: async (p) => {
        const reply = await p.writeStatus(p.writeName(p.absentDigest()));
        if (reply.code === Code.NOT_FOUND) return;
        expectOk(reply, "QueryWriteStatus");
        expectEqual(reply.response?.complete, false, "complete");
        expectEqual(reply.response?.committedSize, 0, "committed_size");
      },
    },
    {
      id: "malformed-name",
      level: "SHOULD",
      says: "A malformed name is INVALID_ARGUMENT.",
      cites: "google.bytestream QueryWriteStatusRequest.resource_name",
      advice: "Parse it as Write does.",
      run: async (p) =>
        expectCode(await p.writeStatus(`${p.instancePrefix}uploads/x`), [Code.INVALID_ARGUMENT], "A malformed name"),
    },
    {
      id: "resume",
      level: "SHOULD",
      says: "An interrupted upload goes on where QueryWriteStatus says, and the blob is right.",
      cites: "google.bytestream ByteStream.QueryWriteStatus: resume at committed_size",
      advice: "Report only bytes that a following Write may build upon; 0 is always allowed.",
      run: async (p) => {
        const blob = p.blob(1_500_000);
        const name = p.writeName(blob.digest);
        await p.write(
          name,
          inParts(blob.data.subarray(0, 800_000), 100_000).map((part) => ({ ...part, finish: false })),
        );
        const status = await p.writeStatus(name);
        const committed = status.code === Code.OK ? status.response!.committedSize : 0;
        expectThat(committed >= 0 && committed <= 800_000, `committed_size is ${committed} after 800,000 bytes`);
        const reply = await p.write(name, inParts(blob.data.subarray(committed), 100_000, committed));
        expectOk(reply, `Going on at ${committed}`);
        expectEqual(reply.response?.committedSize, 1_500_000, "committed_size");
        const read = await p.read(p.readName(blob.digest));
        expectBytes(read.data, blob.data, "The blob");
      },
    },
    {
      id: "resume-wrong-offset",
      level: "MUST",
      says: "Going on beyond what is committed is refused.",
      cites: "google.bytestream WriteRequest.write_offset",
      advice: "Compare the first offset with what is kept.",
      run: async (p) => {
        const blob = p.blob(400_000);
        const name = p.writeName(blob.digest);
        await p.write(name, [{ offset: 0, data: blob.data.subarray(0, 100_000) }]);
        expectRefusal(
          await p.write(name, [{ offset: 200_000, data: blob.data.subarray(200_000), finish: true }]),
          "Going on at 200,000 after 100,000 bytes",
        );
        await p.expectAbsent(blob.digest, "Afterwards");
      },
    },
    {
      id: "not-decreasing",
      level: "MUST",
      says: "committed_size of one name does not decrease.",
      cites: "google.bytestream QueryWriteStatusResponse.committed_size",
      advice: "Report what survives, not what was received last.",
      run: async (p) => {
        const blob = p.blob(600_000);
        const name = p.writeName(blob.digest);
        await p.write(name, [{ offset: 0, data: blob.data.subarray(0, 200_000) }]);
        const first = (await p.writeStatus(name)).response?.committedSize ?? 0;
        const second = (await p.writeStatus(name)).response?.committedSize ?? 0;
        expectThat(second >= first, `${first}, then ${second}`);
      },
    },
    {
      id: "after-duplicate",
      level: "SHOULD",
      says: "An interrupted upload of a blob that somebody else completed is complete.",
      cites: "google.bytestream QueryWriteStatusResponse.complete",
      advice: "Ask the store before the table of uploads.",
      run: async (p) => {
        const blob = p.blob(300_000);
        const name = p.writeName(blob.digest);
        await p.write(name, [{ offset: 0, data: blob.data.subarray(0, 100_000) }]);
        await p.store(blob);
        const reply = await p.writeStatus(name);
        expectOk(reply, "QueryWriteStatus");
        expectEqual(reply.response?.complete, true, "complete");
      },
    },
  ],
);
