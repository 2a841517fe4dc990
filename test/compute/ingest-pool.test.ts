// The worker threads that hash and write uploads: results, order, bounds and failures.

import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Code, StatusError } from "../../src/base/status.ts";
import { IngestPool } from "../../src/compute/ingest-pool.ts";
import { hashHex } from "../../src/compute/hash.ts";
import { MAX_HELD_SLABS } from "../../src/compute/slab-pool.ts";
import { DigestFunction } from "../../src/digest/digest.ts";

describe("IngestPool", () => {
  let pool: IngestPool;
  let directory: string;
  beforeAll(() => {
    pool = new IngestPool({ threads: 2 });
    directory = mkdtempSync(join(tmpdir(), "ledge-ingest-"));
  });
  afterAll(async () => {
    await pool.close();
    rmSync(directory, { recursive: true });
  });

  test("a stream of any chunks is hashed, checksummed and written whole", async () => {
    for (const [size, step] of [
      [0, 1],
      [1, 1],
      [3_000_001, 999],
      [5 * 1024 * 1024, 700_000],
      [4_000_000, 4_000_000],
    ] as const) {
      const data = randomBytes(size);
      const path = join(directory, `stream-${size}`);
      const stream = pool.openStream(DigestFunction.SHA256, path);
      for (let offset = 0; offset < size; offset += step) {
        await stream.write(new Uint8Array(data.subarray(offset, offset + step)));
      }
      const result = await stream.finish();
      expect(result.hash).toBe(createHash("sha256").update(data).digest("hex"));
      expect(result.sizeBytes).toBe(size);
      const pieces = Math.ceil(size / 2 ** 20);
      const expected = Array.from({ length: pieces }, (_, piece) =>
        crc32(data.subarray(piece * 2 ** 20, (piece + 1) * 2 ** 20)),
      );
      expect([...result.checksums]).toEqual(expected);
      if (size > 0) expect(Buffer.compare(readFileSync(path), data)).toBe(0);
    }
  });

  test("streams on one thread do not mix", async () => {
    const datas = Array.from({ length: 12 }, () => randomBytes(1_300_000));
    const results = await Promise.all(
      datas.map(async (data, index) => {
        const stream = pool.openStream(DigestFunction.BLAKE3, join(directory, `mixed-${index}`));
        for (let offset = 0; offset < data.length; offset += 90_000) {
          await stream.write(new Uint8Array(data.subarray(offset, offset + 90_000)));
        }
        return stream.finish();
      }),
    );
    expect(results.map((result) => result.hash)).toEqual(datas.map((data) => hashHex(DigestFunction.BLAKE3, data)));
  });

  test("many half-filled streams hold a bounded number of slabs", async () => {
    const data = randomBytes(60_000);
    const streams = Array.from({ length: 300 }, (_, index) =>
      pool.openStream(DigestFunction.SHA256, join(directory, `half-${index}`)),
    );
    for (let round = 0; round < 3; round++) for (const stream of streams) await stream.write(new Uint8Array(data));
    expect(pool.heldSlabs).toBeLessThanOrEqual(MAX_HELD_SLABS);
    const expected = createHash("sha256").update(data).update(data).update(data).digest("hex");
    for (const stream of streams) expect((await stream.finish()).hash).toBe(expected);
    expect(pool.heldSlabs).toBe(0);
  });

  test("a failed write ends the stream with its reason", async () => {
    const stream = pool.openStream(DigestFunction.SHA256, join(directory, "no", "such", "folder"));
    const send = async () => {
      for (let i = 0; i < 10; i++) await stream.write(new Uint8Array(1_000_000));
      await stream.finish();
    };
    await expect(send()).rejects.toThrow(/ENOENT/);
    await stream.abort();
  });

  test("hash() leaves the bytes to their owner, small or large", async () => {
    for (const size of [10, 100_000, 2_000_000]) {
      const data = randomBytes(size);
      expect(await pool.hash(DigestFunction.SHA256, data)).toBe(createHash("sha256").update(data).digest("hex"));
      expect(data.length).toBe(size);
    }
  });

  test("hashFile() hashes, and copies on the way when asked to", async () => {
    const data = randomBytes(2_500_000);
    const [path, copy] = [join(directory, "file"), join(directory, "copy")];
    writeFileSync(path, data);
    const result = await pool.hashFile(DigestFunction.BLAKE3, path, copy);
    expect(result).toMatchObject({ hash: hashHex(DigestFunction.BLAKE3, data), sizeBytes: data.length });
    expect(Buffer.compare(readFileSync(copy), data)).toBe(0);
    const absent = await pool
      .hashFile(DigestFunction.BLAKE3, join(directory, "absent"))
      .catch((error: unknown) => error);
    expect(absent).toBeInstanceOf(StatusError);
    expect((absent as StatusError).code).toBe(Code.NOT_FOUND);
  });
});
