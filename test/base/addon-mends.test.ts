// The mended add-ons: the fault is in the package as installed, not in what is loaded.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, expect, test } from "vitest";
import { addonMend, mendAddon } from "../../src/base/addon-mends.ts";
import { requireFromHere } from "../../src/base/native-addon.ts";

const require = createRequire(import.meta.url);
const mend = addonMend("lmdb") ?? { file: "", words: "", instead: "" };
const installed = readFileSync(createRequire(require.resolve("lmdb")).resolve(mend.file));

/** The octets that sprintf() writes for `format` at most, the NUL at its end included. */
function longestOutput(format: string): number {
  return format.replaceAll("%u", "4294967295").replaceAll("%i", "-2147483648").length;
}

describe("lmdb's add-on", () => {
  const ROOM = 100; // what its source gives the words for a failed write

  test("as installed overruns the buffer of its words, and mended does not", () => {
    expect(longestOutput(mend.words)).toBeGreaterThan(ROOM);
    expect(longestOutput(mend.instead)).toBeLessThanOrEqual(ROOM);
    const mended = mendAddon(installed, mend);
    expect(mended.includes(mend.words, 0, "latin1")).toBe(false);
    expect(mended.includes(mend.instead, 0, "latin1")).toBe(true);
  });

  test("differs from the installed one in those words alone", () => {
    const mended = mendAddon(installed, mend);
    const at = installed.indexOf(mend.words, 0, "latin1");
    const end = at + mend.words.length;
    expect(mended).toHaveLength(installed.length);
    expect(mended.subarray(0, at).equals(installed.subarray(0, at))).toBe(true);
    expect(mended.subarray(end).equals(installed.subarray(end))).toBe(true);
  });

  test("is loaded mended, and not as installed", () => {
    requireFromHere("lmdb");
    const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
    const loaded = maps.filter((line) => line.endsWith(".node") || line.endsWith(".node (deleted)"));
    expect(loaded.some((line) => line.includes("/mended.node"))).toBe(true);
    expect(loaded.filter((line) => line.includes("lmdb-linux"))).toEqual([]);
  });

  test("of a version without the words is refused, which names them", () => {
    expect(() => mendAddon(Buffer.from("another version"), mend)).toThrow(/does not have "Attempting to write page/);
    expect(() => mendAddon(Buffer.concat([installed, installed]), mend)).toThrow(/exactly once/);
  });
});
