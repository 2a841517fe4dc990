// The order of names and what a canonical Directory is, against plain re-implementations.

import fc from "fast-check";
import { expect, test } from "vitest";
import { compareUtf8 } from "../../src/worker/input-directory.ts";
import { parseOutputPath, parseWorkingDirectory } from "../../src/worker/output-paths.ts";
import { encodeTree } from "../../src/worker/output-tree.ts";
import { Directory, Tree } from "../../src/proto/remote_execution.ts";
import { DigestFunction } from "../../src/digest/digest.ts";

test("compareUtf8() orders names as their bytes are ordered", () => {
  const seed = Date.now() & 0x7fffffff;
  console.log(`input-directory.test.ts: seed ${seed}`);
  // Well-formed text around the places where UTF-16 order differs: surrogates against U+E000 to U+FFFF.
  const text = fc.string({
    unit: fc.constantFrom("a", "b", "\u{D7FF}", "\u{E000}", "\u{FFFD}", "\u{10000}", "\u{10FFFF}"),
  });
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(Math.sign(compareUtf8(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
    { seed, numRuns: 2000 },
  );
});

test.each([
  ["", "", []],
  ["", "a/b", ["a", "b"]],
  ["", "./a//b/", ["a", "b"]],
  ["w", ".", ["w"]],
  ["w", "", ["w"]],
  ["w/x", "..", ["w"]],
  ["w/x", "../..", []],
  ["w/x", "../../install", ["install"]],
  ["w", "a/../b", ["w", "b"]],
])("in %j the output %j is at %j", (workingDirectory, path, names) => {
  expect(parseOutputPath(parseWorkingDirectory(workingDirectory), path, "output_paths")).toEqual({
    requested: path,
    names,
  });
});

test("encodeTree() writes what the codec writes", () => {
  const root = Directory.encode({ files: [{ name: "f", digest: { hash: "ab".repeat(32), sizeBytes: 300 } }] });
  const child = Directory.encode({ symlinks: [{ name: "s".repeat(200), target: "t" }] });
  const digest = { fn: DigestFunction.SHA256, hash: "00".repeat(32), sizeBytes: 1 };
  const bytes = encodeTree([
    { digest, bytes: root },
    { digest, bytes: child },
  ]);
  const message = { root: Directory.decode(root), children: [Directory.decode(child)] };
  expect(Buffer.from(bytes)).toEqual(Buffer.from(Tree.encode(message)));
});
