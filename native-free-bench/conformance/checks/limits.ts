// Limits of sizes: what is announced holds, and what is beyond is refused early.

import { Code } from "../../../src/base/status.ts";
import { ContentAddressableStorage as Cas } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectRefusal, expectThat, type Check } from "../check.ts";

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
