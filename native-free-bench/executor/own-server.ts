// A Ledge of this checkout on an empty store, for a measurement: started from source or as the executable, and ended.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const MAIN = join(import.meta.dirname, "..", "..", "src", "main.ts");

export interface OwnServer extends AsyncDisposable {
  readonly address: string;
  readonly pid: number;
}

/** `program`: an executable to measure in place of the sources. */
export async function startOwnServer(options: {
  readonly slots: number;
  readonly program: string | undefined;
}): Promise<OwnServer> {
  const folder = mkdtempSync(join(tmpdir(), "ledge-executor-"));
  const portFile = join(folder, "port");
  const { program, slots } = options;
  const [command, ...first] = program === undefined ? [process.execPath, MAIN] : [program];
  const flags = ["serve", "--listen", "127.0.0.1:0", "--port-file", portFile, "--data-dir", join(folder, "data")];
  const child = spawn(
    command!,
    [...first, ...flags, "--slots", String(slots), "--sandbox", "require", "--log-level", "warn"],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const close = async (): Promise<void> => {
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  for (let attempt = 0; attempt < 600; attempt++) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}; its message is above`);
    const address = readOrNothing(portFile);
    if (address !== undefined) return { address, pid: child.pid!, [Symbol.asyncDispose]: close };
    await sleep(50);
  }
  await close();
  throw new Error("the server did not start within 30 s");
}

/** Written once the server accepts connections. */
function readOrNothing(portFile: string): string | undefined {
  try {
    return readFileSync(portFile, "utf8").split("\n")[0];
  } catch {
    return undefined;
  }
}
