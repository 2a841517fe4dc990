// A process that holds a runner for a test which needs it under another user: runs arrive over Node's IPC channel.

import { startRunner } from "../../src/runner/runner-client.ts";
import type { PreparedView, RunSpec } from "../../src/runner/runner.ts";
import { createLogger } from "../../src/telemetry/log.ts";

type RunRequest = Extract<HostRequest, { readonly type: "run" }>;

export type HostRequest =
  | { readonly type: "run"; readonly id: number; readonly spec: RunSpec; readonly isAborted: boolean }
  | { readonly type: "abort"; readonly id: number }
  | { readonly type: "prepare"; readonly view: PreparedView }
  | { readonly type: "close" };

const [buildRootPath = "", sandbox = "own", uidText = ""] = process.argv.slice(2);
if (uidText !== "") {
  const uid = Number(uidText);
  process.setgroups?.([]);
  process.setgid?.(uid);
  process.setuid?.(uid);
}
const started = await startRunner({
  sandbox: sandbox === "none" || sandbox === "bwrap" ? sandbox : "own",
  buildRootPath,
  slots: 4,
  logger: createLogger({ level: "error", format: "text" }),
});
if (!started.available) {
  process.send?.({ type: "unavailable", reason: `${started.reason}; ${started.remedy}` });
  process.exit(0);
}
const { runner } = started;
const aborts = new Map<number, AbortController>();
process.on("message", (request: HostRequest) => {
  if (request.type === "run") void run(request);
  else if (request.type === "prepare") runner.prepare?.(request.view);
  else if (request.type === "abort") aborts.get(request.id)?.abort();
  else void runner.close().then(() => process.exit(0));
});
process.send?.({ type: "ready", owners: [0, 1, 2, 3].map((slot) => runner.ownerOf(slot)) });

async function run({ id, spec, isAborted }: RunRequest): Promise<void> {
  const abort = new AbortController();
  if (isAborted) abort.abort();
  aborts.set(id, abort);
  try {
    process.send?.({ type: "result", id, result: await runner.run(spec, { signal: abort.signal }) });
  } catch (error) {
    process.send?.({ type: "lost", id, message: String(error) });
  }
}
