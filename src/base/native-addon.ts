// Loads the packages that bring native code (lmdb, @napi-rs/blake-hash) and the data files of packages (blake3's wasm).
//
// From source this is `require` and a file in node_modules. The executable has no such folder: build.ts replaces this
// module by a table of the bundled packages, whose files embedded-assets.ts extracts. It finds what to bundle by looking
// for the calls, so the arguments are always string literals.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** Returns the exports of package `name`. Throws when it is not installed or its native code does not load here. */
export function requireFromHere(name: string): unknown {
  return require(name) as unknown;
}

/** The bytes of a file that a package brings, named `package/path/in/it`. */
export function readPackageFile(path: string): Uint8Array {
  return readFileSync(require.resolve(path));
}
