// What every file owes its reader: a header, one subject in a readable size, nothing of somebody's machine.

import { describe, expect, test } from "vitest";
import { read, repositoryFiles, sourceFiles } from "./source-tree.ts";

const MAX_LINES = 450;
/** Names that say nothing: things live with the code that gives them meaning. */
const MEANINGLESS = /^(utils?|helpers?|types?|constants?|common|misc|index)\.ts$/;
/** Home directories, and the folders of the people and machines that write this; "someone" is nobody. */
const MACHINE_PATH = /(^|[\s"'`(=:])\/(work\/(main|shared)\b|root\/\.|home\/(?!someone\b)\w|Users\/\w)/;
/** Programs that a person or a script starts by name. */
const ENTRY_POINTS = ["src/main.ts", "build.ts", "test/run.ts", "examples/run.ts", "native-free-bench/main.ts"];

const files = sourceFiles();

describe("source files", () => {
  test("say first what they are responsible for", () => {
    const silent = files.filter((path) => {
      const [first = "", second = ""] = read(path).split("\n");
      return !/^\/\/ \S.{20,}/.test(first.startsWith("#!") ? second : first);
    });
    expect(silent).toEqual([]);
  });

  test(`have at most ${MAX_LINES} lines`, () => {
    expect(files.filter((path) => read(path).split("\n").length > MAX_LINES)).toEqual([]);
  });

  test("have names that say something", () => {
    expect(files.filter((path) => MEANINGLESS.test(path.split("/").at(-1) ?? ""))).toEqual([]);
  });

  test("do not only pass on what others export", () => {
    const barrels = files.filter((path) => {
      const lines = read(path)
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("//"));
      return lines.length > 0 && lines.every((line) => /^export (\{|\*|type \{)/.test(line));
    });
    expect(barrels).toEqual([]);
  });

  test("switch off no rule and no type", () => {
    // Put together, so that this file does not find itself.
    const switches = ["oxlint-", "eslint-"].map((tool) => `${tool}disable`);
    const words = [...switches, ...["ignore", "expect-error", "nocheck"].map((word) => `@ts-${word}`)];
    expect(files.filter((path) => words.some((word) => read(path).includes(word)))).toEqual([]);
  });

  // By name, for want of types: of a Buffer, slice() shares the memory. base/copy-octets.ts copies.
  test("do not take slice() of octets for a copy", () => {
    const slice = /\b(octets|chunk|bytes|buffer|lead|payload|body|data|content|message|rest|prefix|block)\.slice\(/;
    expect(files.filter((path) => path.startsWith("src/") && slice.test(read(path)))).toEqual([]);
  });
});

describe("all files", () => {
  test("name no folder of somebody's machine", () => {
    const found = repositoryFiles()
      .filter((path) => /\.(ts|md|py|json|proto|sh|service|socket|bzl|bazelrc|yml)$|Dockerfile|\.ci\//.test(path))
      .filter((path) => path !== "test/tidy/files.test.ts")
      .flatMap((path) =>
        read(path)
          .split("\n")
          .filter((line) => MACHINE_PATH.test(line))
          .map((line) => `${path}: ${line.trim()}`),
      );
    expect(found).toEqual([]);
  });
});

describe("entry points", () => {
  test("assert the version of Node", () => {
    const careless = ENTRY_POINTS.filter((path) => !read(path).includes("assertNodeVersion()"));
    expect(careless).toEqual([]);
  });
});
