// Build directories: used once, swept at start.

import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { BuildDirectories } from "../../src/worker/build-directories.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

test("open() removes what a killed server left, and nothing that is not its own", async () => {
  await using folder = await TemporaryFolder.create("build");
  const path = `${folder.path}/exec`;
  for (const name of ["slots/0/7/root/deep", "files", "trees/3", "trash/old/x", "swept/slots", "runner"]) {
    mkdirSync(`${path}/${name}`, { recursive: true });
  }
  writeFileSync(`${path}/slots/0/7/root/deep/file`, "left");
  chmodSync(`${path}/slots/0/7/root/deep`, 0o000);
  const directories = await BuildDirectories.open({ path, slots: 2, ownerOf: () => undefined });
  expect(readdirSync(path).toSorted()).toEqual(["files", "kept", "runner", "slots", "trash", "trees"]);
  expect(readdirSync(`${path}/slots`)).toEqual(["0", "1"]);
  expect([...readdirSync(`${path}/slots/0`), ...readdirSync(`${path}/files`), ...readdirSync(`${path}/trees`)]).toEqual(
    [],
  );
  await directories.settle();
  expect(readdirSync(`${path}/trash`)).toEqual([]);
  await directories.close();
});

test("discard() takes the directory out of its slot at once, whatever is in it", async () => {
  await using folder = await TemporaryFolder.create("build");
  const directories = await BuildDirectories.open({ path: folder.path, slots: 1, ownerOf: () => undefined });
  const first = directories.next(0);
  const second = directories.next(0);
  expect(first.path).not.toBe(second.path);
  mkdirSync(`${first.rootPath}/closed`, { recursive: true });
  writeFileSync(`${first.rootPath}/closed/f`, "x");
  chmodSync(`${first.rootPath}/closed`, 0o000);
  await directories.discard(first);
  await directories.discard(second); // was never created
  expect(existsSync(first.path)).toBe(false);
  await directories.settle();
  expect(readdirSync(`${folder.path}/trash`)).toEqual([]);
  await directories.close();
});
