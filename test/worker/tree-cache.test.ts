// The cache of materialized subtrees: what is worth a tree, what stays, what goes.

import { lstatSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { DirectoryCache } from "../../src/worker/directory-cache.ts";
import { FileCache } from "../../src/worker/file-cache.ts";
import { FileThreads } from "../../src/worker/file-threads.ts";
import { RecentTrees } from "../../src/worker/input-tree.ts";
import { TreeCache } from "../../src/worker/tree-cache.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";
import { ActionBuilder, executable, type TreeSpec } from "./action-builder.ts";
import { directory, marked } from "./root-file-system.ts";

async function make(maxEntries: number) {
  const folder = await TemporaryFolder.create("tree-cache");
  const threads = new FileThreads(1);
  const store = new MemoryBlobStore();
  for (const name of ["files", "trees"]) mkdirSync(`${folder.path}/${name}`);
  const fileCache = new FileCache({ directory: `${folder.path}/files`, store, threads, maxBytes: 1e9, maxFiles: 1e6 });
  return {
    source: { store, threads, fileCache, directoryCache: new DirectoryCache(), recentTrees: new RecentTrees() },
    cache: new TreeCache({ directory: `${folder.path}/trees`, maxEntries }),
    build: new ActionBuilder(store),
    trees: () => readdirSync(`${folder.path}/trees`),
    settle: () => threads.run("removeTrees", []),
    async [Symbol.asyncDispose]() {
      await threads.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const files = (count: number, text = "content"): TreeSpec =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, `${text} ${i % 30}`]));

test("acquire() makes a tree once and gives the same one to everybody who asks", async () => {
  await using fixture = await make(1000);
  const { cache, source, build } = fixture;
  const digest = await build.tree({
    ...files(50),
    tool: executable("x"),
    sub: directory({ link: { target: "../f1" } }),
  });
  const [first, second] = await Promise.all([cache.acquire(digest, source), cache.acquire(digest, source)]);
  expect(first?.path).toBe(second?.path);
  expect(fixture.trees()).toHaveLength(1);
  expect(readFileSync(`${first!.path}/f7`, "utf8")).toBe("content 7");
  expect(readFileSync(`${first!.path}/sub/link`, "utf8")).toBe("content 1");
  expect((lstatSync(`${first!.path}/tool`).mode & 0o777).toString(8)).toBe("555");
  // f1 and f31 have one content: two inodes, counted as two occurrences.
  expect(lstatSync(`${first!.path}/f1`).ino).not.toBe(lstatSync(`${first!.path}/f31`).ino);
  expect([...first!.contents.values()].reduce((sum, count) => sum + count, 0)).toBe(51);
});

test("acquire() has no tree for a small directory, for one with a writable part, or for one with missing blobs", async () => {
  await using fixture = await make(1000);
  const { cache, source, build } = fixture;
  const small = await build.tree(files(10));
  const writable = await build.tree({ ...files(60), work: directory({}, marked(false)) });
  const absent = { fn: build.fn, hash: "ab".repeat(32), sizeBytes: 9 };
  for (const digest of [small, writable, absent]) expect(await cache.acquire(digest, source)).toBeUndefined();
  await fixture.settle();
  expect([cache.count, fixture.trees()]).toEqual([0, []]);
});

test("release() lets the least recently used trees go, those in use never", async () => {
  await using fixture = await make(120);
  const { cache, source, build } = fixture;
  const digests = await Promise.all(["a", "b", "c"].map((text) => build.tree(files(50, text))));
  const trees = [];
  for (const digest of digests) trees.push(await cache.acquire(digest, source));
  expect(cache.count).toBe(3);
  trees[1]!.release();
  trees[2]!.release();
  await fixture.settle();
  expect(cache.count).toBe(2);
  lstatSync(trees[0]!.path);
  trees[0]!.release();
  await fixture.settle();
  expect(fixture.trees()).toHaveLength(cache.count);
});
