// The files of the repository and what they import, for the tests of this folder.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

export const root = join(import.meta.dirname, "..", "..");

/** Files that git has or would take, as paths from the root. Deleted ones that git still lists are left out. */
export function repositoryFiles(): string[] {
  const args = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const listing = execFileSync("git", args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  return [...new Set(listing.split("\0"))].filter((path) => path !== "" && existsSync(join(root, path))).toSorted();
}

export function sourceFiles(): string[] {
  return repositoryFiles().filter((path) => path.endsWith(".ts") && !path.startsWith("src/proto/"));
}

export function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

export interface Import {
  /** A path from the root for files of ours, else the name of the module. */
  readonly target: string;
  readonly kind: "file" | "node" | "package";
}

/** Everything `path` imports, also as a type, lazily, or through the functions of src/base/native-addon.ts. */
export function importsOf(path: string): Import[] {
  const text = read(path).replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const specifiers = [
    ...text.matchAll(/^(?:import|export)\s(?:[^"';]*?\sfrom\s)?"([^"\n]+)";?$/gm),
    ...text.matchAll(/\bimport\(\s*"([^"\n]+)"/g),
    ...text.matchAll(/\b(?:requireFromHere|readPackageFile)\(\s*"([^"\n]+)"/g),
  ].map((match) => match[1] ?? "");
  return specifiers.map((specifier) => {
    if (specifier.startsWith(".")) return { kind: "file", target: normalize(join(dirname(path), specifier)) };
    if (specifier.startsWith("node:")) return { kind: "node", target: specifier };
    return { kind: "package", target: packageName(specifier) };
  });
}

function packageName(specifier: string): string {
  const parts = specifier.split("/");
  return parts.slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** The rows of the first table below `heading` of a markdown file, cells trimmed, without the two header rows. */
export function tableBelow(path: string, heading: string): string[][] {
  const lines = read(path).split("\n");
  const from = lines.findIndex((line) => line.startsWith("#") && line.replace(/^#+\s*/, "") === heading);
  if (from < 0) throw new Error(`${path} has no heading "${heading}"`);
  const start = lines.findIndex((line, index) => index > from && line.startsWith("|"));
  const table: string[][] = [];
  for (let index = start; index >= 0 && lines[index]?.startsWith("|") === true; index++) {
    const cells = lines[index]?.split(/(?<!\\)\|/).slice(1, -1);
    table.push((cells ?? []).map((cell) => cell.trim()));
  }
  return table.slice(2);
}
