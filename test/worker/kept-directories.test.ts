// Input directories that stay for the next action: whatever an action does to its input root, the next one finds what
// its own digest says, and what nobody touched is not made again.

import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { blindMs } from "../../src/worker/directory-stamp.ts";
import { ExecutorFixture } from "./executor-fixture.ts";
import { grow, look, sorted, toSpec, type Model, type Node } from "./naive-tree.ts";

let fixture: ExecutorFixture;
let program: (root: string) => void = () => undefined;
let salt = 0;

afterEach(() => fixture[Symbol.asyncDispose]());

async function open(withFileCache: boolean): Promise<void> {
  const go = ({ spec }: { readonly spec: { readonly inputRootPath: string } }) => {
    program(spec.inputRootPath);
    return 0;
  };
  fixture = await ExecutorFixture.create({ withFileCache, programs: { go } });
}

/** Runs an action that does `tamper`; returns what it found and the inodes of all directories. */
async function act(model: Model, tamper: (root: string) => void, outputs: readonly string[] = []) {
  let seen: Model = new Map();
  const inodes = new Map<string, number>();
  program = (root) => {
    seen = look(root);
    for (const [path, { kind }] of seen) if (kind === "directory") inodes.set(path, lstatSync(`${root}/${path}`).ino);
    tamper(root);
  };
  const job = await fixture.build.job({
    command: { arguments: ["go"], outputPaths: outputs },
    inputs: await fixture.build.tree(toSpec(model)),
    action: { salt: Buffer.from(String(salt++)) },
  });
  const { status } = await fixture.run(job);
  // Of an output whose parent the action replaced.
  if (status !== undefined) expect(status.message).toContain("is a symlink");
  return { seen, inodes };
}

/** Three directories of ten files, the first with two more inside, and a content that occurs twice. */
function sources(changes: readonly (readonly [string, Node])[] = []): Model {
  const model: Model = new Map([["", { kind: "directory" }]]);
  const paths = ["a", "a/inner", "a/other", "b", "c"].flatMap((directory) =>
    Array.from({ length: 10 }, (_, index) => `${directory}/f${index}`),
  );
  const file = (content: string): Node => ({ kind: "file", content, isExecutable: false });
  const additions = paths.map((path) => [path, file(`content of ${path}`)] as const);
  grow(model, [
    ["b/same", file("twice")],
    ["c/same", file("twice")],
    ["c/link", { kind: "symlink", target: "f1" }],
  ]);
  grow(model, additions);
  for (const [path, node] of changes) model.set(path, node);
  return model;
}

const nothing = () => undefined;

/** A directory that symlinks lead to, of this test alone: later tampering goes through them. */
function outside(): string {
  const path = `${fixture.execPath}-outside`;
  mkdirSync(path, { recursive: true });
  for (const name of ["f1", "f2"]) writeFileSync(`${path}/${name}`, "not an input");
  return path;
}

/** Where the clock of changes is coarse, what was made right before an action began is not kept. */
function expectKept(paths: readonly string[], before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>) {
  if (blindMs(fixture.execPath) > 0) return;
  for (const path of paths) expect([path, after.get(path)]).toEqual([path, before.get(path)]);
}

