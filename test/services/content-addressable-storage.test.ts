// The CAS service through its handlers, on the in-memory store.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { ContentAddressableStorage, Directory, type DirectoryInit } from "../../src/proto/remote_execution.ts";
import { createContentAddressableStorageService } from "../../src/services/content-addressable-storage.ts";
import { FakeClient, statusOf } from "./fake-call.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { FindMissingBlobs, BatchUpdateBlobs, BatchReadBlobs, GetTree, SplitBlob } = ContentAddressableStorage.methods;

const zstd = new ZstdPool({ threads: 1 });
afterAll(() => zstd.close());

let blobs: MemoryBlobStore;
let client: FakeClient;

beforeEach(() => {
  blobs = new MemoryBlobStore();
  client = new FakeClient(createContentAddressableStorageService({ blobs, zstd }));
});

describe("findMissingBlobs()", () => {
  test("reports what is absent and echoes its digests", async () => {
    const present = await store(blobs, "present");
    const absent = sample("absent").digest;
    const { missingBlobDigests } = await client.unary(FindMissingBlobs, { blobDigests: [present, absent] });
    expect(missingBlobDigests).toEqual([{ hash: absent.hash, sizeBytes: absent.sizeBytes }]);
  });

  test("reports a digest once when it was asked twice", async () => {
    const absent = sample("absent").digest;
    const { missingBlobDigests } = await client.unary(FindMissingBlobs, { blobDigests: [absent, absent, absent] });
    expect(missingBlobDigests).toHaveLength(1);
  });

  test("never reports the empty blob, of either function", async () => {
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3]) {
      const request = { blobDigests: [sample("", fn).digest], digestFunction: fn };
      expect((await client.unary(FindMissingBlobs, request)).missingBlobDigests).toEqual([]);
    }
  });

  test("answers an empty request with an empty reply", async () => {
    expect((await client.unary(FindMissingBlobs, {})).missingBlobDigests).toEqual([]);
  });

  test("tells functions apart", async () => {
    const { digest } = sample("x");
    await store(blobs, "x");
    const request = { blobDigests: [digest], digestFunction: DigestFunction.BLAKE3 };
    expect((await client.unary(FindMissingBlobs, request)).missingBlobDigests).toHaveLength(1);
  });
});

describe("batchUpdateBlobs()", () => {
  test("stores each blob and answers for each", async () => {
    const [a, b] = [sample("a"), sample("b")];
    const { responses } = await client.unary(BatchUpdateBlobs, { requests: [a, b] });
    expect(responses.map(({ status }) => status?.code ?? 0)).toEqual([0, 0]);
    expect(blobs.has(a.digest) && blobs.has(b.digest)).toBe(true);
  });

  test("stores the others when one does not match its digest", async () => {
    const [a, b] = [sample("a"), sample("b")];
    const requests = [{ digest: a.digest, data: Buffer.from("x") }, b];
    const { responses } = await client.unary(BatchUpdateBlobs, { requests });
    expect(responses[0]?.status?.code).toBe(Code.INVALID_ARGUMENT);
    expect(responses[1]?.status?.code ?? 0).toBe(Code.OK);
    expect(blobs.has(a.digest)).toBe(false);
    expect(blobs.has(b.digest)).toBe(true);
  });

  // Small plain blobs take a path of their own; one that is wrong sends all to the other.
  test("answers a plain batch as one in which a blob is wrong", async () => {
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3]) {
      const texts = ["a", "x".repeat(127), "y".repeat(128), "z".repeat(20_000), "a"];
      const samples = texts.map((text) => sample(text, fn));
      const wrong = { digest: sample("right", fn).digest, data: Buffer.from("wrong") };
      for (const instanceName of ["", "main"]) {
        const request = { requests: samples, digestFunction: fn, instanceName };
        const plain = await client.unary(BatchUpdateBlobs, request);
        const mixed = await client.unary(BatchUpdateBlobs, { ...request, requests: [...samples, wrong] });
        expect(mixed.responses.slice(0, -1)).toEqual(plain.responses);
        expect(mixed.responses.at(-1)?.status?.code).toBe(Code.INVALID_ARGUMENT);
        for (const { digest, data } of samples) expect(Buffer.from(blobs.get(digest)!).equals(data)).toBe(true);
      }
    }
  });

  test("takes zstd", async () => {
    const { data, digest } = sample("compressible ".repeat(1000));
    const requests = [{ digest, data: zstdCompressSync(data), compressor: 1 }];
    const { responses } = await client.unary(BatchUpdateBlobs, { requests });
    expect(responses[0]?.status).toBeUndefined();
    expect(Buffer.from(blobs.get(digest)!).equals(data)).toBe(true);
  });

  test("takes BLAKE3", async () => {
    const { data, digest } = sample("blake", DigestFunction.BLAKE3);
    await client.unary(BatchUpdateBlobs, { requests: [{ digest, data }], digestFunction: DigestFunction.BLAKE3 });
    expect(blobs.has(digest)).toBe(true);
  });
});

