// The cache of linkable files: what it makes, what it keeps, what it forgets.

import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import type { Digest } from "../../src/digest/digest.ts";
import { FileCache } from "../../src/worker/file-cache.ts";
import { FileThreads } from "../../src/worker/file-threads.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";
import { ActionBuilder } from "./action-builder.ts";

let folder: TemporaryFolder;
let threads: FileThreads;
const store = new MemoryBlobStore();
const build = new ActionBuilder(store);

beforeEach(async () => {
  folder = await TemporaryFolder.create("file-cache");
  threads = new FileThreads(1);
});
afterEach(async () => {
  await threads.close();
  await folder[Symbol.asyncDispose]();
});

function make(limits: { maxBytes?: number; maxFiles?: number } = {}) {
  return new FileCache({ directory: folder.path, store, threads, maxBytes: 1e9, maxFiles: 1e6, ...limits });
}

const plain = (digest: Digest, replica = 0) => ({ digest, isExecutable: false, replica });

test("acquire() makes one inode for each content, executable bit and replica, and the same one the next time", async () => {
  const cache = make();
  const digest = await build.blob("text");
  const keys = [plain(digest), plain(digest, 1), { ...plain(digest), isExecutable: true }];
  const { paths } = await cache.acquire(keys);
  const stats = paths.map((path) => lstatSync(path));
  expect(new Set(stats.map(({ ino }) => ino)).size).toBe(3);
  expect(stats.map(({ mode }) => (mode & 0o777).toString(8))).toEqual(["444", "444", "555"]);
  expect(stats.map(({ mtimeMs }) => mtimeMs / 1000 - 946_684_800)).toEqual([0, 1, 0]);
  expect(paths.map((path) => readFileSync(path, "utf8"))).toEqual(["text", "text", "text"]);
  expect((await cache.acquire(keys)).paths).toEqual(paths);
});

test("acquire() makes a file once when two actions ask at the same time", async () => {
  const cache = make();
  const key = plain(await build.blob("twice"));
  const [first, second] = await Promise.all([cache.acquire([key]), cache.acquire([key])]);
  expect(first.paths).toEqual(second.paths);
  expect(readdirSync(folder.path)).toHaveLength(1);
});

test("release() lets the least recently used files go, those in use never", async () => {
  const cache = make({ maxFiles: 2 });
  const digests = [];
  for (let i = 0; i < 4; i++) digests.push(await build.blob(`content ${i}`));
  const held = await cache.acquire([plain(digests[0]!), plain(digests[1]!), plain(digests[2]!)]);
  expect(cache.count).toBe(3);
  for (const path of held.paths) lstatSync(path);
  held.release();
  expect(cache.count).toBe(2);
  const next = await cache.acquire([plain(digests[3]!)]);
  next.release();
  await threads.run("removeTrees", []);
  expect(cache.count).toBe(2);
  expect(readdirSync(folder.path)).toHaveLength(2);
  expect(cache.bytes).toBe(2 * "content 0".length);
});

test("acquire() reports a blob that is gone, and forgets the file it was to be", async () => {
  const cache = make();
  const absent = { fn: build.fn, hash: "ab".repeat(32), sizeBytes: 3 };
  await expect(cache.acquire([plain(absent)])).rejects.toMatchObject({ code: Code.FAILED_PRECONDITION });
  expect(cache.count).toBe(0);
  expect(cache.bytes).toBe(0);
});

// Each action has checked its own blobs; what another one lost is not its business.
test("acquire() succeeds though another action failed while it made the same file", async () => {
  const cache = make();
  const shared = plain(await build.blob("shared"));
  const absent = plain({ fn: build.fn, hash: "cd".repeat(32), sizeBytes: 3 });
  const [failed, fine] = await Promise.allSettled([cache.acquire([shared, absent]), cache.acquire([shared])]);
  expect(failed.status).toBe("rejected");
  if (fine.status === "rejected") throw fine.reason;
  expect(readFileSync(fine.value.paths[0]!, "utf8")).toBe("shared");
});

// ext4 ends at 65,000 names of one file; the input root after that must still come into being.
test("the 65,001st link of a file is a copy", async () => {
  const cache = make();
  const { paths } = await cache.acquire([plain(await build.blob("popular"))]);
  const count = 65_001;
  const linkPaths = Array.from({ length: count }, (_, i) => `f${i}`);
  const root = `${folder.path}/root`;
  await threads.run("materialize", {
    root,
    owner: undefined,
    ownDirectories: [],
    rootExists: false,
    directories: [""],
    readOnlyDirectories: new Set(),
    linkPaths,
    linkSources: linkPaths.map(() => paths[0]!),
    files: [],
    symlinkPaths: [],
    symlinkTargets: [],
    outputParents: [],
    directoryProperties: [],
    movePaths: [],
    moveSources: [],
    stampPaths: [],
    stampChecks: [],
  });
  const last = lstatSync(`${root}/f${count - 1}`);
  const source = lstatSync(paths[0]!);
  if (source.nlink === 65_000) expect(last.ino).not.toBe(source.ino); // else this file system knows no such limit
  expect(readFileSync(`${root}/f${count - 1}`, "utf8")).toBe("popular");
  expect([last.mode, last.mtimeMs]).toEqual([source.mode, source.mtimeMs]);
});