for (const withFileCache of [true, false]) {
  const files = withFileCache ? "links" : "copies";

  test(`directories of ${files} that an action left alone are the next action's, the others are made anew`, async () => {
    await open(withFileCache);
    const model = sources();
    const first = await act(model, nothing);
    const second = await act(model, (root) => writeFileSync(`${root}/a/inner/new`, "x"));
    const third = await act(model, nothing);
    expect(sorted(third.seen)).toEqual(sorted(model));
    expectKept(["a", "a/inner", "b", "c"], first.inodes, second.inodes);
    expectKept(["a/other", "b", "c"], first.inodes, third.inodes);
    for (const path of ["a", "a/inner"]) expect(third.inodes.get(path)).not.toBe(first.inodes.get(path));
  });

  test(`of a changed input root the unchanged directories of ${files} are kept`, async () => {
    await open(withFileCache);
    const first = await act(sources(), nothing);
    const changed = sources([["a/inner/f3", { kind: "file", content: "changed", isExecutable: true }]]);
    const second = await act(changed, nothing);
    expect(sorted(second.seen)).toEqual(sorted(changed));
    expectKept(["a/other", "b", "c"], first.inodes, second.inodes);
    expect(second.inodes.get("a/inner")).not.toBe(first.inodes.get("a/inner"));
  });

  // The directory exists on the disk then though the input root has none.
  test(`a directory of ${files} in which an output's parent was made is no input of the next action`, async () => {
    await open(withFileCache);
    await act(sources(), nothing, ["b/made/here/out"]);
    const { seen } = await act(sources(), nothing);
    expect(sorted(seen)).toEqual(sorted(sources()));
  });

  test(`whatever an action does to its ${files}, the next one finds its own inputs`, async () => {
    await open(withFileCache);
    const seed = Date.now() & 0x7fffffff;
    console.log(`kept-directories.test.ts: seed ${seed}`);
    const tamperings = fc.constantFrom(...TAMPERINGS.filter(({ changesFiles }) => !(withFileCache && changesFiles)));
    const step = fc.record({
      tampering: fc.array(tamperings, { maxLength: 2 }),
      target: fc.constantFrom("a", "a/inner", "b", "c"),
      change: fc.option(fc.constantFrom("a/inner/f1", "b/f2", "c/f3", "b/same")),
      content: fc.constantFrom("one", "twice", ""),
      output: fc.option(fc.constantFrom("b/made/out", "c/out", "out")),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 6 }), async (steps) => {
        for (const { tampering, target, change, content, output } of steps) {
          const node: Node = { kind: "file", content, isExecutable: false };
          const model = sources(change === null ? [] : [[change, node]]);
          const tamper = (root: string) => {
            for (const { apply } of tampering) tryTo(() => apply(`${root}/${target}`, root));
          };
          const { seen } = await act(model, tamper, output === null ? [] : [output]);
          if (output === "b/made/out") grow(model, [["b/made", { kind: "directory" }]]);
          expect(sorted(seen)).toEqual(sorted(model));
        }
      }),
      { seed, numRuns: 25 },
    );
  });
}

/** An earlier tampering may have been in the way. */
function tryTo(apply: () => void): void {
  try {
    apply();
  } catch {
    // What an action fails to do changes nothing.
  }
}

interface Tampering {
  /** Impossible where files are links that belong to the server. */
  readonly changesFiles: boolean;
  readonly apply: (directory: string, root: string) => void;
}

const TAMPERINGS: readonly Tampering[] = [
  { changesFiles: false, apply: (at) => writeFileSync(`${at}/new`, "new") },
  { changesFiles: false, apply: (at) => mkdirSync(`${at}/directory`) },
  { changesFiles: false, apply: (at) => unlinkSync(`${at}/f1`) },
  { changesFiles: false, apply: (at) => chmodSync(at, 0o700) },
  {
    changesFiles: false, // replaced, and with the times of before
    apply: (at) => {
      const { atimeMs, mtimeMs } = lstatSync(at);
      unlinkSync(`${at}/f2`);
      writeFileSync(`${at}/f2`, "replaced");
      lutimesSync(at, atimeMs / 1000, mtimeMs / 1000);
    },
  },
  { changesFiles: false, apply: (at, root) => (renameSync(at, `${root}/away`), renameSync(`${root}/away`, at)) },
  { changesFiles: false, apply: (at, root) => (renameSync(at, `${root}/away`), symlinkSync("away", at)) },
  { changesFiles: false, apply: (at, root) => (renameSync(at, `${root}/away`), symlinkSync(outside(), at)) },
  {
    changesFiles: false, // two directories change places
    apply: (at, root) => {
      renameSync(at, `${root}/away`);
      renameSync(`${root}/b`, at);
      renameSync(`${root}/away`, `${root}/b`);
    },
  },
  { changesFiles: false, apply: (at) => (rmSync(at, { recursive: true }), mkdirSync(at)) },
  { changesFiles: false, apply: (at) => (unlinkSync(`${at}/link`), symlinkSync("f2", `${at}/link`)) },
  { changesFiles: false, apply: (at) => void readdirSync(at) },
  { changesFiles: true, apply: (at) => (chmodSync(`${at}/f3`, 0o644), writeFileSync(`${at}/f3`, "overwritten")) },
  { changesFiles: true, apply: (at) => chmodSync(`${at}/f4`, 0o755) },
  {
    changesFiles: true, // the same size, and the times of before
    apply: (at) => {
      const { atimeMs, mtimeMs, size } = lstatSync(`${at}/f5`);
      chmodSync(`${at}/f5`, 0o644);
      writeFileSync(`${at}/f5`, "y".repeat(size));
      chmodSync(`${at}/f5`, 0o444);
      lutimesSync(`${at}/f5`, atimeMs / 1000, mtimeMs / 1000);
    },
  },
  { changesFiles: true, apply: (at, root) => linkSync(`${at}/f6`, `${root}/out`) },
];
