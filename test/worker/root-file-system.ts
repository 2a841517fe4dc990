// A root file system small enough for tests: a few programs of the host with the libraries they need.

import { execFileSync } from "node:child_process";
import { lstatSync, readFileSync, realpathSync } from "node:fs";
import type { Digest } from "../../src/digest/digest.ts";
import type { NodePropertiesInit } from "../../src/proto/remote_execution.ts";
import type { ActionBuilder, DirectorySpec, FileSpec, TreeSpec } from "./action-builder.ts";

const PROGRAMS = ["sh", "cat", "ls", "mkdir", "rm", "id", "stat", "touch"];

/** Programs in /bin, libraries in /lib and /lib64, and `more`. */
export function rootFileSystem(
  build: ActionBuilder,
  more: TreeSpec,
  nodeProperties?: NodePropertiesInit,
): Promise<Digest> {
  const files = new Map<string, string>();
  for (const name of PROGRAMS) {
    const program = realpathSync(
      execFileSync("sh", ["-c", `command -v ${name}`])
        .toString()
        .trim(),
    );
    files.set(`bin/${name}`, program);
    for (const line of execFileSync("ldd", [program]).toString().split("\n")) {
      const library = /(\/\S+)/.exec(line)?.[1];
      if (library === undefined) continue;
      const isLoader = library.startsWith("/lib64/");
      files.set(isLoader ? library.slice(1) : `lib/${library.slice(library.lastIndexOf("/") + 1)}`, library);
    }
  }
  const tree: Record<string, Record<string, FileSpec>> = {};
  for (const [path, source] of files) {
    const [folder = "", name = ""] = path.split("/");
    const isExecutable = (lstatSync(realpathSync(source)).mode & 0o100) !== 0;
    (tree[folder] ??= {})[name] = { content: readFileSync(source), isExecutable };
  }
  const folders = Object.fromEntries(Object.entries(tree).map(([name, entries]) => [name, directory(entries)]));
  return build.tree({ ...folders, ...more }, nodeProperties);
}

/** BuildStream's mark on a directory. */
export function marked(isReadOnly: boolean): NodePropertiesInit {
  return { properties: [{ name: "SubtreeReadOnly", value: String(isReadOnly) }] };
}

export function directory(entries: TreeSpec, nodeProperties?: NodePropertiesInit): DirectorySpec {
  return nodeProperties === undefined ? { entries } : { entries, nodeProperties };
}
