// A tree of files as a Map: the naive model that real input roots and outputs are compared with.

import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { TreeSpec } from "./action-builder.ts";

export type Node =
  | { readonly kind: "file"; readonly content: string; readonly isExecutable: boolean }
  | { readonly kind: "symlink"; readonly target: string }
  | { readonly kind: "directory" };

/** Every node by its path; "" is the root. */
export type Model = Map<string, Node>;

/** Adds what fits: a node whose parents are directories or absent, and that replaces nothing. */
export function grow(model: Model, additions: readonly (readonly [string, Node])[]): Model {
  for (const [where, what] of additions) {
    const parents = where
      .split("/")
      .slice(0, -1)
      .map((_, i, names) => names.slice(0, i + 1).join("/"));
    if (model.has(where) || parents.some((parent) => (model.get(parent)?.kind ?? "directory") !== "directory"))
      continue;
    for (const parent of parents) model.set(parent, { kind: "directory" });
    model.set(where, what);
  }
  return model;
}

export function toSpec(model: Model, at = ""): TreeSpec {
  const spec: Record<string, TreeSpec[string]> = {};
  for (const [where, what] of model) {
    const parent = where.includes("/") ? where.slice(0, where.lastIndexOf("/")) : "";
    if (where === "" || parent !== at) continue;
    const name = where.slice(where.lastIndexOf("/") + 1);
    if (what.kind === "file") spec[name] = { content: what.content, isExecutable: what.isExecutable };
    else if (what.kind === "symlink") spec[name] = { target: what.target };
    else spec[name] = { entries: toSpec(model, where) };
  }
  return spec;
}

export function look(root: string, at = "", found: Model = new Map([["", { kind: "directory" }]])): Model {
  for (const name of readdirSync(`${root}/${at}`)) {
    const where = at === "" ? name : `${at}/${name}`;
    const stats = lstatSync(`${root}/${where}`);
    if (stats.isSymbolicLink()) found.set(where, { kind: "symlink", target: readlinkSync(`${root}/${where}`) });
    else if (stats.isFile()) {
      const content = readFileSync(`${root}/${where}`, "utf8");
      found.set(where, { kind: "file", content, isExecutable: (stats.mode & 0o100) !== 0 });
    } else {
      found.set(where, { kind: "directory" });
      look(root, where, found);
    }
  }
  return found;
}

export function sorted(model: Model): [string, Node][] {
  return [...model].toSorted(([a], [b]) => (a < b ? -1 : 1));
}
