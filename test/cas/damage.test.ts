// Damaged bytes on disk: never served, reported once, absent from then on.

import { randomBytes } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import type { BlobStore } from "../../src/cas/blob-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { expectCode, putRandom, readAll, same } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const MIB = 1024 * 1024;

function pathOf(fixture: StorageFixture, digest: Digest): string {
  const path = fixture.storage.blobs.filePath(digest);
  if (path === undefined) throw new Error("not a file");
  return path;
}

function flipBit(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ 0x10;
  chmodSync(path, 0o644);
  writeFileSync(path, bytes);
}

async function isAbsent(blobs: BlobStore, digest: Digest): Promise<boolean> {
  return !(await blobs.has(digest));
}

describe("damage to the local store", () => {
  test("a flipped bit ends the read with DATA_LOSS before its MiB is sent, also for an offset read", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const data = randomBytes(4 * MIB);
    const digest = digestOf(DigestFunction.SHA256, data);
    await blobs.put(digest, data);
    flipBit(pathOf(fixture, digest), 2 * MIB + 77);
    const reader = await blobs.openRead(digest, { offsetBytes: 100 });
    const first = [await reader.next(), await reader.next()];
    expect(same(Buffer.concat(first as Uint8Array[]), data.subarray(100, 2 * MIB))).toBe(true);
    await expectCode(reader.next(), Code.DATA_LOSS);
    await reader.close();
    await expect.poll(() => isAbsent(blobs, digest), { timeout: 20_000 }).toBe(true);
    await expectCode(blobs.openRead(digest, { offsetBytes: 3 * MIB }), Code.NOT_FOUND);
    // Sent again it is stored again.
    await blobs.put(digest, data);
    expect(same(await readAll(await blobs.openRead(digest)), data)).toBe(true);
  });

  test("an offset read checks the whole MiB it lies in", async () => {
    await using fixture = await StorageFixture.open();
    const digest = await putRandom(fixture.storage.blobs, 2 * MIB);
    flipBit(pathOf(fixture, digest), MIB + 5);
    const reader = await fixture.storage.blobs.openRead(digest, { offsetBytes: MIB + 1000, limitBytes: 10 });
    await expectCode(reader.next(), Code.DATA_LOSS);
    await reader.close();
  });

  test("a shortened, lengthened or deleted file is not served", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const shortened = await putRandom(blobs, 300_000);
    const path = pathOf(fixture, shortened);
    chmodSync(path, 0o644);
    truncateSync(path, 200_000);
    await expectCode(openAndRead(blobs, shortened), Code.DATA_LOSS);
    const deleted = await putRandom(blobs, 300_000);
    rmSync(pathOf(fixture, deleted));
    await expectCode(openAndRead(blobs, deleted), Code.NOT_FOUND);
    await expect.poll(() => isAbsent(blobs, shortened), { timeout: 20_000 }).toBe(true);
    await expect.poll(() => isAbsent(blobs, deleted), { timeout: 20_000 }).toBe(true);
  });

  test("get() of a damaged file says DATA_LOSS once and is absent then", async () => {
    await using fixture = await StorageFixture.open();
    const { blobs } = fixture.storage;
    const digest = await putRandom(blobs, 100_000);
    flipBit(pathOf(fixture, digest), 99_999);
    await expectCode(Promise.resolve(blobs.get(digest)), Code.DATA_LOSS);
    await expect.poll(() => isAbsent(blobs, digest), { timeout: 20_000 }).toBe(true);
    const path = join(fixture.dataDir, "files", "sha256", digest.hash.slice(0, 2), digest.hash);
    await expect.poll(() => existsSync(path), { timeout: 20_000 }).toBe(false);
    expect(existsSync(join(fixture.dataDir, "quarantine", `sha256-${digest.hash}`))).toBe(true);
  });

  // Values carry a checksum of their own, so a flip in LMDB's pages is found where it hit bytes.
  // What a start leaves that is killed while it copies the records of a damaged index.
  for (const [moment, leave] of [
    ["the damaged file was moved away", () => undefined],
    ["a part was copied", (path: string) => writeFileSync(`${path}.rebuilt`, "the beginning of a copy")],
    ["all was copied", (path: string, quarantined: string) => copyFileSync(quarantined, path)],
  ] as const) {
    test(`a kill while the index is made anew loses no file and no readable record: ${moment}`, async () => {
      await using fixture = await StorageFixture.open();
      const stored = [await putRandom(fixture.storage.blobs, 200), await putRandom(fixture.storage.blobs, 300_000)];
      const index = join(fixture.dataDir, "index.mdb");
      const quarantined = join(fixture.dataDir, "quarantine", "index.mdb");
      await fixture.restart({}, () => {
        mkdirSync(join(fixture.dataDir, "quarantine"), { recursive: true });
        writeFileSync(join(fixture.dataDir, "REBUILDING"), "");
        renameSync(index, quarantined);
        leave(index, quarantined);
      });
      for (const digest of stored) expect(await fixture.storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
      expect(readdirSync(fixture.dataDir).filter((name) => /REBUILDING|rebuilt/.test(name))).toEqual([]);
      await fixture.restart();
      for (const digest of stored) expect(await fixture.storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
    });
  }

  test("flipped bits inside small blobs are never served", async () => {
    await using fixture = await StorageFixture.open();
    const blobs = Array.from({ length: 50 }, (_, index) => randomBytes(3000 + index));
    const digests = blobs.map((data) => digestOf(DigestFunction.SHA256, data));
    await Promise.all(blobs.map((data, index) => fixture.storage.blobs.put(digests[index] as Digest, data)));
    await fixture.storage.close();
    const path = join(fixture.dataDir, "index.mdb");
    const file = readFileSync(path);
    for (const data of blobs.slice(0, 20)) {
      const at = file.indexOf(data.subarray(100, 200));
      expect(at).toBeGreaterThan(0);
      file[at + 50] = (file[at + 50] ?? 0) ^ 1;
    }
    writeFileSync(path, file);
    await fixture.restart();
    for (const [index, digest] of digests.entries()) {
      const read = await fixture.storage.blobs.get(digest);
      if (index < 20) expect(read).toBeUndefined();
      else expect(same(read, blobs[index] as Buffer)).toBe(true);
    }
  });
});

async function openAndRead(blobs: BlobStore, digest: Digest): Promise<Uint8Array> {
  return readAll(await blobs.openRead(digest));
}
