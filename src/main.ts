// The entry of the process, from source and in the executable alike.
//
// Invariant: the size of libuv's thread pool is decided before anything uses the pool, which fixes its size for good.
// Everything else is loaded afterwards, so that `--version` and the runner start without the server.

// 16: LMDB's commits and every file call share this pool, and four blocked file calls (libuv's default size) would
// stall the commits. Imports run before statements, which is why there are no static ones with an effect here.
process.env["UV_THREADPOOL_SIZE"] ??= "16";

const { assertNodeVersion } = await import("./base/node-version.ts");
assertNodeVersion();
const { runCommandLine } = await import("./cli/command-line.ts");
process.exitCode = await runCommandLine(process.argv.slice(2));
