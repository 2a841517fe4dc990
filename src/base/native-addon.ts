// Loads the packages that bring native code (lmdb, @napi-rs/blake-hash) and the data files of packages (blake3's wasm).
//
// From source this is `require` and a file in node_modules. The executable has no such folder: build.ts replaces this
// module by a table of the bundled packages, whose files embedded-assets.ts extracts. It finds what to bundle by looking
// for the calls, so the arguments are always string literals. Both ways load the mended add-ons of addon-mends.ts.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type AddonMend, addonMend, mendAddon } from "./addon-mends.ts";

const require = createRequire(import.meta.url);

/** Returns the exports of package `name`. Throws when it is not installed or its native code does not load here. */
export function requireFromHere(name: string): unknown {
  const mend = addonMend(name);
  if (mend !== undefined) loadMended(createRequire(require.resolve(name)), mend);
  return require(name) as unknown;
}

/** The bytes of a file that a package brings, named `package/path/in/it`. */
export function readPackageFile(path: string): Uint8Array {
  return readFileSync(require.resolve(path));
}

/** Loads a mended copy in the place of the file, where the package's own `require` finds it. */
function loadMended(requireOfPackage: NodeJS.Require, mend: AddonMend): void {
  const path = requireOfPackage.resolve(mend.file);
  if (requireOfPackage.cache[path] !== undefined) return;
  const content = mendAddon(readFileSync(path), mend);
  try {
    loadCopy(requireOfPackage, { path, content, parent: tmpdir() });
  } catch {
    // mounted noexec, or full
    loadCopy(requireOfPackage, { path, content, parent: dirname(path) });
  }
}

function loadCopy(
  requireOfPackage: NodeJS.Require,
  { path, content, parent }: { readonly path: string; readonly content: Uint8Array; readonly parent: string },
): void {
  const folder = mkdtempSync(join(parent, "ledge-addon-"));
  try {
    const copy = join(folder, "mended.node");
    writeFileSync(copy, content);
    requireOfPackage(copy);
    requireOfPackage.cache[path] = requireOfPackage.cache[copy];
    delete requireOfPackage.cache[copy];
  } finally {
    rmSync(folder, { recursive: true }); // what is loaded stays
  }
}