describe("batchReadBlobs()", () => {
  // Plain requests take a path of their own; naming the identity compressor takes the other.
  test("answers a plain request as one that names its compressor", async () => {
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3]) {
      const texts = ["a", "x".repeat(127), "y".repeat(128), "z".repeat(20_000)];
      const samples = texts.map((text) => sample(text, fn));
      for (const { digest, data } of samples) await blobs.put(digest, data);
      const present = samples.map(({ digest }) => digest);
      const absent = sample("absent", fn).digest;
      const digests = [absent, ...present, { ...present[0]!, sizeBytes: 2 }, absent, present[1]!];
      for (const instanceName of ["", "main"]) {
        const request = { digests, digestFunction: fn, instanceName };
        const answer = await client.unary(BatchReadBlobs, request);
        expect(answer).toEqual(await client.unary(BatchReadBlobs, { ...request, acceptableCompressors: [0] }));
        expect(answer.responses.map(({ data }) => data.length)).toEqual([0, 1, 127, 128, 20_000, 0, 0, 127]);
      }
    }
  });

  test("returns data, and a status for what is absent", async () => {
    const present = await store(blobs, "present");
    const absent = sample("absent").digest;
    const { responses } = await client.unary(BatchReadBlobs, { digests: [present, absent, sample("").digest] });
    expect(Buffer.from(responses[0]!.data).toString()).toBe("present");
    expect(responses[1]!.status?.code).toBe(Code.NOT_FOUND);
    expect(responses[1]!.digest?.hash).toBe(absent.hash);
    expect(responses[2]!.status?.code ?? 0).toBe(Code.OK);
  });

  test("compresses only for who accepts it", async () => {
    const text = "compressible ".repeat(1000);
    const digest = await store(blobs, text);
    const plain = await client.unary(BatchReadBlobs, { digests: [digest], acceptableCompressors: [2, 3] });
    expect(plain.responses[0]!.compressor).toBe(0);
    const compressed = await client.unary(BatchReadBlobs, { digests: [digest], acceptableCompressors: [0, 1] });
    expect(compressed.responses[0]!.compressor).toBe(1);
    expect(zstdDecompressSync(compressed.responses[0]!.data).toString()).toBe(text);
  });

  // 60,000 empty answers would be above what clients take, although the blobs are small.
  test("refuses a batch whose answer would be above 4 MiB", async () => {
    const digests = Array.from({ length: 60_000 }, () => ({ hash: sample("tiny").digest.hash, sizeBytes: 4 }));
    const { code, message } = await statusOf(client.unary(BatchReadBlobs, { digests }));
    expect(code).toBe(Code.INVALID_ARGUMENT);
    expect(message).toMatch(/60000 digests make an answer of \d+ bytes/);
  });

  test("answers a full batch within 4 MiB", async () => {
    const digest = await store(blobs, noise(65_536));
    const digests = Array.from({ length: 63 }, () => digest);
    const { responses } = await client.unary(BatchReadBlobs, { digests });
    expect(responses).toHaveLength(63);
  });
});

