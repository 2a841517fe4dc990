// Digest functions beside SHA-256, and instance names: what keeps one store's blobs apart from another's.

import { Code } from "../../../src/base/status.ts";
import { ContentAddressableStorage as Cas, DigestFunction_Value as Fn } from "../../../src/proto/remote_execution.ts";
import {
  defineArea,
  expectBytes,
  expectCode,
  expectEqual,
  expectOk,
  expectThat,
  NotApplicable,
  type Check,
  type CheckBody,
} from "../check.ts";
import { inParts, type Probe } from "../probe.ts";

const CITES = "REv2 DigestFunction.Value";
const OTHERS = [Fn.SHA1, Fn.MD5, Fn.SHA384, Fn.SHA512, Fn.SHA256TREE, Fn.BLAKE3, Fn.GITSHA1] as const;

const nameOf = (value: number): string =>
  Object.entries(Fn)
    .find(([, number]) => number === value)![0]
    .toLowerCase();

/** Each advertised function goes through the store once; those that are not advertised do not apply. */
const roundTripChecks: CheckBody[] = OTHERS.map((value) => ({
  id: `${nameOf(value)}.round-trip`,
  level: "MUST",
  says: `Blobs under ${nameOf(value).toUpperCase()} are stored, found and read by every path.`,
  cites: CITES,
  advice: "Every function in digest_functions must work in every call.",
  needs: ["cache"],
  run: async (p) => {
    const q = p.withFunction(value);
    for (const size of [1, 1024, 1025, 5000]) {
      const batched = q.blob(size);
      await q.store(batched);
      expectBytes((await q.read(q.readName(batched.digest))).data, batched.data, `${size} bytes, by batch`);
      const streamed = q.blob(size);
      expectOk(await q.write(q.writeName(streamed.digest), inParts(streamed.data, 1000)), `Write of ${size} bytes`);
      await q.expectStored(streamed.digest, "Afterwards");
    }
    await q.expectStored(q.emptyDigest, "The empty blob");
    const { digest } = q.blob(50);
    expectCode(
      await q.write(q.writeName(digest), [{ offset: 0, data: q.blob(50).data, finish: true }]),
      [Code.INVALID_ARGUMENT],
      "Write of other bytes",
    );
  },
}));

export const digestChecks: readonly Check[] = defineArea(
  "digest",
  [],
  [
    {
      id: "sha256.explicit",
      level: "MUST",
      says: "SHA256 may be named in digest_function.",
      cites: CITES,
      advice: "Unset and SHA256 are the same.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const { digest } = await p.storeNew(70);
        const reply = await p.call(Cas.methods.FindMissingBlobs, {
          instanceName: p.instanceName,
          digestFunction: Fn.SHA256,
          blobDigests: [digest],
        });
        expectOk(reply, "FindMissingBlobs");
        expectEqual(reply.response!.missingBlobDigests.length, 0, "Digests reported missing");
      },
    },
    {
      id: "sha256.not-in-names",
      level: "SHOULD",
      says: "A ByteStream name with the segment sha256 is refused.",
      cites: "REv2 ContentAddressableStorage: the function is left out of names for SHA256 and its elders",
      advice: "INVALID_ARGUMENT (NOT_FOUND is accepted).",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const { digest } = await p.storeNew(70);
        const name = `${p.instancePrefix}blobs/sha256/${digest.hash}/${digest.sizeBytes}`;
        expectCode(await p.read(name), [Code.INVALID_ARGUMENT, Code.NOT_FOUND], `Reading "${name}"`);
      },
    },
    {
      id: "length-of-other-function",
      level: "SHOULD",
      says: "A hash whose length does not fit the named function is INVALID_ARGUMENT.",
      cites: CITES,
      advice: "40 digits are no SHA256.",
      needs: ["cache", "sha256"],
      run: async (p) => {
        const request = {
          instanceName: p.instanceName,
          digestFunction: Fn.SHA256,
          blobDigests: [{ hash: "a".repeat(40), sizeBytes: 1 }],
        };
        expectCode(await p.call(Cas.methods.FindMissingBlobs, request), [Code.INVALID_ARGUMENT], "40 digits as SHA256");
      },
    },
    {
      id: "not-advertised",
      level: "SHOULD",
      says: "A defined function that is not advertised is INVALID_ARGUMENT.",
      cites: `${CITES}; CacheCapabilities.digest_functions`,
      advice: "Refuse it, whatever the length of the hash.",
      needs: ["cache"],
      run: async (p) => {
        const advertised = p.capabilities.cacheCapabilities!.digestFunctions;
        const missing = [Fn.SHA512, Fn.VSO, Fn.MURMUR3].find((value) => !advertised.includes(value));
        if (missing === undefined) throw new NotApplicable("everything is advertised");
        const length = missing === Fn.SHA512 ? 128 : missing === Fn.VSO ? 66 : 32;
        const request = {
          instanceName: p.instanceName,
          digestFunction: missing,
          blobDigests: [{ hash: "a".repeat(length), sizeBytes: 1 }],
        };
        expectCode(await p.call(Cas.methods.FindMissingBlobs, request), [Code.INVALID_ARGUMENT], `Function ${missing}`);
      },
    },
    ...roundTripChecks,
    {
      id: "blake3.apart",
      level: "MUST",
      says: "The same 64 digits are different blobs under SHA256 and BLAKE3.",
      cites: `${CITES}: the function is part of what a digest means`,
      advice: "Put the function into the key.",
      needs: ["cache", "sha256", "blake3"],
      run: async (p) => {
        const q = p.withFunction(Fn.BLAKE3);
        const { digest } = await p.storeNew(80);
        await q.expectAbsent(digest, "A SHA256 digest asked for as BLAKE3");
        const other = await q.storeNew(80);
        await p.expectAbsent(other.digest, "A BLAKE3 digest asked for as SHA256");
      },
    },
    {
      id: "blake3.sha256-bytes",
      level: "MUST",
      says: "Data is verified with the function of the request.",
      cites: CITES,
      advice: "Do not try one function after the other.",
      needs: ["cache", "sha256", "blake3"],
      run: async (p) => {
        const q = p.withFunction(Fn.BLAKE3);
        const { data, digest } = p.blob(80);
        const reply = await q.batchUpdate([{ digest, data }]);
        if (reply.code === Code.OK)
          expectEqual(
            reply.response!.responses[0]?.status?.code,
            Code.INVALID_ARGUMENT,
            "The status of a SHA256 digest sent as BLAKE3",
          );
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The call");
      },
    },
    {
      id: "blake3.action-cache",
      level: "MUST",
      says: "The action cache keeps SHA256 and BLAKE3 apart.",
      cites: "REv2 GetActionResultRequest.digest_function",
      advice: "Put the function into the key.",
      needs: ["cache", "sha256", "blake3", "ac-update"],
      run: async (p) => {
        const q = p.withFunction(Fn.BLAKE3);
        const { digest } = await q.storeNew(120);
        const update = await q.updateActionResult(digest, { executionMetadata: { worker: "w" } });
        if (update.code !== Code.OK)
          return expectCode(update, [Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT], "UpdateActionResult");
        expectOk(await q.getActionResult(digest), "GetActionResult as BLAKE3");
        expectCode(await p.getActionResult(digest), [Code.NOT_FOUND], "GetActionResult as SHA256");
      },
    },
    {
      id: "blake3.name-needs-segment",
      level: "MUST",
      says: "A BLAKE3 blob is not read by a name without the segment blake3.",
      cites: "REv2 ContentAddressableStorage: names of functions above 7 carry the function",
      advice: "A name without it means SHA256.",
      needs: ["cache", "sha256", "blake3"],
      run: async (p) => {
        const blob = await p.withFunction(Fn.BLAKE3).storeNew(80);
        expectCode(
          await p.read(p.readName(blob.digest)),
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT],
          "Read without the segment",
        );
      },
    },
    {
      id: "blake3.large",
      level: "MUST",
      says: "A BLAKE3 blob of 300 KB, uploaded in parts, is verified and read back.",
      cites: CITES,
      advice: "Check the tree mode of the hash, not only single chunks.",
      needs: ["cache", "blake3"],
      run: async (p) => {
        const q = p.withFunction(Fn.BLAKE3);
        const blob = q.blob(300_001);
        expectOk(await q.write(q.writeName(blob.digest), inParts(blob.data, 7777)), "Write");
        expectBytes(
          (await q.read(q.readName(blob.digest), { offset: 100 })).data,
          blob.data.subarray(100),
          "The bytes",
        );
      },
    },
  ],
);

