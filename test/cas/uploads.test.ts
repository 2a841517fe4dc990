// Streamed uploads: verification, resuming, many at once, and what silent clients hold.

import { randomBytes } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { expectCode, readAll, same } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const OPEN_UPLOADS = Number(process.env["LEDGE_OPEN_UPLOADS"] ?? "4000");

describe("uploads to the local store", () => {
  // A thread or a descriptor per silent client would end the 201st upload, or the first hundred of them.
  test("200 uploads stalled halfway hold no thread and no descriptor, and the 201st completes", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const size = 1_400_000;
    const datas = Array.from({ length: 201 }, (_, index) => Buffer.alloc(size, index));
    const uploads = await Promise.all(datas.map((data) => blobs.openUpload(digestOf(DigestFunction.SHA256, data))));
    for (const [index, upload] of uploads.slice(0, 200).entries()) {
      await upload.write(new Uint8Array((datas[index] as Buffer).subarray(0, size / 2)));
    }
    const openFiles = () => readdirSync("/proc/self/fd").length;
    const during = openFiles();
    const last = uploads[200];
    const data = datas[200] as Buffer;
    for (let offset = 0; offset < size; offset += 100_000) {
      await last?.write(new Uint8Array(data.subarray(offset, offset + 100_000)));
    }
    await last?.finish();
    expect(same(await blobs.get(digestOf(DigestFunction.SHA256, data)), data)).toBe(true);
    expect(during).toBeLessThan(150);
    const survivor = uploads[7];
    await survivor?.write(new Uint8Array((datas[7] as Buffer).subarray(size / 2)));
    await survivor?.finish();
    const expected = datas[7] as Buffer;
    expect(same(await readAll(await blobs.openRead(digestOf(1, expected))), expected)).toBe(true);
  });

  // LEDGE_OPEN_UPLOADS=100000 is the soak: as many as there may be at once.
  test(`${OPEN_UPLOADS} uploads open at once take little memory, finish when they go on, and leave nothing when they do not`, async () => {
    await using fixture = await StorageFixture.open();
    const { storage } = fixture;
    const data = (index: number) => Buffer.alloc(20_000, `upload ${index} `);
    const digests = Array.from({ length: OPEN_UPLOADS }, (_, index) => digestOf(DigestFunction.SHA256, data(index)));
    const before = process.memoryUsage();
    const uploads = await Promise.all(digests.map((digest) => storage.blobs.openUpload(digest)));
    for (const [index, upload] of uploads.entries()) {
      await upload.write(new Uint8Array(Buffer.from(`upload ${index} upload`.slice(0, 10))));
    }
    expect(storage.stats().openUploads).toBe(OPEN_UPLOADS);
    const during = process.memoryUsage();
    const takenBytes = during.heapUsed + during.external - before.heapUsed - before.external;
    console.log(`${Math.round(takenBytes / OPEN_UPLOADS)} bytes an upload`);
    // 64 MiB of first bytes in memory, 64 MiB of slabs, some KiB each, and as much again that is not collected yet.
    expect(takenBytes).toBeLessThan(300 * 2 ** 20 + OPEN_UPLOADS * 8000);
    const goingOn = Array.from({ length: 50 }, (_, index) => Math.floor((index * OPEN_UPLOADS) / 50));
    for (const index of goingOn) {
      await uploads[index]?.write(new Uint8Array(data(index).subarray(10)));
      await uploads[index]?.finish();
    }
    for (const upload of uploads) await upload.abort();
    expect(storage.stats()).toMatchObject({ openUploads: 0, entryCount: 50 });
    for (const index of goingOn) {
      expect(same(await storage.blobs.get(digests[index] as Digest), data(index))).toBe(true);
    }
    expect(readdirSync(join(fixture.dataDir, "tmp"))).toEqual([]);
  }, 600_000);

  // A hundred thousand silent clients with 30 KB each would be 3 GB.
  test("small uploads beyond the memory for them go through files and are stored like others", async () => {
    await using fixture = await StorageFixture.open({ intakeMemoryBytes: 100_000 });
    const { blobs } = fixture.storage;
    const datas = Array.from({ length: 30 }, (_, index) => randomBytes(20_000 + index));
    const uploads = await Promise.all(datas.map((data) => blobs.openUpload(digestOf(DigestFunction.SHA256, data))));
    for (const [index, upload] of uploads.entries())
      await upload.write(new Uint8Array((datas[index] as Buffer).subarray(0, 9000)));
    for (const [index, upload] of uploads.entries()) {
      await upload.write(new Uint8Array((datas[index] as Buffer).subarray(9000)));
      await upload.finish();
    }
    for (const data of datas) {
      const digest = digestOf(DigestFunction.SHA256, data);
      expect(same(await blobs.get(digest), data)).toBe(true);
      expect(blobs.filePath(digest)).toBeUndefined();
    }
    expect(readdirSync(join(fixture.dataDir, "tmp"))).toEqual([]);
  });

  test("an upload that nobody goes on with ends after a while, and its file with it", async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    await using fixture = await StorageFixture.open({ clock });
    const data = randomBytes(2_000_000);
    const upload = await fixture.storage.blobs.openUpload(digestOf(DigestFunction.SHA256, data));
    await upload.write(new Uint8Array(data.subarray(0, 1_500_000)));
    clock.advance(10 * 60_000);
    expect(fixture.storage.stats().openUploads).toBe(1);
    clock.advance(10 * 60_000);
    expect(fixture.storage.stats().openUploads).toBe(0);
    await expectCode(upload.write(new Uint8Array(1)), Code.ABORTED);
    await expect.poll(() => readdirSync(join(fixture.dataDir, "tmp")), { timeout: 20_000 }).toEqual([]);
  });

  // Half a megabyte of memory each, for as long as a client is silent.
  test("a silent upload's half-filled slab goes to its file, and the upload goes on", async () => {
    const clock = new ManualClock();
    await using fixture = await StorageFixture.open({ clock });
    const { blobs } = fixture.storage;
    const data = randomBytes(2_000_000);
    const upload = await blobs.openUpload(digestOf(DigestFunction.SHA256, data));
    await upload.write(new Uint8Array(data.subarray(0, 1000)));
    const sizes = () =>
      readdirSync(join(fixture.dataDir, "tmp")).map((name) => statSync(join(fixture.dataDir, "tmp", name)).size);
    expect(sizes()).toEqual([]);
    clock.advance(5000);
    await expect.poll(sizes, { timeout: 20_000 }).toEqual([1000]);
    await upload.write(new Uint8Array(data.subarray(1000)));
    await upload.finish();
    expect(same(await readAll(await blobs.openRead(digestOf(1, data))), data)).toBe(true);
  });

  test("refused and aborted uploads leave no file and take no room", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const used = fixture.storage.stats().usedBytes;
    const wrong = await blobs.openUpload({ fn: 1, hash: "cd".repeat(32), sizeBytes: 200_000 });
    await wrong.write(new Uint8Array(200_000));
    await expectCode(wrong.finish(), Code.INVALID_ARGUMENT);
    const aborted = await blobs.openUpload({ fn: 1, hash: "ef".repeat(32), sizeBytes: 2_000_000 });
    await aborted.write(new Uint8Array(1_000_000));
    await aborted.abort();
    expect(readdirSync(join(fixture.dataDir, "tmp"))).toEqual([]);
    expect(fixture.storage.stats().usedBytes).toBe(used);
  });
});
