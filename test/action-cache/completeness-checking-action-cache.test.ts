// A result is a hit only when every blob that a client may follow from it is there.
//
// Results, Trees and Directories are encoded by protobufjs, so that a mistake of our codecs cannot hide one of ours here.

import { describe, expect, test } from "vitest";
import type { ActionKey } from "../../src/action-cache/action-cache.ts";
import { CompletenessCheckingActionCache } from "../../src/action-cache/completeness-checking-action-cache.ts";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { Code, StatusError } from "../../src/base/status.ts";
import type { BlobReader, BlobStore, ReadOptions } from "../../src/cas/blob-store.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import type { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DigestFunction, digestKey, type Digest } from "../../src/digest/digest.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { encodeIndependently } from "../services/independent-encoding.ts";
import { sample, type Sample } from "../services/sample-blobs.ts";
import { describeActionCacheContract } from "./action-cache-contract.ts";

const KEY: ActionKey = { instanceName: "", fn: DigestFunction.SHA256, hash: "ab".repeat(32) };

const wire = ({ digest }: Sample) => ({ hash: digest.hash, sizeBytes: digest.sizeBytes });
const file = (name: string, blob: Sample) => ({ name, digest: wire(blob) });

interface World {
  readonly result: Uint8Array;
  /** Every blob that the result needs, by what it is. */
  readonly blobs: ReadonlyMap<string, Sample>;
}

/** A result that uses every way to name a blob. `padding` makes the Tree large. */
function makeWorld(padding = 0): World {
  const blobs = new Map<string, Sample>();
  const blob = (what: string, content: string | Uint8Array = what): Sample => {
    const made = sample(content);
    blobs.set(what, made);
    return made;
  };
  const directory = (what: string, message: object): Sample => blob(what, encodeIndependently("Directory", message));

  const padded = Array.from({ length: padding }, (_, i) => file(`padding-${i}`, sample("")));
  const child = { files: [file("deep", blob("a file in a child of the Tree"))] };
  const tree = blob(
    "the Tree",
    encodeIndependently("Tree", {
      root: {
        files: [...padded, file("top", blob("a file in the root of the Tree"))],
        directories: [{ name: "child", digest: wire(sample(encodeIndependently("Directory", child))) }],
        symlinks: [{ name: "link", target: "top" }],
        nodeProperties: { unixMode: { value: 0o755 } },
      },
      children: [child],
    }),
  );
  const nested = directory("a nested Directory", { files: [file("n", blob("a file in a nested Directory"))] });
  const middle = directory("a Directory in between", { directories: [{ name: "nested", digest: wire(nested) }] });
  const rootDirectory = directory("the root Directory", {
    files: [file("r", blob("a file in the root Directory"))],
    directories: [
      { name: "middle", digest: wire(middle) },
      { name: "empty", digest: wire(sample("")) },
    ],
  });
  const result = encodeIndependently("ActionResult", {
    outputFiles: [
      { path: "a", digest: wire(blob("an output file")) },
      { path: "b", digest: wire(blob("another output file")) },
      { path: "empty", digest: wire(sample("")) },
    ],
    outputDirectories: [
      { path: "t", treeDigest: wire(tree) },
      { path: "e", treeDigest: wire(sample("")) },
      { path: "d", rootDirectoryDigest: wire(rootDirectory) },
    ],
    outputSymlinks: [{ path: "s", target: "a" }],
    stdoutDigest: wire(blob("stdout")),
    stderrDigest: wire(blob("stderr")),
    executionMetadata: { worker: "w" },
  });
  return { result, blobs };
}

/** Notes which blobs were asked for, which is what keeps them from eviction. */
class RecordingBlobStore extends MemoryBlobStore {
  readonly touched = new Set<string>();

  override findMissing(batch: DigestBatch): Uint32Array {
    for (let i = 0; i < batch.count; i++) this.touched.add(digestKey(batch.digestAt(i)));
    return super.findMissing(batch);
  }

  override get(digest: Digest): Uint8Array | undefined {
    this.touched.add(digestKey(digest));
    return super.get(digest);
  }

  override openRead(digest: Digest, options?: ReadOptions): Promise<BlobReader> {
    this.touched.add(digestKey(digest));
    return super.openRead(digest, options);
  }
}

