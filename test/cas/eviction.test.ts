// Eviction: the least recently used blobs go first, pinned and lately asked-for ones stay, the limit holds.

import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import type { Digest } from "../../src/digest/digest.ts";
import { expectCode, putRandom } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const MIB = 1024 * 1024;

async function openWith(maxSizeBytes: number, options: { protectRecentMs?: number } = {}) {
  const clock = new ManualClock(Date.UTC(2026, 0, 1));
  const fixture = await StorageFixture.open({ clock, maxSizeBytes, protectRecentMs: options.protectRecentMs ?? 0 });
  return { clock, fixture };
}

describe("eviction of the local store", () => {
  test("what was not asked for the longest time goes first", async () => {
    const { clock, fixture } = await openWith(10 * MIB);
    await using _ = fixture;
    const { blobs } = fixture.storage;
    const digests: Digest[] = [];
    for (let i = 0; i < 9; i++) {
      digests.push(await putRandom(blobs, MIB));
      clock.advance(1000);
    }
    const [first, second, third] = digests as [Digest, Digest, Digest];
    await blobs.has(first); // touched: now the youngest
    clock.advance(1000);
    for (let i = 0; i < 3; i++) {
      await putRandom(blobs, MIB);
      clock.advance(1000);
    }
    expect([await blobs.has(first), await blobs.has(second), await blobs.has(third)]).toEqual([true, false, false]);
    expect(fixture.storage.stats().usedBytes).toBeLessThanOrEqual(10 * MIB);
  });

  test("the store never grows beyond its limit, whatever sizes arrive", async () => {
    const { clock, fixture } = await openWith(20 * MIB);
    await using _ = fixture;
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        [100, 3000, 30_000, 40_000, 900_000, 1_500_000].map((size) => putRandom(fixture.storage.blobs, size)),
      );
      clock.advance(1000);
      expect(fixture.storage.stats().usedBytes).toBeLessThanOrEqual(21 * MIB);
    }
    expect(fixture.storage.stats().entryCount).toBeGreaterThan(10);
  });

  test("a pinned blob stays, and what finds no room is RESOURCE_EXHAUSTED with a time to come back", async () => {
    const { clock, fixture } = await openWith(5 * MIB);
    await using _ = fixture;
    const { blobs } = fixture.storage;
    const digests = [await putRandom(blobs, 2 * MIB), await putRandom(blobs, 2 * MIB)];
    const pin = blobs.pin(digests);
    clock.advance(10_000);
    const refused = putRandom(blobs, 2 * MIB);
    await expectCode(refused, Code.RESOURCE_EXHAUSTED);
    await refused.catch((error: { details: { typeUrl: string }[] }) => {
      expect(error.details[0]?.typeUrl).toBe("type.googleapis.com/google.rpc.RetryInfo");
    });
    pin.release();
    const digest = await putRandom(blobs, 2 * MIB);
    expect(await blobs.has(digest)).toBe(true);
  });

  test("a digest pinned before it arrived stays once it is there", async () => {
    const { clock, fixture } = await openWith(6 * MIB);
    await using _ = fixture;
    const { blobs } = fixture.storage;
    const data = randomBytes(MIB);
    const { digestOf } = await import("../../src/compute/hash.ts");
    const digest = digestOf(1, data);
    const pin = blobs.pin([digest]);
    await blobs.put(digest, data);
    for (let i = 0; i < 12; i++) {
      clock.advance(1000);
      await putRandom(blobs, MIB);
    }
    expect(await blobs.has(digest)).toBe(true);
    pin.release();
  });

  test("what was asked for within the last minutes is not evicted, uploads are refused", async () => {
    const { clock, fixture } = await openWith(5 * MIB, { protectRecentMs: 60_000 });
    await using _ = fixture;
    const { blobs } = fixture.storage;
    const digests = [await putRandom(blobs, 2 * MIB), await putRandom(blobs, 2 * MIB)];
    clock.advance(30_000);
    await expectCode(putRandom(blobs, 2 * MIB), Code.RESOURCE_EXHAUSTED);
    expect(await blobs.has(digests[1] as Digest)).toBe(true);
    clock.advance(59_000);
    await putRandom(blobs, 2 * MIB);
    expect(await blobs.has(digests[0] as Digest)).toBe(false);
  });

  test("a blob larger than the store is refused at its first bytes beyond it", async () => {
    const { fixture } = await openWith(3 * MIB);
    await using _ = fixture;
    const upload = await fixture.storage.blobs.openUpload({ fn: 1, hash: "ab".repeat(32), sizeBytes: 50 * MIB });
    const send = async () => {
      for (let i = 0; i < 50; i++) await upload.write(new Uint8Array(MIB));
    };
    await expectCode(send(), Code.RESOURCE_EXHAUSTED);
    expect(fixture.storage.stats().openUploads).toBe(0);
  });

  test("small blobs leave room for large ones, and the other way round", async () => {
    const { clock, fixture } = await openWith(16 * MIB);
    await using _ = fixture;
    const { blobs } = fixture.storage;
    for (let i = 0; i < 20; i++) {
      await Promise.all(Array.from({ length: 100 }, () => putRandom(blobs, 10_000)));
      clock.advance(1000);
    }
    for (let i = 0; i < 6; i++) {
      const digest = await putRandom(blobs, MIB);
      expect(await blobs.has(digest)).toBe(true);
      clock.advance(1000);
    }
    const small = await putRandom(blobs, 10_000);
    expect(await blobs.has(small)).toBe(true);
  });

  // LMDB's file keeps the size it once had; files must still find their share of a lower limit.
  test("a limit lowered below the size of the index file still leaves room for files", async () => {
    const { clock, fixture } = await openWith(200 * MIB);
    await using _ = fixture;
    for (let i = 0; i < 8; i++) {
      await Promise.all(Array.from({ length: 100 }, () => putRandom(fixture.storage.blobs, 30_000)));
    }
    await fixture.restart({ maxSizeBytes: 12 * MIB });
    await fixture.storage.loaded;
    clock.advance(60_000);
    const large = await putRandom(fixture.storage.blobs, 2 * MIB);
    const small = await putRandom(fixture.storage.blobs, 1000);
    expect([await fixture.storage.blobs.has(large), await fixture.storage.blobs.has(small)]).toEqual([true, true]);
  });
});
