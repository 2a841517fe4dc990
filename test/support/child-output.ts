// Runs a program to its end and returns what it wrote; for the real clients that tests start.

import { spawn } from "node:child_process";

export interface ChildOutput {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsedMs: number;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to this process's environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly stdin?: string | Uint8Array;
  /** The child is killed after this time; the default is generous, since a hang is what it is for. */
  readonly timeoutMs?: number;
}

/** Resolves when the program has ended, whatever its exit code; rejects when it cannot be started. */
export async function runToEnd(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<ChildOutput> {
  const startedAt = performance.now();
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
    timeout: options.timeoutMs ?? 240_000,
    killSignal: "SIGKILL",
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on("error", () => undefined); // a program that does not read its input is no failure of ours
  child.stdin.end(options.stdin ?? "");
  const { promise, resolve, reject } = Promise.withResolvers<ChildOutput>();
  child.on("error", reject);
  child.on("close", (exitCode, signal) => {
    resolve({
      exitCode,
      signal,
      stdout: Buffer.concat(stdout).toString(),
      stderr: Buffer.concat(stderr).toString(),
      elapsedMs: performance.now() - startedAt,
    });
  });
  return promise;
}

/** As runToEnd(), but rejects with everything the program said unless it exits with 0. */
export async function runOrThrow(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<ChildOutput> {
  const output = await runToEnd(program, args, options);
  if (output.exitCode !== 0) {
    const how = output.signal === null ? `exit code ${output.exitCode}` : output.signal;
    throw new Error(`${program} ${args.join(" ")} ended with ${how}:\n${output.stdout}\n${output.stderr}`);
  }
  return output;
}
