// The in-memory blob store: the contract of all stores, and its limit.

import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { takeLargeBuffer } from "../../src/base/large-buffers.ts";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { describeBlobStoreContract, expectCode, putRandom } from "./blob-store-contract.ts";

describeBlobStoreContract("MemoryBlobStore", async () => ({
  store: new MemoryBlobStore(),
  close: async () => undefined,
}));

describe("MemoryBlobStore eviction", () => {
  test("put() evicts what nobody asked for", async () => {
    const store = new MemoryBlobStore({ maxBytes: 3000 });
    const [old, asked] = [await putRandom(store, 1000), await putRandom(store, 1000)];
    await putRandom(store, 1000);
    store.has(asked);
    store.has(old);
    await putRandom(store, 1000);
    await putRandom(store, 1000);
    expect([store.has(old), store.has(asked), store.bytes]).toEqual([true, false, 3000]);
  });

  test("put() never evicts a pinned blob and says RESOURCE_EXHAUSTED instead", async () => {
    const store = new MemoryBlobStore({ maxBytes: 1500 });
    const pinned = await putRandom(store, 1000);
    const pin = store.pin([pinned]);
    await expectCode(putRandom(store, 1000), Code.RESOURCE_EXHAUSTED);
    pin.release();
    await putRandom(store, 1000);
    expect(store.has(pinned)).toBe(false);
  });
});

describe("MemoryBlobStore buffers", () => {
  // The buffers of an evicted blob go to the next upload, unless a reader may still send from them.
  test("a blob that was read keeps its bytes for that reader, whatever is uploaded after its eviction", async () => {
    const store = new MemoryBlobStore({ maxBytes: 3_000_000 });
    const upload = async (data: Buffer): Promise<Digest> => {
      const digest = digestOf(DigestFunction.SHA256, data);
      const open = await store.openUpload(digest);
      for (let at = 0; at < data.length; at += 500_000) {
        const buffer = takeLargeBuffer(500_000);
        const chunk = new Uint8Array(buffer, 0, Math.min(500_000, data.length - at));
        chunk.set(data.subarray(at, at + 500_000));
        await open.write(chunk);
      }
      await open.finish();
      return digest;
    };
    const data = randomBytes(1_000_000);
    const digest = await upload(data);
    const reader = await store.openRead(digest);
    const lent = [reader.lend?.() ?? new Uint8Array(0)];
    for (let round = 0; round < 8; round++) await upload(randomBytes(1_000_000));
    expect(store.has(digest)).toBe(false);
    for (let chunk = reader.lend?.(); chunk !== undefined; chunk = reader.lend?.()) lent.push(chunk);
    expect(Buffer.concat(lent).equals(data)).toBe(true);
  });
});

describe("MemoryBlobStore readers", () => {
  // ByteStream.Read sends lent bytes on without a copy; they must be the blob's, across the parts it was uploaded in.
  test("lend() gives what next() gives, from any offset", async () => {
    const store = new MemoryBlobStore();
    const data = randomBytes(700_000);
    const digest = digestOf(DigestFunction.SHA256, data);
    const upload = await store.openUpload(digest);
    for (const [start, end] of [
      [0, 1],
      [1, 300_000],
      [300_000, 700_000],
    ]) {
      await upload.write(Uint8Array.from(data.subarray(start, end)));
    }
    await upload.finish();
    for (const offsetBytes of [0, 1, 2, 299_999, 300_000, 600_000, 700_000]) {
      const options = { offsetBytes, limitBytes: 350_000 };
      const [lender, copier] = [await store.openRead(digest, options), await store.openRead(digest, options)];
      const lent: Uint8Array[] = [];
      for (let chunk = lender.lend?.(); chunk !== undefined; chunk = lender.lend?.()) lent.push(chunk);
      const copied: Uint8Array[] = [];
      for (let chunk = await copier.next(); chunk !== undefined; chunk = await copier.next()) copied.push(chunk);
      expect(Buffer.concat(lent).equals(data.subarray(offsetBytes, offsetBytes + 350_000))).toBe(true);
      expect(Buffer.concat(copied).equals(Buffer.concat(lent))).toBe(true);
    }
  });
});
