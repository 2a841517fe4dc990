// Builds dist/ledge: the sources, the packages they use, their native add-ons and Node itself as one executable.
//
// esbuild bundles src/main.ts and every worker file; `node --build-sea` puts the main bundle and the other files (as
// assets) into a stripped copy of Node. src/base/embedded-assets.ts is the other half: it extracts the assets at run time.
// What to embed is found by looking for calls of workerFile(), requireFromHere() and readPackageFile() in src/.
// Run with `npm run build`.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, globSync, mkdirSync, readFileSync } from "node:fs";
import { renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { basename, dirname, join } from "node:path";
import { build, type BuildOptions, type Plugin } from "esbuild";
import { freeFromLibatomic } from "./deploy/own-atomic.ts";
import { addonMend, mendAddon } from "./src/base/addon-mends.ts";
import { assertNodeVersion } from "./src/base/node-version.ts";
import { formatBytes } from "./src/base/units.ts";
import { workerAssetName } from "./src/base/worker-file.ts";
import { readBuildInfo } from "./src/cli/version.ts";

const root = import.meta.dirname;
const require = createRequire(import.meta.url);

/** The .node file of each package with native code; the name it has as an asset is its last part. */
const ADDONS: Readonly<Record<string, string>> = {
  lmdb: addonMend("lmdb")?.file ?? "",
  "@napi-rs/blake-hash": `@napi-rs/blake-hash-linux-${process.arch}-gnu/blake.linux-${process.arch}-gnu.node`,
};

/** Optional accelerators of our dependencies: native code we do not carry. Both fall back when `require` throws. */
const LEFT_OUT = ["msgpackr-extract", "@napi-rs/nice"];

async function buildExecutable(): Promise<void> {
  const startedAtMs = performance.now();
  const scratch = join(root, "dist", `build-${process.pid}.tmp`);
  mkdirSync(scratch, { recursive: true });
  try {
    execFileSync(process.execPath, [join(root, "protos", "generate.ts")], { stdio: ["ignore", "ignore", "inherit"] });
    const assets = await collectAssets(scratch);
    const main = join(scratch, "main.mjs");
    await bundle({ entryPoints: [join(root, "src", "main.ts")], outfile: main, format: "esm" });
    const output = join(scratch, "ledge");
    buildSea({ main, assets, output, scratch });
    const target = join(root, "dist", "ledge");
    renameSync(output, target);
    const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
    process.stdout.write(`dist/ledge: ${formatBytes(statSync(target).size)} in ${seconds} s\n`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Writes the worker bundles and the manifest into `scratch`; returns asset name → file. */
async function collectAssets(scratch: string): Promise<Map<string, string>> {
  const assets = new Map<string, string>();
  for (const [name, path] of Object.entries(ADDONS)) assets.set(basename(path), addonAsset(name, path, scratch));
  for (const path of literalArguments("readPackageFile")) assets.set(basename(path), require.resolve(path));
  for (const name of literalArguments("workerFile")) {
    const outfile = join(scratch, workerAssetName(name));
    await bundle({ entryPoints: [join(root, "src", `${name}.ts`)], outfile, format: "esm" });
    assets.set(basename(outfile), outfile);
  }
  const piscinaWorker = join(scratch, "piscina-worker.cjs");
  const entryPoints = [join(dirname(require.resolve("piscina")), "worker.js")];
  await bundle({ entryPoints, outfile: piscinaWorker, format: "cjs" });
  assets.set(basename(piscinaWorker), piscinaWorker);

  const manifest = join(scratch, "manifest.json");
  const probe = basename(ADDONS["lmdb"] ?? "");
  writeFileSync(manifest, JSON.stringify({ contentHash: hashOf(assets), files: [...assets.keys()], probe }));
  return assets.set("manifest.json", manifest);
}

/** The add-on's file, or a mended copy of it in `scratch`. */
function addonAsset(packageName: string, path: string, scratch: string): string {
  const file = require.resolve(path);
  const mend = addonMend(packageName);
  if (mend === undefined) return file;
  const copy = join(scratch, basename(path));
  writeFileSync(copy, mendAddon(readFileSync(file), mend));
  return copy;
}

/** Every string that the sources pass to `callee`. */
function literalArguments(callee: string): string[] {
  const found = new Set<string>();
  for (const path of globSync("{src,native-free-bench}/**/*.ts", { cwd: root })) {
    // base/ declares these functions; its comments show calls that are none.
    if (path.startsWith(join("src", "base"))) continue;
    const text = readFileSync(join(root, path), "utf8");
    for (const match of text.matchAll(new RegExp(`\\b${callee}\\(\\s*"([^"]+)"`, "g"))) found.add(match[1] ?? "");
  }
  return [...found].toSorted();
}

function hashOf(assets: ReadonlyMap<string, string>): string {
  const hash = createHash("sha256");
  for (const [name, path] of assets) {
    const content = readFileSync(path);
    hash.update(`${name} ${content.length}\n`).update(content);
  }
  return hash.digest("hex").slice(0, 32);
}

async function bundle(options: BuildOptions): Promise<void> {
  const { metafile } = await build({
    bundle: true,
    metafile: true,
    platform: "node",
    target: "node26",
    // Names stay, so that stack traces can be read; minifying would save 0.5 % of the executable.
    keepNames: true,
    legalComments: "eof",
    logLevel: "warning",
    ...options,
    // Bundled CommonJS packages ask for Node's own modules with `require`.
    ...(options.format === "esm"
      ? { banner: { js: `const require = process.getBuiltinModule("module").createRequire(process.execPath);` } }
      : {}),
    define: { LEDGE_BUILD_INFO: JSON.stringify(readBuildInfo()) },
    plugins: [embedPackages],
  });
  const left = Object.values(metafile?.outputs ?? {}).flatMap(({ imports }) => imports);
  // There is nothing beside the executable, and with compiled code in it import() does not even find Node's own modules.
  const wrong = left.filter(({ kind, path }) => kind === "dynamic-import" || !isBuiltin(path));
  if (wrong.length > 0) throw new Error(`the bundle still imports ${wrong.map(({ path }) => path).join(", ")}`);
}

/** Replaces the places where sources and packages look for files beside themselves by the extracted assets. */
const embedPackages: Plugin = {
  name: "embed-packages",
  setup(builder) {
    const assetsModule = JSON.stringify(join(root, "src", "base", "embedded-assets.ts"));
    const resolveDir = root;

    builder.onLoad({ filter: /src\/base\/native-addon\.ts$/ }, () => {
      const table = literalArguments("requireFromHere").map(
        (name) => `${JSON.stringify(name)}: () => require("${name}")`,
      );
      const contents = `
        import { join } from "node:path";
        import { readFileSync } from "node:fs";
        import { assetDirectory } from ${assetsModule};
        const packages = { ${table.join(", ")} };
        export function requireFromHere(name) {
          if (!(name in packages)) throw new Error("package " + name + " is not part of this executable");
          return packages[name]();
        }
        export function readPackageFile(path) {
          return readFileSync(join(assetDirectory(), path.slice(path.lastIndexOf("/") + 1)));
        }`;
      return { contents, resolveDir };
    });

    // lmdb finds its add-on with this package; so does msgpackr-extract, which is left out below.
    builder.onResolve({ filter: /^node-gyp-build-optional-packages$/ }, () => ({ path: "lmdb", namespace: "addon" }));
    // The ES module entry: the CommonJS one wants __filename.
    builder.onResolve({ filter: /^lmdb$/ }, () => ({ path: join(root, "node_modules", "lmdb", "node-index.js") }));
    builder.onResolve({ filter: /^@napi-rs\/blake-hash$/ }, ({ path }) => ({ path, namespace: "addon" }));
    builder.onLoad({ filter: /.*/, namespace: "addon" }, ({ path }) => {
      const open = `require(${assetsModule}).openAddon(${JSON.stringify(basename(ADDONS[path] ?? ""))})`;
      return { contents: `module.exports = ${path === "lmdb" ? `() => ${open}` : open};`, resolveDir };
    });

    builder.onResolve({ filter: new RegExp(`^(${LEFT_OUT.join("|")})$`) }, ({ path }) => ({
      path,
      namespace: "left-out",
    }));
    builder.onLoad({ filter: /.*/, namespace: "left-out" }, ({ path }) => ({
      contents: `throw new Error("${path} is left out of this executable");`,
    }));

    builder.onLoad({ filter: /piscina\/dist\/index\.js$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      const worker = "(0, node_path_1.resolve)(__dirname, 'worker.js')";
      if (text.split(worker).length !== 2) throw new Error(`${path} no longer names its worker as ${worker}`);
      const extracted = `(0, node_path_1.join)(require(${assetsModule}).assetDirectory(), "piscina-worker.cjs")`;
      return { contents: text.replace(worker, extracted), resolveDir: dirname(path) };
    });

    // Each worker file brings its own piscina beside the one that runs it, and what one marks with move() the other must
    // know: unknown, an answer arrives as an empty object.
    builder.onLoad({ filter: /piscina\/dist\/symbols\.js$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      const own = "Symbol('Piscina.kMovable')";
      if (text.split(own).length !== 2) throw new Error(`${path} no longer has ${own}`);
      return { contents: text.replace(own, "Symbol.for('Piscina.kMovable')"), resolveDir: dirname(path) };
    });
  },
};

interface SeaInput {
  readonly main: string;
  readonly assets: ReadonlyMap<string, string>;
  readonly output: string;
  readonly scratch: string;
}

function buildSea({ main, assets, output, scratch }: SeaInput): void {
  const config = join(scratch, "sea.json");
  writeFileSync(
    config,
    JSON.stringify({
      main,
      mainFormat: "module",
      executable: strippedNode(scratch),
      output,
      disableExperimentalSEAWarning: true,
      // 80 instead of 110 ms of CPU until --version is answered. It forbids import() of files, of which the bundle has none.
      useCodeCache: true,
      // The default would obey NODE_OPTIONS, and a CI that sets it for its own Node would stop ledge from starting.
      execArgvExtension: "none",
      assets: Object.fromEntries(assets),
    }),
  );
  execFileSync(process.execPath, ["--build-sea", config], {
    stdio: ["ignore", "ignore", "inherit"],
    env: withoutNodeOptions(),
  });
  const executable = readFileSync(output);
  if (freeFromLibatomic(executable)) writeFileSync(output, executable);
  chmodSync(output, 0o755);
}

/** A copy of Node without symbols. Stripping comes first: a stripped single executable no longer finds its program. */
function strippedNode(scratch: string): string {
  const copy = join(scratch, "node");
  copyFileSync(process.execPath, copy);
  chmodSync(copy, 0o755);
  if (["/usr/bin/strip", "/bin/strip"].some((path) => existsSync(path))) execFileSync("strip", [copy]);
  else
    process.stderr.write(
      "strip is not installed (apt-get install binutils): the executable keeps Node's symbols, 30 MB\n",
    );
  return copy;
}

function withoutNodeOptions(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, ...rest } = process.env;
  return rest;
}

assertNodeVersion();
await buildExecutable();
