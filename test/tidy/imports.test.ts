// Imports point the way a request travels, and each third-party package has one home folder.

import { describe, expect, test } from "vitest";
import { importsOf, read, sourceFiles, tableBelow } from "./source-tree.ts";

const EVERYTHING = "everything";

/** What each folder of src/ may import besides itself: DESIGN.md section 7, and the first table of ARCHITECTURE.md. */
const MAY_IMPORT: Readonly<Record<string, readonly string[] | typeof EVERYTHING>> = {
  "main.ts": EVERYTHING,
  cli: EVERYTHING,
  server: EVERYTHING,
  services: ["scheduler", "action-cache", "cas", "runner", "compute", "grpc", "digest", "telemetry", "proto", "base"],
  "http-cache": ["action-cache", "cas", "digest", "telemetry", "proto", "base"],
  upstream: ["cas", "action-cache", "runner", "digest", "telemetry", "proto", "base"],
  scheduler: ["worker", "action-cache", "digest", "telemetry", "proto", "base"],
  worker: ["action-cache", "cas", "runner", "digest", "telemetry", "proto", "base"],
  runner: ["sandbox", "proto", "telemetry", "base"],
  sandbox: ["telemetry", "base"],
  "action-cache": ["cas", "kv", "digest", "telemetry", "proto", "base"],
  cas: ["kv", "compute", "digest", "telemetry", "proto", "base"],
  compute: ["digest", "telemetry", "base"],
  kv: ["telemetry", "base"],
  grpc: ["http2", "telemetry", "base"],
  http2: ["telemetry", "base"],
  digest: ["proto", "base"],
  telemetry: ["base"],
  proto: [],
  base: [],
};

/** The folder that knows each package; nothing else of src/ may import it. */
const PACKAGE_HOMES: Readonly<Record<string, string>> = {
  lmdb: "kv",
  piscina: "compute",
  "@napi-rs/blake-hash": "compute",
  blake3: "compute",
  protobufjs: "proto",
  "@grpc/grpc-js": "upstream",
};

/** What may use the HTTP/2 and message codecs from outside: it must run where no native add-on loads. */
const BENCH_MAY_IMPORT = ["http2", "proto", "digest", "base"];

/** Plain JavaScript without native code: plots inlined into reports, the second client, micro-benchmarks. */
const BENCH_PACKAGES = ["uplot", "@grpc/grpc-js", "tinybench"];

const product = sourceFiles().filter((path) => path.startsWith("src/"));

function folderOf(path: string): string {
  return path.split("/")[1] ?? "";
}

describe("imports of src/", () => {
  test("go only where the table allows", () => {
    const wrong = product.flatMap((path) => {
      const from = folderOf(path);
      const allowed = MAY_IMPORT[from];
      return importsOf(path)
        .filter(({ kind, target }) => kind === "file" && target.startsWith("src/"))
        .filter(({ target }) => folderOf(target) !== from && !mayImport(allowed, folderOf(target)))
        .map(({ target }) => `${path} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  // "Everything below" for server/ does not mean cli/.
  test("go from nowhere but main.ts to cli/, and from nowhere but cli/ to server/", () => {
    const wrong = product
      .filter((path) => folderOf(path) !== "main.ts" && folderOf(path) !== "cli")
      .flatMap((path) => importsOf(path).map(({ target }) => ({ path, target })))
      .filter(({ path, target }) => {
        const to = folderOf(target);
        return target.startsWith("src/") && (to === "cli" || (to === "server" && folderOf(path) !== "server"));
      });
    expect(wrong).toEqual([]);
  });

  test("reach packages only from their home folder", () => {
    const wrong = product.flatMap((path) =>
      importsOf(path)
        .filter(({ kind, target }) => kind === "package" && PACKAGE_HOMES[target] !== folderOf(path))
        .map(({ target }) => `${path} imports ${target}, whose home is ${PACKAGE_HOMES[target] ?? "not known"}`),
    );
    expect(wrong).toEqual([]);
  });

  test("name files that exist", () => {
    const files = new Set(sourceFiles());
    const wrong = [...files].flatMap((path) =>
      importsOf(path)
        .filter(({ kind, target }) => kind === "file" && target.endsWith(".ts") && !target.startsWith("src/proto/"))
        .filter(({ target }) => !files.has(target))
        .map(({ target }) => `${path} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });
});

function mayImport(allowed: readonly string[] | typeof EVERYTHING | undefined, folder: string): boolean {
  return allowed === EVERYTHING || allowed?.includes(folder) === true;
}

describe("imports of native-free-bench/", () => {
  const bench = sourceFiles().filter((path) => path.startsWith("native-free-bench/"));

  test("reach no native code, and of src/ only the codecs", () => {
    const wrong = bench.flatMap((path) =>
      importsOf(path)
        .filter(({ kind, target }) =>
          kind === "package"
            ? !BENCH_PACKAGES.includes(target)
            : target.startsWith("src/") && !BENCH_MAY_IMPORT.includes(folderOf(target)),
        )
        .map(({ target }) => `${path} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  test("come only from cli/", () => {
    const users = product.filter((path) =>
      importsOf(path).some(({ target }) => target.startsWith("native-free-bench/")),
    );
    expect(users.filter((path) => folderOf(path) !== "cli")).toEqual([]);
  });
});

describe("ARCHITECTURE.md", () => {
  test("has the folders and what they may import", () => {
    const rows = tableBelow("ARCHITECTURE.md", "Folders").map(([folder = "", , mayImport = ""]) => [folder, mayImport]);
    const described = Object.fromEntries(
      rows.flatMap(([folder = "", mayImport = ""]) =>
        [...folder.matchAll(/`([^`]+?)\/?`/g)].map((match) => [match[1] ?? "", mayImport]),
      ),
    );
    const expected = Object.entries(MAY_IMPORT).map(([folder, allowed]) => [
      folder,
      allowed === EVERYTHING ? "everything below" : allowed.length === 0 ? "–" : allowed.join(", "),
    ]);
    expect(described).toEqual(Object.fromEntries(expected));
  });

  test("has every dependency of package.json, with its home", () => {
    const { dependencies } = JSON.parse(read("package.json")) as { dependencies: Record<string, string> };
    const rows = tableBelow("ARCHITECTURE.md", "Dependencies").map(([name = "", home = ""]) => [
      name.replaceAll("`", ""),
      home.replaceAll(/[`/]/g, ""),
    ]);
    const expected = Object.keys(dependencies).map((name) => [name, PACKAGE_HOMES[name] ?? "?"]);
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(expected));
  });
});
