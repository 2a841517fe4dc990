// Where the file of a worker thread lies. The only way to name one, because the executable has no source tree.
//
// build.ts finds the names by looking for the calls, so the argument is always a string literal.

import { join } from "node:path";
import { assetDirectory } from "./embedded-assets.ts";
import { runsAsExecutable } from "./self.ts";

/**
 * Returns the file of the worker `name`, a path below src/ without its ending: `workerFile("compute/hash-worker")` is
 * src/compute/hash-worker.ts as a URL, or the path of the bundled worker that the executable extracted.
 */
export function workerFile(name: string): URL | string {
  if (runsAsExecutable) return join(assetDirectory(), workerAssetName(name));
  return new URL(`../${name}.ts`, import.meta.url);
}

/** The asset build.ts stores the bundle of worker `name` under. */
export function workerAssetName(name: string): string {
  return `${name.replaceAll("/", "-")}.mjs`;
}
