// Runs the harness as a user does, in a process of its own.

import { spawn } from "node:child_process";
import { join } from "node:path";

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly onStdout: (text: string, child: ReturnType<typeof spawn>) => unknown;
}

export async function run(...argv: readonly (string | RunOptions)[]): Promise<Ended> {
  const options = argv.find((value): value is RunOptions => typeof value === "object");
  const texts = argv.filter((value): value is string => typeof value === "string");
  const main = join(import.meta.dirname, "../../native-free-bench/main.ts");
  const child = spawn(process.execPath, [main, ...texts], { stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
    options?.onStdout(stdout, child);
  });
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, stdout, stderr };
}
