// A process that becomes an ordinary user and runs hostile cases by name: the child's side of ordinary-user-cases.ts.

import { HOSTILE_CASES } from "./hostile-cases.ts";
import type { CaseResult } from "./ordinary-user-cases.ts";
import { SandboxWorld } from "./sandbox-world.ts";

const [uidText = "", folder = ""] = process.argv.slice(2);
const uid = Number(uidText);
process.setgroups?.([]);
process.setgid?.(uid);
process.setuid?.(uid);
process.env["TMPDIR"] = folder;

const world = await SandboxWorld.create();
process.on("message", (name: string) => void answer(name)); // never rejects
process.once("disconnect", () => void world[Symbol.asyncDispose]().then(() => process.exit(0)));
send({ name: "ready", error: undefined });

async function answer(name: string): Promise<void> {
  try {
    await HOSTILE_CASES.find((candidate) => candidate.name === name)!.run(world);
    send({ name, error: undefined });
  } catch (error) {
    send({ name, error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
}

function send(result: CaseResult): void {
  if (process.connected) process.send?.(result);
}