export const instanceChecks: readonly Check[] = defineArea(
  "instance",
  ["cache", "sha256"],
  [
    {
      id: "other",
      level: "MUST",
      says: "Another instance name works or is refused by name, the same way in every call.",
      cites: "REv2: instance_name of every request",
      advice: "INVALID_ARGUMENT, NOT_FOUND or PERMISSION_DENIED for names you do not serve.",
      run: async (p) => {
        const q = otherInstance(p);
        const blob = q.blob(50);
        const reply = await q.batchUpdate([blob]);
        expectThat(reply.transport === undefined, `no status: ${reply.transport}`);
        if (reply.code === Code.OK) await q.expectStored(blob.digest, "After the upload");
        else expectCode(await q.findMissing([blob.digest]), [reply.code], "FindMissingBlobs of the refused instance");
      },
    },
    {
      id: "with-slashes",
      level: "MUST",
      says: "A name of several segments is accepted, or refused like any other unknown name.",
      cites: "REv2: instance_name may contain slashes",
      advice: "Parse ByteStream names from the keyword on.",
      run: async (p) => {
        const q = p.withInstance(`a/b/${p.random.uuid()}`);
        const blob = q.blob(50);
        if ((await q.batchUpdate([blob])).code !== Code.OK) return;
        expectBytes((await q.read(q.readName(blob.digest))).data, blob.data, "The bytes");
        const second = q.blob(50);
        expectOk(await q.write(q.writeName(second.digest), [{ offset: 0, data: second.data, finish: true }]), "Write");
        await q.expectStored(second.digest, "Afterwards");
      },
    },
    {
      id: "action-cache-apart",
      level: "SHOULD",
      says: "Results of one instance are not hits in another.",
      cites: "REv2: instances are separate",
      advice: "Put the instance into the key of the action cache.",
      needs: ["ac-update"],
      run: async (p) => {
        const q = otherInstance(p);
        const { digest } = await p.storeNew(140);
        expectOk(await p.updateActionResult(digest, { executionMetadata: { worker: "w" } }), "UpdateActionResult");
        expectCode(
          await q.getActionResult(digest),
          [Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED],
          "GetActionResult in the other instance",
        );
      },
    },
    {
      id: "reserved-segment",
      level: "SHOULD",
      says: "An instance name with a reserved segment is refused.",
      cites: "REv2 ContentAddressableStorage: segments that no instance name may have",
      advice:
        "INVALID_ARGUMENT for blobs, uploads, actions, actionResults, operations, capabilities, compressed-blobs.",
      run: async (p) => {
        const q = p.withInstance("team/uploads");
        expectCode(
          await q.findMissing([q.absentDigest()]),
          [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.PERMISSION_DENIED],
          `Instance "team/uploads"`,
        );
      },
    },
  ],
);

function otherInstance(p: Probe): Probe {
  return p.withInstance(`conformance-${p.random.uuid().slice(0, 8)}`);
}