async function cacheWith(world: World, except?: string) {
  const blobs = new RecordingBlobStore();
  for (const [what, { digest, data }] of world.blobs) if (what !== except) await blobs.put(digest, data);
  const cache = new CompletenessCheckingActionCache(new MemoryActionCache(), blobs, new MetricsRegistry());
  await cache.put(KEY, world.result, {});
  return { cache, blobs };
}

describeActionCacheContract(
  "CompletenessCheckingActionCache",
  async () => ({
    cache: new CompletenessCheckingActionCache(new MemoryActionCache(), new MemoryBlobStore(), new MetricsRegistry()),
    close: async () => undefined,
  }),
  (stdoutRaw) => encodeIndependently("ActionResult", { stdoutRaw }),
);

describe.each([
  ["a small Tree", 0],
  ["a Tree of more than a megabyte", 20_000],
])("get() with %s", (_name, padding) => {
  const world = makeWorld(padding);

  test("returns a complete result as it was stored, and touches every blob", async () => {
    const { cache, blobs } = await cacheWith(world);
    expect(Buffer.from((await cache.get(KEY))!).equals(world.result)).toBe(true);
    const untouched = [...world.blobs].filter(([, { digest }]) => !blobs.touched.has(digestKey(digest)));
    expect(untouched.map(([what]) => what)).toEqual([]);
  });

  test.each([...world.blobs.keys()])("misses without %s", async (what) => {
    const { cache } = await cacheWith(world, what);
    expect(await cache.get(KEY)).toBeUndefined();
  });
});

describe("get()", () => {
  async function getOf(result: Uint8Array, store: BlobStore = new MemoryBlobStore()) {
    const cache = new CompletenessCheckingActionCache(new MemoryActionCache(), store, new MetricsRegistry());
    await cache.put(KEY, result, {});
    return cache.get(KEY);
  }

  test("counts a blob of another size as absent", async () => {
    const { digest, data } = sample("content");
    const store = new MemoryBlobStore();
    await store.put(digest, data);
    const other = { hash: digest.hash, sizeBytes: digest.sizeBytes + 1 };
    expect(await getOf(encodeIndependently("ActionResult", { stdoutDigest: other }), store)).toBeUndefined();
  });

  test("misses when a Tree is not a Tree, or a result is not a result", async () => {
    const store = new MemoryBlobStore();
    const { digest, data } = sample("\x0a\xff not a Tree");
    await store.put(digest, data);
    const named = { outputDirectories: [{ path: "t", treeDigest: wire({ digest, data }) }] };
    expect(await getOf(encodeIndependently("ActionResult", named), store)).toBeUndefined();
    const root = { outputDirectories: [{ path: "t", rootDirectoryDigest: wire({ digest, data }) }] };
    expect(await getOf(encodeIndependently("ActionResult", root), store)).toBeUndefined();
    expect(await getOf(Buffer.from("\x12\xff garbage"))).toBeUndefined();
    const short = { stdoutDigest: { hash: "abc", sizeBytes: 1 } };
    expect(await getOf(encodeIndependently("ActionResult", short))).toBeUndefined();
  });

  test("misses when a blob is damaged, and fails when the store does", async () => {
    const tree = sample(encodeIndependently("Tree", { root: {} }));
    const result = encodeIndependently("ActionResult", { outputDirectories: [{ path: "t", treeDigest: wire(tree) }] });
    const failing = (code: StatusError["code"]): BlobStore =>
      Object.assign(new MemoryBlobStore(), { get: () => Promise.reject(new StatusError(code, "of the store")) });
    expect(await getOf(result, failing(Code.DATA_LOSS))).toBeUndefined();
    await expect(getOf(result, failing(Code.INTERNAL))).rejects.toThrow("of the store");
  });

  test("looks at a tree of 10,000 levels below a root directory", async () => {
    const store = new MemoryBlobStore();
    let root = sample(encodeIndependently("Directory", { files: [file("f", sample("absent at the bottom"))] }));
    await store.put(root.digest, root.data);
    for (let level = 0; level < 10_000; level++) {
      root = sample(encodeIndependently("Directory", { directories: [file("d", root)] }));
      await store.put(root.digest, root.data);
    }
    const result = encodeIndependently("ActionResult", {
      outputDirectories: [{ path: "t", rootDirectoryDigest: wire(root) }],
    });
    expect(await getOf(result, store)).toBeUndefined();
    await store.put(sample("absent at the bottom").digest, sample("absent at the bottom").data);
    expect(await getOf(result, store)).toBeDefined();
  });
});
