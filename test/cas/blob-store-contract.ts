// What every blob store and every decorator of one keeps: see src/cas/blob-store.ts.

import { randomBytes } from "node:crypto";
import { linkSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Code, StatusError } from "../../src/base/status.ts";
import { CopyOutcome, type BlobReader, type BlobStore } from "../../src/cas/blob-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DIGEST_FUNCTIONS, DigestFunction, emptyDigest, functionName, type Digest } from "../../src/digest/digest.ts";

export interface BlobStoreFixture {
  readonly store: BlobStore;
  close(): Promise<void>;
}

/** Sizes on both sides of every limit a store may have: inline or file, one slab or several. */
const SIZES = [1, 1000, 4096, 70_000, 300_000, 2_500_000];

export function describeBlobStoreContract(name: string, makeFixture: () => Promise<BlobStoreFixture>): void {
  describe(`${name} keeps the blob store contract`, () => {
    let fixture: BlobStoreFixture;
    let store: BlobStore;
    let directory: string;
    beforeEach(async () => {
      fixture = await makeFixture();
      store = fixture.store;
      directory = mkdtempSync(join(tmpdir(), "ledge-contract-"));
    });
    afterEach(async () => {
      await fixture.close();
      rmSync(directory, { recursive: true, force: true });
    });

    for (const fn of DIGEST_FUNCTIONS) {
      test(`put() then get() returns the bytes, ${functionName(fn)}, of every size`, async () => {
        for (const size of SIZES) {
          const data = randomBytes(size);
          const digest = digestOf(fn, data);
          expect(await store.get(digest)).toBeUndefined();
          await store.put(digest, data);
          expect(same(await store.get(digest), data)).toBe(true);
          expect(await store.has(digest)).toBe(true);
          expect(await store.findSize(fn, digest.hash)).toBe(size);
        }
      });

      test(`an upload in odd pieces is the blob, ${functionName(fn)}, of every size`, async () => {
        for (const size of SIZES) {
          const data = randomBytes(size);
          const digest = digestOf(fn, data);
          const upload = await store.openUpload(digest);
          for (let offset = 0; offset < size; offset += 65_521) {
            await upload.write(Uint8Array.from(data.subarray(offset, offset + 65_521)));
          }
          expect(upload.writtenBytes).toBe(size);
          expect(await store.has(digest)).toBe(false);
          await upload.finish();
          expect(same(await readAll(await store.openRead(digest)), data)).toBe(true);
        }
      });

      test(`the empty blob is always present, ${functionName(fn)}`, async () => {
        const digest = emptyDigest(fn);
        expect(await store.has(digest)).toBe(true);
        expect(await store.get(digest)).toHaveLength(0);
        expect(await store.findSize(fn, digest.hash)).toBe(0);
        expect(await store.findMissing(DigestBatch.of(fn, [digest]))).toHaveLength(0);
        await store.put(digest, new Uint8Array(0));
        expect(await readAll(await store.openRead(digest))).toHaveLength(0);
        const upload = await store.openUpload(digest);
        await upload.finish();
      });
    }

    // A borrowed buffer is reused by its owner as soon as the promise has settled.
    test("put() keeps its own copy of the bytes, and get() hands out another", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const expected = Uint8Array.from(data);
        const digest = digestOf(DigestFunction.SHA256, data);
        await store.put(digest, data);
        data.fill(0);
        const first = await store.get(digest);
        expect(same(first, expected)).toBe(true);
        first?.fill(0);
        expect(same(await store.get(digest), expected)).toBe(true);
      }
    });

    // A store may always leave it to put(); what it says it has done, it has done.
    test("putTogether() stores all blobs or none, and answers twins and present ones", async () => {
      const present = await putRandom(store, 50);
      const blobs = [1, 300, 300, 5000].map((size) => randomBytes(size));
      const digests = blobs.map((data) => digestOf(DigestFunction.SHA256, data));
      const data = [...blobs, at(blobs, 0), await store.get(present)].map((bytes) => Buffer.from(bytes ?? []));
      const batch = DigestBatch.of(DigestFunction.SHA256, [...digests, at(digests, 0), present]);
      const stored = store.putTogether(batch, data);
      if (stored !== undefined) {
        await stored;
        for (const bytes of data) bytes.fill(0);
        for (const [index, digest] of digests.entries())
          expect(same(await store.get(digest), at(blobs, index))).toBe(true);
        await store.putTogether(batch, [...blobs, at(blobs, 0), (await store.get(present)) ?? new Uint8Array(0)]);
      }
      const right = randomBytes(20);
      const wrong = { ...randomDigest(20) };
      const mixed = DigestBatch.of(DigestFunction.SHA256, [digestOf(DigestFunction.SHA256, right), wrong]);
      expect(store.putTogether(mixed, [right, randomBytes(20)])).toBeUndefined();
      expect(await store.has(digestOf(DigestFunction.SHA256, right))).toBe(false);
      const large = randomBytes(100_000);
      const largeBatch = DigestBatch.of(DigestFunction.SHA256, [digestOf(DigestFunction.SHA256, large)]);
      expect(store.putTogether(largeBatch, [large])).toBeUndefined();
    });

    test("copyAtHand() writes the bytes of a small blob where it was told, and nothing around them", async () => {
      for (const size of [1, 100, 5000, 40_000]) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        await store.put(digest, data);
        const batch = DigestBatch.of(DigestFunction.SHA256, [
          randomDigest(size),
          { ...digest, sizeBytes: size + 1 },
          digest,
        ]);
        const target = Buffer.alloc(size + 20, 0xee);
        expect(store.copyAtHand(batch, 0, target, 0)).toBe(CopyOutcome.ABSENT);
        expect(store.copyAtHand(batch, 1, target, 0)).toBe(CopyOutcome.ABSENT);
        expect(store.copyAtHand(batch, 2, target, 10)).toBe(CopyOutcome.COPIED);
        expect(same(target.subarray(10, 10 + size), data)).toBe(true);
        expect([...target.subarray(0, 10), ...target.subarray(10 + size)]).toEqual(new Array(20).fill(0xee));
      }
    });

    test("findMissing() reports absent digests in input order, each once", async () => {
      const present = await putRandom(store, 500);
      const [a, b] = [randomDigest(77), randomDigest(90_000)];
      const batch = DigestBatch.of(DigestFunction.SHA256, [b, present, a, b, present, a, a]);
      expect([...(await store.findMissing(batch))]).toEqual([0, 2]);
    });

    test("findMissing() is exact: another last digit or another size is missing", async () => {
      for (const size of [500, 200_000]) {
        const present = await putRandom(store, size);
        const lastDigit = present.hash.endsWith("0") ? "1" : "0";
        const close = { ...present, hash: present.hash.slice(0, -1) + lastDigit };
        const larger = { ...present, sizeBytes: size + 1 };
        const batch = DigestBatch.of(present.fn, [present, close, larger]);
        expect([...(await store.findMissing(batch))]).toEqual([1, 2]);
        expect(await store.has(larger)).toBe(false);
        expect(await store.get(larger)).toBeUndefined();
        await expectCode(store.openRead(larger), Code.NOT_FOUND);
      }
    });

    test("the same hash under another digest function is another blob", async () => {
      const present = await putRandom(store, 500);
      expect(await store.has({ ...present, fn: DigestFunction.BLAKE3 })).toBe(false);
      expect(await store.findSize(DigestFunction.BLAKE3, present.hash)).toBeUndefined();
    });

    test("findMissing() of many digests, some present", async () => {
      const present: Digest[] = [];
      for (let i = 0; i < 50; i++) present.push(await putRandom(store, 100 + i));
      const absent = Array.from({ length: 3000 }, (_, i) => randomDigest(i + 1));
      const batch = DigestBatch.of(DigestFunction.SHA256, [...absent, ...present, ...absent]);
      expect(await store.findMissing(batch)).toEqual(Uint32Array.from(absent.keys()));
    });

    test("openRead() honours offset and limit", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        await store.put(digest, data);
        const middle = Math.floor(size / 2);
        const reader = await store.openRead(digest, { offsetBytes: middle, limitBytes: 300 });
        expect(reader.sizeBytes).toBe(size);
        expect(same(await readAll(reader), data.subarray(middle, middle + 300))).toBe(true);
        expect(same(await readAll(await store.openRead(digest, { offsetBytes: middle })), data.subarray(middle))).toBe(
          true,
        );
        expect(await readAll(await store.openRead(digest, { offsetBytes: size }))).toHaveLength(0);
        await expectCode(store.openRead(digest, { offsetBytes: size + 1 }), Code.OUT_OF_RANGE);
      }
    });

    test("openRead() of an absent blob is NOT_FOUND", async () => {
      await expectCode(store.openRead(randomDigest(10)), Code.NOT_FOUND);
    });

    test("put() refuses bytes that are not the digest's, and stores nothing", async () => {
      for (const size of SIZES) {
        const digest = randomDigest(size);
        await expectCode(store.put(digest, randomBytes(size)), Code.INVALID_ARGUMENT);
        expect(await store.has(digest)).toBe(false);
        const data = randomBytes(size);
        const wrongSize = { ...digestOf(DigestFunction.SHA256, data), sizeBytes: size + 1 };
        await expectCode(store.put(wrongSize, data), Code.INVALID_ARGUMENT);
        expect(await store.has(wrongSize)).toBe(false);
      }
    });

    test("an upload of other bytes is refused at its end, and nothing is stored", async () => {
      for (const size of SIZES) {
        const digest = randomDigest(size);
        const upload = await store.openUpload(digest);
        await upload.write(randomBytes(size));
        await expectCode(upload.finish(), Code.INVALID_ARGUMENT);
        await upload.abort();
        expect(await store.has(digest)).toBe(false);
      }
    });

    test("an upload that is too short is refused at its end", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const upload = await store.openUpload({ ...digestOf(DigestFunction.SHA256, data), sizeBytes: size + 1 });
        await upload.write(Uint8Array.from(data));
        await expectCode(upload.finish(), Code.INVALID_ARGUMENT);
      }
    });

    test("an upload refuses the byte that is too many", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        const upload = await store.openUpload(digest);
        await expectCode(upload.write(Uint8Array.from([...data, 0])), Code.INVALID_ARGUMENT);
        await upload.abort();
        expect(await store.has(digest)).toBe(false);
      }
    });

    test("an aborted upload leaves nothing, and another one of the same blob succeeds", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        const abandoned = await store.openUpload(digest);
        await abandoned.write(Uint8Array.from(data.subarray(0, size >> 1)));
        await abandoned.abort();
        await abandoned.abort();
        const upload = await store.openUpload(digest);
        await upload.write(Uint8Array.from(data));
        await upload.finish();
        await upload.abort();
        expect(same(await store.get(digest), data)).toBe(true);
      }
    });

    test("many writers of one blob at once all succeed", async () => {
      for (const size of [900, 700_000]) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        const writers = Array.from({ length: 100 }, async (_, index) => {
          if (index % 2 === 0) return store.put(digest, Uint8Array.from(data));
          const upload = await store.openUpload(digest);
          await upload.write(Uint8Array.from(data));
          return upload.finish();
        });
        await Promise.all(writers);
        expect(same(await store.get(digest), data)).toBe(true);
      }
    });

    test("many blobs at once all arrive", async () => {
      const blobs = Array.from({ length: 300 }, (_, index) => randomBytes(index % 10 === 0 ? 90_000 : 50 + index));
      const digests = blobs.map((data) => digestOf(DigestFunction.BLAKE3, data));
      await Promise.all(blobs.map((data, index) => store.put(at(digests, index), data)));
      expect(await store.findMissing(DigestBatch.of(DigestFunction.BLAKE3, digests))).toHaveLength(0);
      for (const [index, data] of blobs.entries()) expect(same(await store.get(at(digests, index)), data)).toBe(true);
    });

    test("ingestFile() stores a file of our own under its digest", async () => {
      for (const fn of DIGEST_FUNCTIONS) {
        for (const size of [0, ...SIZES]) {
          const data = randomBytes(size);
          const path = join(directory, `output-${fn}-${size}`);
          writeFileSync(path, data);
          const digest = await store.ingestFile(path, fn);
          expect(digest).toEqual(digestOf(fn, data));
          expect(same(await store.get(digest), data)).toBe(true);
        }
      }
    });

    // A build directory may hold the file under another name, open for writing: the stored bytes must not follow it.
    test("ingestFile() of a hard-linked file keeps the bytes when the other name is written to", async () => {
      const data = randomBytes(300_000);
      const path = join(directory, "output");
      const other = join(directory, "other");
      writeFileSync(path, data);
      linkSync(path, other);
      const digest = await store.ingestFile(path, DigestFunction.SHA256);
      writeFileSync(other, randomBytes(300_000));
      expect(same(await store.get(digest), data)).toBe(true);
    });

    test("ingestFile() of an absent file is NOT_FOUND", async () => {
      await expectCode(store.ingestFile(join(directory, "nothing"), DigestFunction.SHA256), Code.NOT_FOUND);
    });

    test("filePath() is undefined or names an immutable file with the bytes", async () => {
      for (const size of SIZES) {
        const data = randomBytes(size);
        const digest = digestOf(DigestFunction.SHA256, data);
        expect(store.filePath(digest)).toBeUndefined();
        await store.put(digest, data);
        const path = store.filePath(digest);
        if (path === undefined) continue;
        expect(same(readFileSync(path), data)).toBe(true);
        expect(statSync(path).mode & 0o7777).toBe(0o444);
      }
    });

    test("pin() can be released twice", async () => {
      const digest = await putRandom(store, 100);
      const pin = store.pin([digest, digest, randomDigest(5)]);
      pin.release();
      pin.release();
      expect(await store.has(digest)).toBe(true);
    });

    test("a reader ends with an aborted signal, and closing twice is fine", async () => {
      const digest = await putRandom(store, 2_500_000);
      const controller = new AbortController();
      const reader = await store.openRead(digest, { signal: controller.signal });
      expect((await reader.next())?.length).toBeGreaterThan(0);
      controller.abort();
      await expect(reader.next()).rejects.toThrow();
      await reader.close();
      await reader.close();
    });
  });
}

export function randomDigest(sizeBytes: number, fn: DigestFunction = DigestFunction.SHA256): Digest {
  return { fn, hash: randomBytes(32).toString("hex"), sizeBytes };
}

export async function putRandom(store: BlobStore, sizeBytes: number): Promise<Digest> {
  const data = randomBytes(sizeBytes);
  const digest = digestOf(DigestFunction.SHA256, data);
  await store.put(digest, data);
  return digest;
}

export async function readAll(reader: BlobReader): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  try {
    for (;;) {
      const chunk = await reader.next();
      if (chunk === undefined) return Buffer.concat(chunks);
      chunks.push(chunk);
    }
  } finally {
    await reader.close();
  }
}

/** Compares whole buffers; a failing toEqual over megabytes would print them. */
export function same(actual: Uint8Array | undefined, expected: Uint8Array): boolean {
  return actual !== undefined && Buffer.compare(actual, expected) === 0;
}

export async function expectCode(promise: Promise<unknown>, code: Code): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StatusError);
  expect((error as StatusError).code).toBe(code);
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
