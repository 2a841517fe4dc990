// Random input trees, random changes by the action and random output paths, against a naive model that is a Map.
//
// The model knows nothing of links, caches, jobs or messages: paths to nodes, copied for every action.

import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ActionResult, Directory, Tree } from "../../src/proto/remote_execution.ts";
import { ExecutorFixture } from "./executor-fixture.ts";
import { grow, look, sorted, toSpec, type Model, type Node } from "./naive-tree.ts";

const NAMES = ["a", "b", "c", "\u00e9", "-x", "long name"];

const node: fc.Arbitrary<Node> = fc.oneof(
  {
    weight: 4,
    // Few contents, so that equal files occur often.
    arbitrary: fc.record({
      kind: fc.constant("file" as const),
      content: fc.constantFrom("", "one", "two", "x".repeat(20_000)),
      isExecutable: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("symlink" as const), target: fc.constantFrom("a", "../b", "/etc") }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: "directory" as const }) },
);
const path = fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 4 }).map((names) => names.join("/"));
const nodes = fc.array(fc.tuple(path, node), { maxLength: 25 });

function apply(root: string, before: Model, after: Model): void {
  const isKept = (where: string) => {
    const [was, is] = [before.get(where), after.get(where)];
    return was === is || (was?.kind === "directory" && is?.kind === "directory");
  };
  for (const where of before.keys()) if (!isKept(where)) rmSync(`${root}/${where}`, { recursive: true, force: true });
  for (const [where, what] of after) {
    if (isKept(where)) continue;
    if (what.kind === "directory") mkdirSync(`${root}/${where}`, { recursive: true });
    else if (what.kind === "symlink") symlinkSync(what.target, `${root}/${where}`);
    else {
      writeFileSync(`${root}/${where}`, what.content);
      chmodSync(`${root}/${where}`, what.isExecutable ? 0o755 : 0o644);
    }
  }
}

let fixture: ExecutorFixture;
let program: (root: string) => void = () => undefined;
let salt = 0;

beforeAll(async () => {
  fixture = await ExecutorFixture.create({
    withFileCache: true,
    programs: {
      go: ({ spec }) => {
        program(spec.inputRootPath);
        return 0;
      },
    },
  });
});
afterAll(() => fixture[Symbol.asyncDispose]());

test("execute() gives an action its inputs and reports its outputs as the naive model says", async () => {
  const seed = Date.now() & 0x7fffffff;
  console.log(`random-actions.test.ts: seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(nodes, nodes, fc.array(path, { maxLength: 3 }), fc.array(path, { maxLength: 5 }), check),
    { seed, numRuns: 60 },
  );
});

async function check(
  inputs: (readonly [string, Node])[],
  additions: (readonly [string, Node])[],
  removals: string[],
  outputs: string[],
): Promise<void> {
  const before = grow(new Map([["", { kind: "directory" } as Node]]), inputs);
  const spec = toSpec(before);
  // Parents of outputs exist before the action runs, unless an input is in the way.
  const parents = outputs.map((output) => output.split("/").slice(0, -1).join("/")).filter((parent) => parent !== "");
  const prepared = new Map(before);
  for (const parent of parents) {
    const names = parent.split("/");
    for (let length = 1; length <= names.length; length++) {
      const at = names.slice(0, length).join("/");
      if ((prepared.get(at)?.kind ?? "directory") !== "directory") break;
      prepared.set(at, { kind: "directory" });
    }
  }
  const after = new Map(prepared);
  for (const removal of removals) {
    for (const where of after.keys()) if (where === removal || where.startsWith(`${removal}/`)) after.delete(where);
  }
  grow(after, additions);
  let seen: Model = new Map();
  program = (root) => {
    seen = look(root);
    apply(root, prepared, after);
  };
  const job = await fixture.build.job({
    command: { arguments: ["go"], outputPaths: outputs },
    inputs: await fixture.build.tree(spec),
    action: { salt: Buffer.from(String(salt++)) },
  });
  const { status, result } = await fixture.run(job);

  expect(sorted(seen)).toEqual(sorted(prepared));
  const blocked = outputs.some((output) =>
    output
      .split("/")
      .slice(0, -1)
      .some((_, i, names) => {
        const parent = names.slice(0, i + 1).join("/");
        return after.get(parent)?.kind === "symlink";
      }),
  );
  if (blocked) {
    expect(status?.message).toContain("is a symlink");
    return;
  }
  expect(status).toBeUndefined();
  for (const output of new Set(outputs)) expect(await reported(result!, output)).toEqual(sorted(below(after, output)));
}

/** What the model has at `output` and below it, by paths relative to it. */
function below(model: Model, output: string): Model {
  const found: Model = new Map();
  for (const [where, what] of model) {
    if (where === output) found.set("", what);
    if (where.startsWith(`${output}/`)) found.set(where.slice(output.length + 1), what);
  }
  return found;
}

/** The same from the result's messages. */
async function reported(result: ActionResult, output: string): Promise<[string, Node][]> {
  const found: Model = new Map();
  for (const file of result.outputFiles) {
    if (file.path !== output) continue;
    found.set("", { kind: "file", content: await fixture.text(file.digest), isExecutable: file.isExecutable });
  }
  for (const { path: at, target } of result.outputSymlinks)
    if (at === output) found.set("", { kind: "symlink", target });
  for (const directory of result.outputDirectories) {
    if (directory.path !== output) continue;
    const tree: Tree = await fixture.tree(directory.treeDigest);
    const children = new Map(
      await Promise.all(tree.children.map(async (child) => [await hashOf(child), child] as const)),
    );
    await walk(tree.root!, children, "", found);
  }
  return sorted(found);
}

async function walk(directory: Directory, children: Map<string, Directory>, at: string, found: Model): Promise<void> {
  found.set(at, { kind: "directory" });
  const join = (name: string) => (at === "" ? name : `${at}/${name}`);
  for (const { name, digest, isExecutable } of directory.files) {
    found.set(join(name), { kind: "file", content: await fixture.text(digest), isExecutable });
  }
  for (const { name, target } of directory.symlinks) found.set(join(name), { kind: "symlink", target });
  for (const { name, digest } of directory.directories) {
    await walk(children.get(digest!.hash)!, children, join(name), found);
  }
}

async function hashOf(directory: Directory): Promise<string> {
  const { Directory: codec } = await import("../../src/proto/remote_execution.ts");
  return (await fixture.build.blob(codec.encode(directory))).hash;
}
