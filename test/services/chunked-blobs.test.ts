// SplitBlob and SpliceBlob through the service, on a local store.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { CHUNKING_PARAMS } from "../../src/cas/chunking.ts";
import { openStorage, type Storage } from "../../src/cas/storage.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { ChunkingFunction_Value, ContentAddressableStorage } from "../../src/proto/remote_execution.ts";
import { createContentAddressableStorageService } from "../../src/services/content-addressable-storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { FakeClient, statusOf } from "./fake-call.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { SplitBlob, SpliceBlob } = ContentAddressableStorage.methods;
const MIB = 1024 * 1024;

const zstd = new ZstdPool({ threads: 1 });
afterAll(() => zstd.close());

let directory: string;
let storage: Storage;
let client: FakeClient;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "ledge-chunks-"));
  storage = await openStorage({
    dataDir: directory,
    maxSizeBytes: 512 * MIB,
    clock: systemClock,
    logger: silentLogger,
    metrics: new MetricsRegistry(),
  });
  const { blobs, chunking } = storage;
  client = new FakeClient(
    createContentAddressableStorageService({ blobs, zstd, chunking, maxBlobSizeBytes: 100 * MIB }),
  );
});

afterAll(async () => {
  await storage.close();
  rmSync(directory, { recursive: true });
});

describe("splitBlob()", () => {
  test("gives chunks within the announced bounds whose concatenation is the blob", async () => {
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3]) {
      const { data, digest } = sample(noise(8 * MIB, fn), fn);
      await storage.blobs.put(digest, data);
      const answer = await client.unary(SplitBlob, { blobDigest: digest, digestFunction: fn });
      expect(answer.chunkingFunction).toBe(ChunkingFunction_Value.FAST_CDC_2020);
      const chunks = await Promise.all(answer.chunkDigests.map(async (chunk) => storage.blobs.get({ fn, ...chunk })));
      expect(Buffer.concat(chunks.map((chunk) => chunk!)).equals(data)).toBe(true);
      const sizes = answer.chunkDigests.slice(0, -1).map(({ sizeBytes }) => sizeBytes);
      expect(Math.min(...sizes)).toBeGreaterThanOrEqual(CHUNKING_PARAMS.averageBytes / 4);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(CHUNKING_PARAMS.averageBytes * 4);
    }
  });

  test("says NOT_FOUND for an absent blob", async () => {
    const failure = await statusOf(client.unary(SplitBlob, { blobDigest: sample("absent").digest }));
    expect(failure.code).toBe(Code.NOT_FOUND);
    expect((await statusOf(client.unary(SplitBlob, {}))).message).toMatch(/blob_digest is missing/);
  });
});

describe("spliceBlob()", () => {
  test("stores the concatenation, which split() gives back", async () => {
    const parts = [noise(2 * MIB, 5), noise(MIB, 6), noise(5, 7)];
    const chunkDigests = await Promise.all(parts.map((part) => store(storage.blobs, part)));
    const whole = sample(Buffer.concat(parts));
    const request = { blobDigest: whole.digest, chunkDigests, chunkingFunction: ChunkingFunction_Value.FAST_CDC_2020 };
    const { blobDigest } = await client.unary(SpliceBlob, request);
    expect(blobDigest?.hash).toBe(whole.digest.hash);
    expect(Buffer.from((await storage.blobs.get(whole.digest))!).equals(whole.data)).toBe(true);
    await client.unary(SpliceBlob, request); // present already
    const split = await client.unary(SplitBlob, { blobDigest: whole.digest });
    expect(split.chunkDigests.map(({ hash }) => hash)).toEqual(chunkDigests.map(({ hash }) => hash));
  });

  test("refuses what is missing, wrong or too large", async () => {
    const chunk = await store(storage.blobs, "chunk");
    const absent = sample("absent chunk").digest;
    const splice = async (blobDigest: { hash: string; sizeBytes: number } | undefined, chunkDigests: object[]) =>
      statusOf(client.unary(SpliceBlob, { blobDigest, chunkDigests: chunkDigests as never[] }));
    expect((await splice(undefined, [chunk])).message).toMatch(/blob_digest is missing/);
    expect((await splice(sample("chunkabsent chunk").digest, [chunk, absent])).code).toBe(Code.NOT_FOUND);
    expect((await splice(sample("chunk+").digest, [chunk])).code).toBe(Code.INVALID_ARGUMENT);
    expect((await splice(sample("CHUNK").digest, [chunk])).code).toBe(Code.INVALID_ARGUMENT);
    expect((await splice(chunk, [{ hash: "x", sizeBytes: 1 }])).message).toMatch(/chunk_digests\[0\]/);
    expect((await splice({ hash: chunk.hash, sizeBytes: 101 * MIB }, [chunk])).message).toMatch(/max_cas_blob_size/);
    expect(await storage.blobs.has(sample("CHUNK").digest)).toBe(false);
  });
});