describe("getTree()", () => {
  async function directory(init: DirectoryInit) {
    return store(blobs, Directory.encode(init));
  }

  test("sends every directory once, the root first", async () => {
    const leaf = await directory({ files: [{ name: "f", digest: sample("f").digest }] });
    const middle = await directory({ directories: [{ name: "leaf", digest: leaf }] });
    const root = await directory({
      directories: [
        { name: "a", digest: middle },
        { name: "b", digest: middle },
        { name: "empty", digest: sample("").digest },
      ],
    });
    const pages = await client.stream(GetTree, [{ rootDigest: root }]);
    const directories = pages.flatMap((page) => page.directories);
    expect(directories).toHaveLength(4);
    expect(directories[0]!.directories.map(({ name }) => name)).toEqual(["a", "b", "empty"]);
    expect(pages.at(-1)!.nextPageToken).toBe("");
  });

  test("leaves absent descendants out", async () => {
    const present = await directory({ symlinks: [{ name: "l", target: "t" }] });
    const absent = sample(Directory.encode({ symlinks: [{ name: "m", target: "t" }] })).digest;
    const root = await directory({
      directories: [
        { name: "absent", digest: absent },
        { name: "present", digest: present },
      ],
    });
    const pages = await client.stream(GetTree, [{ rootDigest: root }]);
    expect(pages.flatMap((page) => page.directories)).toHaveLength(2);
  });

  test("pages go on from any token, in another call", async () => {
    const leaves = await Promise.all(
      Array.from({ length: 25 }, (_, i) => directory({ symlinks: [{ name: `l${i}`, target: "t" }] })),
    );
    const root = await directory({
      directories: leaves.map((digest, i) => ({ name: String(i).padStart(2, "0"), digest })),
    });
    const pages = await client.stream(GetTree, [{ rootDigest: root, pageSize: 10 }]);
    expect(pages.map((page) => page.directories.length)).toEqual([10, 10, 6]);
    const pageToken = pages[0]!.nextPageToken;
    const rest = await client.stream(GetTree, [{ rootDigest: root, pageSize: 10, pageToken }]);
    expect(rest.flatMap((page) => page.directories)).toEqual(pages.slice(1).flatMap((page) => page.directories));
    // A token is bound to its tree.
    const { code } = await statusOf(client.stream(GetTree, [{ rootDigest: leaves[0]!, pageToken }]));
    expect(code).toBe(Code.INVALID_ARGUMENT);
  });

  test("a tree of 10,000 levels is walked", async () => {
    let root = await directory({});
    for (let level = 0; level < 10_000; level++) root = await directory({ directories: [{ name: "d", digest: root }] });
    const pages = await client.stream(GetTree, [{ rootDigest: root }]);
    expect(pages.flatMap((page) => page.directories)).toHaveLength(10_001);
  });

  test("a wide tree is sent in messages below 4 MiB", async () => {
    const parents = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const children = await Promise.all(
          Array.from({ length: 1000 }, (_unused, j) => directory({ symlinks: [{ name: `${i}-${j}`, target: "t" }] })),
        );
        return directory({ directories: children.map((digest, j) => ({ name: String(j).padStart(4, "0"), digest })) });
      }),
    );
    const root = await directory({
      directories: parents.map((digest, i) => ({ name: String(i).padStart(3, "0"), digest })),
    });
    const { call, done } = client.open(GetTree);
    call.send(GetTree.input.encode({ rootDigest: root }));
    call.halfClose();
    await done;
    expect(Math.max(...call.written.map((message) => message.length))).toBeLessThan(4 * 1024 * 1024);
    const count = call.written.reduce((sum, bytes) => sum + GetTree.output.decode(bytes).directories.length, 0);
    expect(count).toBe(100_101);
  });

  test("a directory that fits no message is refused by name", async () => {
    const leaf = sample("").digest;
    const entries = Array.from({ length: 60_000 }, (_, i) => ({ name: String(i).padStart(5, "0"), digest: leaf }));
    const root = await directory({ directories: entries });
    const { code, message } = await statusOf(client.stream(GetTree, [{ rootDigest: root }]));
    expect(code).toBe(Code.RESOURCE_EXHAUSTED);
    expect(message).toContain(root.hash);
  });
});

test("splitBlob() is not offered without chunking", async () => {
  expect((await statusOf(client.unary(SplitBlob, {}))).code).toBe(Code.UNIMPLEMENTED);
});
