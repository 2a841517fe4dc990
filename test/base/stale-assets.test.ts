// Folders that other versions of the executable left behind. test/cli/executable.test.ts does the same with dist/ledge.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { removeStaleFolders, UNUSED_MS } from "../../src/base/stale-assets.ts";

const NOW_MS = Date.now();
const OURS = "0".repeat(32);

let parent: string;

beforeEach(() => (parent = mkdtempSync(join(tmpdir(), "ledge-stale-"))));
afterEach(() => rmSync(parent, { recursive: true }));

function folder(name: string, ageMs: number): string {
  mkdirSync(join(parent, name));
  writeFileSync(join(parent, name, "addon.node"), "x");
  const seconds = (NOW_MS - ageMs) / 1000;
  utimesSync(join(parent, name), seconds, seconds);
  return name;
}

describe("removeStaleFolders()", () => {
  test("removes what was not used for a day, and leaves ours, young ones and what is not named like ours", () => {
    folder(OURS, 3 * UNUSED_MS);
    const young = folder("1".repeat(32), UNUSED_MS - 60_000);
    folder("2".repeat(32), UNUSED_MS + 60_000);
    folder(`${"3".repeat(32)}.12345678-1234-1234-1234-123456789012.old`, UNUSED_MS + 60_000);
    const foreign = folder("somebody-else", 9 * UNUSED_MS);
    removeStaleFolders(parent, OURS, NOW_MS);
    expect(readdirSync(parent).toSorted()).toEqual([OURS, young, foreign]);
    expect(statSync(join(parent, OURS)).mtimeMs).toBeCloseTo(NOW_MS, -1);
  });

  test("leaves a link where a folder should be, and survives a parent that is gone", () => {
    folder(OURS, 0);
    const target = folder("target", 0);
    symlinkSync(join(parent, target), join(parent, "4".repeat(32)));
    removeStaleFolders(parent, OURS, NOW_MS + 9 * UNUSED_MS);
    expect(readdirSync(parent)).toContain("4".repeat(32));
    expect(readdirSync(join(parent, target))).toEqual(["addon.node"]);
    removeStaleFolders(join(parent, "gone"), OURS, NOW_MS);
  });
});
