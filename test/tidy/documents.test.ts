// Documents: links that lead somewhere, and tables that agree with the code.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { flagsMarkdown } from "../../src/cli/help.ts";
import { read, repositoryFiles, root } from "./source-tree.ts";

const documents = repositoryFiles().filter((path) => path.endsWith(".md"));
const EXPECTED = ["README.md", "ARCHITECTURE.md", "GLOSSARY.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

describe("documents", () => {
  test("are all there", () => {
    expect(documents).toEqual(expect.arrayContaining(EXPECTED));
    expect(existsSync(join(root, "LICENSE"))).toBe(true);
  });

  test.each(documents)("%s links to files and headings that exist", (path) => {
    const broken = [...withoutCode(read(path)).matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1] ?? "")
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => !leadsSomewhere(path, link));
    expect(broken).toEqual([]);
  });

  test.each(documents)("%s names source files that exist", (path) => {
    // Decisions and the change log speak of their time.
    if (path.startsWith("docs/decisions/") || path === "CHANGELOG.md") return;
    const named = [...read(path).matchAll(/`((?:src|test|examples|docs|deploy|protos|native-free-bench)\/[\w./-]+)`/g)];
    const absent = named
      .map((match) => match[1] ?? "")
      .filter((name) => !name.startsWith("src/proto") && !existsSync(join(root, name)));
    expect(absent).toEqual([]);
  });
});

describe("README.md", () => {
  test("has the table of flags as --help has them", () => {
    expect(read("README.md")).toContain(flagsMarkdown());
  });
});

function leadsSomewhere(from: string, link: string): boolean {
  const [file = "", anchor] = link.split("#");
  const target = file === "" ? from : join(dirname(from), file);
  if (!existsSync(join(root, target))) return false;
  return anchor === undefined || headings(read(target)).includes(anchor);
}

/** As GitHub makes them: lower case, spaces to dashes, punctuation dropped. */
function headings(text: string): string[] {
  return [...withoutCode(text).matchAll(/^#+\s+(.*)$/gm)].map((match) =>
    (match[1] ?? "")
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .trim()
      .replaceAll(" ", "-"),
  );
}

function withoutCode(text: string): string {
  return text.replaceAll(/^```[\s\S]*?^```/gm, "").replaceAll(/`[^`\n]*`/g, "code");
}
