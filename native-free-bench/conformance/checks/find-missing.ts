// FindMissingBlobs: the answer every build is planned by.

import { Code } from "../../../src/base/status.ts";
import { ContentAddressableStorage as Cas } from "../../../src/proto/remote_execution.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectRefusal, expectThat, type Check } from "../check.ts";

const CITES = "REv2 ContentAddressableStorage.FindMissingBlobs";

export const findMissingChecks: readonly Check[] = defineArea(
  "find-missing",
  ["cache", "sha256"],
  [
    {
      id: "absent",
      level: "MUST",
      says: "A blob that was never stored is reported missing.",
      cites: CITES,
      advice: "Look the digest up by hash, size and digest function; never answer from a guess.",
      run: async (p) => await p.expectAbsent(p.absentDigest(), "A new digest"),
    },
    {
      id: "present",
      level: "MUST",
      says: "A blob that was just stored is not reported missing.",
      cites: `${CITES}; lifetime rules of the CAS`,
      advice: "Publish a blob before the upload is acknowledged.",
      run: async (p) => {
        const blob = await p.storeNew(1000);
        await p.expectStored(blob.digest, "After an acknowledged upload");
      },
    },
    {
      id: "mixed",
      level: "MUST",
      says: "Of a mixed request exactly the absent digests come back.",
      cites: CITES,
      advice: "Judge each digest by itself.",
      run: async (p) => {
        const present = p.blobs(20, 50);
        await p.store(...present);
        const absent = Array.from({ length: 20 }, () => p.absentDigest());
        const mixed = present.flatMap((blob, index) => [blob.digest, absent[index]!]);
        const missing = await p.missingOf(mixed);
        for (const { hash } of absent) expectThat(missing.has(hash), `absent ${hash} is not in the answer`);
        expectEqual(missing.size, absent.length, "Digests in the answer");
      },
    },
    {
      id: "empty-request",
      level: "MUST",
      says: "A request without digests gets an empty answer.",
      cites: CITES,
      advice: "An empty list is not an error.",
      run: async (p) => expectEqual((await p.missingOf([])).size, 0, "Digests in the answer"),
    },
    {
      id: "empty-blob",
      level: "MUST",
      says: "The empty blob is never missing.",
      cites: "REv2 Digest and ContentAddressableStorage: the empty blob is always present",
      advice: "Answer for size 0 and the empty hash before asking the store.",
      run: async (p) => await p.expectStored(p.emptyDigest, "The empty blob"),
    },
    {
      id: "echo-size",
      level: "MUST",
      says: "Missing digests come back with hash and size as they were sent.",
      cites: `${CITES}; Digest: the size is part of the identity`,
      advice: "Echo the digest of the request; a size of 0 makes the client upload the wrong thing.",
      run: async (p) => {
        const digest = p.absentDigest(12_345);
        const reply = await p.findMissing([digest]);
        expectOk(reply, "FindMissingBlobs");
        const [first] = reply.response!.missingBlobDigests;
        expectEqual(first?.hash, digest.hash, "The hash");
        expectEqual(first?.sizeBytes, digest.sizeBytes, "The size");
      },
    },
    {
      id: "wrong-size",
      level: "MUST",
      says: "A stored hash asked for with another size is missing, or the request is refused.",
      cites: "REv2 Digest: a correct hash with a wrong size is to be rejected",
      advice: "Compare the size as well; a client that sees it present will ask for it under that size.",
      run: async (p) => {
        const { digest } = await p.storeNew(300);
        const reply = await p.findMissing([{ hash: digest.hash, sizeBytes: 301 }]);
        if (reply.code === Code.OK)
          expectEqual(reply.response!.missingBlobDigests.length, 1, "Digests reported missing");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The wrong size");
      },
    },
    {
      id: "duplicates",
      level: "MUST",
      says: "A present digest asked twice is not missing; an absent one asked twice is.",
      cites: CITES,
      advice: "Duplicates are legal; report them once or as often as asked.",
      run: async (p) => {
        const { digest } = await p.storeNew(40);
        const absent = p.absentDigest();
        const missing = await p.missingOf([digest, absent, digest, absent]);
        expectThat(missing.has(absent.hash), "the absent one is not reported");
        expectThat(!missing.has(digest.hash), "the present one is reported");
      },
    },
    {
      id: "duplicates-once",
      level: "MAY",
      says: "An absent digest asked twice is reported once.",
      cites: CITES,
      advice: "Saves the client an upload when it does not remove duplicates itself.",
      run: async (p) => {
        const digest = p.absentDigest();
        const reply = await p.findMissing([digest, digest]);
        expectOk(reply, "FindMissingBlobs");
        expectEqual(reply.response!.missingBlobDigests.length, 1, "Digests in the answer");
      },
    },
    {
      id: "only-asked",
      level: "MUST",
      says: "Nothing is reported that was not asked.",
      cites: `${CITES}: a subset of the request`,
      advice: "Do not share buffers between requests.",
      run: async (p) => {
        const digests = Array.from({ length: 30 }, () => p.absentDigest());
        const asked = new Set(digests.map(({ hash }) => hash));
        for (const hash of await p.missingOf(digests)) expectThat(asked.has(hash), `${hash} was not asked`);
      },
    },
    {
      id: "thousand",
      level: "MUST",
      says: "A request of 1,000 digests is answered completely.",
      cites: `${CITES}; clients fill requests up to the message size`,
      advice: "Do not limit the count below what fits a message.",
      run: async (p) => {
        const digests = Array.from({ length: 1000 }, () => p.absentDigest(20));
        expectEqual((await p.missingOf(digests)).size, 1000, "Digests in the answer");
      },
    },
    {
      id: "thirteen-thousand",
      level: "CLIENTS",
      says: "A request of 13,000 digests is answered completely.",
      cites: "BuildStream asks for that many at once (about 1 MB)",
      advice: "Take any request that fits a message; bound the work per request, not the count.",
      run: async (p) => {
        const digests = Array.from({ length: 13_000 }, () => ({
          hash: p.random.bytes(32).toString("hex"),
          sizeBytes: 5,
        }));
        expectEqual((await p.missingOf(digests)).size, 13_000, "Digests in the answer");
      },
    },
    {
      id: "same-prefix",
      level: "MUST",
      says: "Digests that agree in their first 16 digits are kept apart.",
      cites: "REv2 Digest",
      advice: "Compare the whole hash after a probe of an index by prefix.",
      run: async (p) => {
        const { digest } = await p.storeNew(64);
        const twin = { hash: digest.hash.slice(0, 16) + p.random.bytes(24).toString("hex"), sizeBytes: 64 };
        const other = { hash: digest.hash.slice(0, 56) + p.random.bytes(4).toString("hex"), sizeBytes: 64 };
        const missing = await p.missingOf([twin, digest, other]);
        expectThat(
          missing.has(twin.hash) && missing.has(other.hash),
          "a digest with the same beginning counts as present",
        );
        expectThat(!missing.has(digest.hash), "the stored digest counts as missing");
      },
    },
    {
      id: "short-hash",
      level: "SHOULD",
      says: "A hash of 63 digits is INVALID_ARGUMENT.",
      cites: "REv2 Digest.hash: full length of the function",
      advice: "Validate digests at the edge and say which one is wrong.",
      run: async (p) =>
        expectCode(
          await p.findMissing([{ hash: "a".repeat(63), sizeBytes: 1 }]),
          [Code.INVALID_ARGUMENT],
          "A hash of 63 digits",
        ),
    },
    {
      id: "long-hash",
      level: "SHOULD",
      says: "A hash of 65 digits is INVALID_ARGUMENT.",
      cites: "REv2 Digest.hash: full length of the function",
      advice: "Validate digests at the edge and say which one is wrong.",
      run: async (p) =>
        expectCode(
          await p.findMissing([{ hash: "a".repeat(65), sizeBytes: 1 }]),
          [Code.INVALID_ARGUMENT],
          "A hash of 65 digits",
        ),
    },
    {
      id: "upper-case-hash",
      level: "SHOULD",
      says: "An upper-case hash is INVALID_ARGUMENT.",
      cites: "REv2 Digest.hash: lower-case hexadecimal",
      advice: "Two spellings of one digest would be two entries.",
      run: async (p) =>
        expectCode(
          await p.findMissing([{ hash: "AB".repeat(32), sizeBytes: 1 }]),
          [Code.INVALID_ARGUMENT],
          "An upper-case hash",
        ),
    },
    {
      id: "non-hex-hash",
      level: "SHOULD",
      says: "A hash with a character outside 0-9a-f is INVALID_ARGUMENT.",
      cites: "REv2 Digest.hash: lower-case hexadecimal",
      advice: "Validate digests at the edge: hashes become file names in many stores.",
      run: async (p) => {
        expectCode(
          await p.findMissing([{ hash: `../${"a".repeat(61)}`, sizeBytes: 1 }]),
          [Code.INVALID_ARGUMENT],
          `A hash beginning with "../"`,
        );
        expectCode(
          await p.findMissing([{ hash: `g${"0".repeat(63)}`, sizeBytes: 1 }]),
          [Code.INVALID_ARGUMENT],
          `A hash beginning with "g"`,
        );
      },
    },
    {
      id: "negative-size",
      level: "SHOULD",
      says: "A negative size is INVALID_ARGUMENT.",
      cites: "REv2 Digest.size_bytes",
      advice: "Validate digests at the edge.",
      run: async (p) =>
        expectCode(await p.findMissing([{ ...p.absentDigest(), sizeBytes: -1 }]), [Code.INVALID_ARGUMENT], "Size -1"),
    },
    {
      id: "zero-size-other-hash",
      level: "MUST",
      says: "Size 0 with a hash that is not the empty one is never called present.",
      cites: "REv2 Digest: no other blob has size 0",
      advice: "Refuse it (INVALID_ARGUMENT) or report it missing; decide emptiness by hash and size.",
      run: async (p) => {
        const reply = await p.findMissing([{ ...p.absentDigest(), sizeBytes: 0 }]);
        if (reply.code === Code.OK)
          expectEqual(reply.response!.missingBlobDigests.length, 1, "Digests reported missing");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "Size 0 with another hash");
      },
    },
    {
      id: "empty-hash-other-size",
      level: "MUST",
      says: "The empty hash with a size above 0 is never called present.",
      cites: "REv2 Digest: hash and size belong together",
      advice: "Decide emptiness by hash and size.",
      run: async (p) => {
        const reply = await p.findMissing([{ hash: p.emptyDigest.hash, sizeBytes: 7 }]);
        if (reply.code === Code.OK)
          expectEqual(reply.response!.missingBlobDigests.length, 1, "Digests reported missing");
        else expectCode(reply, [Code.INVALID_ARGUMENT], "The empty hash with size 7");
      },
    },
    {
      id: "bad-among-good",
      level: "SHOULD",
      says: "One malformed digest does not make the server call the others present.",
      cites: CITES,
      advice: "Refuse the whole call; never drop the malformed digest silently.",
      run: async (p) => {
        const absent = p.absentDigest();
        const reply = await p.findMissing([absent, { hash: "zz", sizeBytes: 1 }]);
        if (reply.code !== Code.OK) return expectRefusal(reply, "A malformed digest");
        expectEqual(reply.response!.missingBlobDigests.length, 2, "Digests reported missing");
      },
    },
    {
      id: "unknown-digest-function",
      level: "SHOULD",
      says: "A digest function that is not advertised is INVALID_ARGUMENT.",
      cites: "REv2 FindMissingBlobsRequest.digest_function",
      advice: "Do not fall back to another function: equal lengths would mix blobs of two functions.",
      run: async (p) => {
        const request = { instanceName: p.instanceName, blobDigests: [p.absentDigest()], digestFunction: 99 };
        expectCode(await p.call(Cas.methods.FindMissingBlobs, request), [Code.INVALID_ARGUMENT], "Digest function 99");
      },
    },
    {
      id: "huge-size",
      level: "MUST",
      says: "A size near 2^63 is answered, missing or refused, and does no harm.",
      cites: "REv2 Digest.size_bytes (int64)",
      advice: "Sizes are 64-bit; do not reserve memory by them.",
      run: async (p) => {
        const reply = await p.findMissing([{ ...p.absentDigest(), sizeBytes: 2 ** 62 }]);
        if (reply.code === Code.OK)
          expectEqual(reply.response!.missingBlobDigests.length, 1, "Digests reported missing");
        else expectCode(reply, [Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE], "Size 2^62");
      },
    },
    {
      id: "many-sizes",
      level: "MUST",
      says: "Blobs of 1 byte to 2 MiB, at the edges of powers of two, are found again.",
      cites: CITES,
      advice: "Look at how blobs are divided between inline storage and files.",
      run: async (p) => {
        const sizes = [
          1, 2, 255, 256, 4095, 4096, 4097, 16_383, 65_535, 65_536, 65_537, 262_144, 1_048_575, 1_048_577, 2_097_152,
        ];
        const blobs = sizes.map((size) => p.blob(size));
        await p.store(...blobs);
        const missing = await p.missingOf(blobs.map(({ digest }) => digest));
        for (const { digest } of blobs)
          expectThat(!missing.has(digest.hash), `the blob of ${digest.sizeBytes} bytes is missing`);
      },
    },
  ],
);
