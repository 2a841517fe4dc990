// Splitting a blob into chunks and splicing it together again: the chunks are those of the reference, the bytes the same.

import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DIGEST_FUNCTIONS, DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { expectCode, putRandom, randomDigest, readAll, same } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const MIB = 1024 * 1024;

describe("Chunking", () => {
  test("split() gives chunks whose concatenation is the blob, for both digest functions, twice the same", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs, chunking } = fixture.storage;
    for (const fn of DIGEST_FUNCTIONS) {
      const data = randomBytes(7 * MIB);
      const digest = digestOf(fn, data);
      await blobs.put(digest, data);
      const chunks = await chunking.split(digest);
      expect(chunks.length).toBeGreaterThan(3);
      const parts: Uint8Array[] = [];
      for (const chunk of chunks) parts.push(await readAll(await blobs.openRead(chunk)));
      expect(same(Buffer.concat(parts), data)).toBe(true);
      expect(await chunking.split(digest)).toEqual(chunks);
    }
  });

  // What chunks are for: an insertion near the front must leave most chunks as they were.
  test("an insertion changes few chunks", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs, chunking } = fixture.storage;
    const data = randomBytes(10 * MIB);
    const changed = Buffer.concat([data.subarray(0, 1000), Buffer.from("inserted"), data.subarray(1000)]);
    const digests = [digestOf(DigestFunction.SHA256, data), digestOf(DigestFunction.SHA256, changed)] as const;
    await blobs.put(digests[0], data);
    await blobs.put(digests[1], changed);
    const before = new Set((await chunking.split(digests[0])).map(({ hash }) => hash));
    const after = await chunking.split(digests[1]);
    expect(after.filter(({ hash }) => !before.has(hash)).length).toBeLessThanOrEqual(2);
  });

  test("splice() stores the concatenation, and split() of it gives those chunks", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs, chunking } = fixture.storage;
    const parts = Array.from({ length: 5 }, () => randomBytes(MIB));
    const chunks: Digest[] = [];
    for (const part of parts) {
      const chunk = digestOf(DigestFunction.SHA256, part);
      await blobs.put(chunk, part);
      chunks.push(chunk);
    }
    const data = Buffer.concat(parts);
    const digest = digestOf(DigestFunction.SHA256, data);
    await chunking.splice(digest, chunks);
    expect(same(await readAll(await blobs.openRead(digest)), data)).toBe(true);
    expect(await chunking.split(digest)).toEqual(chunks);
    await chunking.splice(digest, chunks);
  });

  test("splice() names the chunk that is missing and refuses chunks that are not the blob", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs, chunking } = fixture.storage;
    const chunk = await putRandom(blobs, 1000);
    const missing = randomDigest(500);
    await expectCode(chunking.splice(randomDigest(1500), [chunk, missing]), Code.NOT_FOUND);
    await expectCode(chunking.splice(randomDigest(2000), [chunk, chunk]), Code.INVALID_ARGUMENT);
    await expectCode(chunking.splice(randomDigest(1001), [chunk]), Code.INVALID_ARGUMENT);
  });

  test("split() of a small blob is the blob itself, of an absent one NOT_FOUND", async () => {
    await using fixture = await StorageFixture.open();
    const digest = await putRandom(fixture.storage.blobs, 100_000);
    expect(await fixture.storage.chunking.split(digest)).toEqual([digest]);
    await expectCode(fixture.storage.chunking.split(randomDigest(5)), Code.NOT_FOUND);
  });
});
