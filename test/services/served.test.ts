// The services over the product's transport, with @grpc/grpc-js as the client: what only a real connection shows.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { ContentAddressableStorage, Directory } from "../../src/proto/remote_execution.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../src/proto/health.ts";
import { noise, sample, store } from "./sample-blobs.ts";
import { Served } from "./served.ts";

const { Read, Write } = ByteStream.methods;
const { FindMissingBlobs, GetTree } = ContentAddressableStorage.methods;
const MIB = 1024 * 1024;

let blobs: MemoryBlobStore;
let served: Served;

beforeAll(async () => {
  blobs = new MemoryBlobStore();
  served = await Served.start(blobs);
});

afterAll(() => served.close());

function pieces(resourceName: string, data: Uint8Array): object[] {
  const messages: object[] = [];
  for (let at = 0; at < data.length; at += MIB) {
    const end = Math.min(data.length, at + MIB);
    messages.push({ resourceName, writeOffset: at, data: data.subarray(at, end), finishWrite: end === data.length });
  }
  return messages;
}

test.each(["blobs", "compressed-blobs/zstd"])("a blob of 32 MiB goes in and out as %s", async (kind) => {
  const data = noise(32 * MIB, kind.length);
  data.fill(7, 0, 10 * MIB);
  const { digest } = sample(data);
  const name = `${kind}/${digest.hash}/${digest.sizeBytes}`;
  const sent = kind === "blobs" ? data : zstdCompressSync(data);
  const [answer] = await served.stream(Write, pieces(`uploads/u/${name}`, sent));
  expect(answer?.committedSize).toBe(sent.length);
  const received = Buffer.concat((await served.stream(Read, [{ resourceName: name }])).map((message) => message.data));
  expect((kind === "blobs" ? received : zstdDecompressSync(received)).equals(data)).toBe(true);
});

// The client has 40 MiB on its way and no half-close in sight: the answer must come all the same.
test("a duplicate is answered while the client is still sending", async () => {
  const data = noise(40 * MIB);
  const digest = await store(blobs, data);
  const resourceName = `uploads/u/blobs/${digest.hash}/${digest.sizeBytes}`;
  const [answer] = await served.stream(Write, pieces(resourceName, data), { halfClose: false });
  expect(answer?.committedSize).toBe(data.length);
});

test("a blob that another writer completes ends the upload under way", async () => {
  const { data, digest } = sample(noise(3 * MIB, 77));
  const resourceName = (uuid: string) => `uploads/${uuid}/blobs/${digest.hash}/${digest.sizeBytes}`;
  const slow = served.stream(Write, pieces(resourceName("slow"), data).slice(0, 1), { halfClose: false });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await served.stream(Write, pieces(resourceName("fast"), data));
  expect((await slow)[0]?.committedSize).toBe(data.length);
});

test("100,000 digests are asked for in one call; an answer that no client takes is refused", async () => {
  const present = await store(blobs, "present");
  const absent = Array.from({ length: 50_000 }, (_, i) => ({
    hash: i.toString(16).padStart(64, "0"),
    sizeBytes: i + 1,
  }));
  const blobDigests = [...absent, ...absent, present];
  const { missingBlobDigests } = await served.unary(FindMissingBlobs, { blobDigests });
  expect(missingBlobDigests).toHaveLength(50_000);
  const tooMany = absent.flatMap(({ hash, sizeBytes }) => [
    { hash, sizeBytes },
    { hash, sizeBytes: sizeBytes + 99_999 },
  ]);
  await expect(served.unary(FindMissingBlobs, { blobDigests: tooMany })).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    details: expect.stringMatching(/100000 of 100000 blobs are missing.*ask in several calls/),
  });
});

test("a tree of 20,000 directories arrives whole", async () => {
  const directories = await Promise.all(
    Array.from({ length: 20_000 }, async (_, i) => {
      const name = String(i).padStart(5, "0");
      return { name, digest: await store(blobs, Directory.encode({ symlinks: [{ name, target: "t" }] })) };
    }),
  );
  const rootDigest = await store(blobs, Directory.encode({ directories }));
  const pages = await served.stream(GetTree, [{ rootDigest }]);
  expect(pages.reduce((sum, page) => sum + page.directories.length, 0)).toBe(20_001);
  expect(pages.length).toBeGreaterThan(1);
});

test("health is served", async () => {
  const { status } = await served.unary(Health.methods.Check, {});
  expect(status).toBe(HealthCheckResponse_ServingStatus.SERVING);
});
