// Change times as proof that nothing changed: which changes they show, and where they prove nothing.

import { execFileSync } from "node:child_process";
import { appendFileSync, chmodSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { blindMs, ENTRY_CHECKS, lookAt, stampOf } from "../../src/worker/directory-stamp.ts";
import { TemporaryFolder } from "../support/temporary-folder.ts";

test("every file counts, not only the one that changed last", async () => {
  await using folder = await TemporaryFolder.create("stamp");
  const path = join(folder.path, "directory");
  mkdirSync(path);
  for (const name of ["a", "b", "c"]) writeFileSync(join(path, name), name);
  await sleep(30); // more than a tick of a coarse clock
  const stamp = stampOf(path, ENTRY_CHECKS.everything);
  const verdict = () => lookAt(path, stamp, ENTRY_CHECKS.everything, Number.POSITIVE_INFINITY);
  expect(verdict()).toBe("unchanged");
  // As after a change by a clock that was set back: no time is later than the latest one was.
  const earlier = { ...stamp, entries: { ...stamp.entries, hash: stamp.entries.hash + 1 } };
  expect(lookAt(path, earlier, ENTRY_CHECKS.everything, Number.POSITIVE_INFINITY)).toBe("changed");
  expect(lookAt(path, stamp, ENTRY_CHECKS.everything, stamp.entries.newestMs - 1)).toBe("changed");
  appendFileSync(join(path, "a"), "x");
  expect(verdict()).toBe("changed");
  const again = stampOf(path, ENTRY_CHECKS.everything);
  await sleep(30);
  chmodSync(path, 0o700);
  expect(lookAt(path, again, ENTRY_CHECKS.everything, Number.POSITIVE_INFINITY)).toBe("changed");
  renameSync(path, `${path}-moved`);
  mkdirSync(path);
  expect(verdict()).toBe("gone");
});

test("a file system that is not known to note every change proves nothing", async () => {
  await using folder = await TemporaryFolder.create("stamp");
  execFileSync("mount", ["-t", "tmpfs", "none", folder.path]);
  try {
    expect(blindMs(folder.path)).toBe(Number.POSITIVE_INFINITY);
  } finally {
    execFileSync("umount", [folder.path]);
  }
});
