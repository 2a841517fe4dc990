// The words that the cases of hostile-cases.ts are written in: how a command is given, what it may use, how it ends.

import type { RunSpec } from "../../src/runner/runner.ts";

export const sh = (script: string) => ["sh", "-c", script];
export const python = (script: string) => ["python3", "-c", script];
export const exited = (exitCode: number) => ({ kind: "exited", exitCode }) as const;
export const limits = (overrides: Partial<RunSpec["limits"]>) => ({
  limits: { timeoutMs: 60_000, maxLogBytes: 1 << 20, ...overrides },
});
export const variable = (name: string, value: string): Partial<RunSpec> => ({
  environment: [
    { name: "PATH", value: "/usr/local/bin:/usr/bin:/bin" },
    { name, value },
  ],
});

/** Calls a function of libc by its system call number and prints the error's name. */
export const systemCall = (numbers: Readonly<Record<string, number>>, ...rest: readonly number[]) =>
  python(
    `import ctypes, errno; l = ctypes.CDLL(None, use_errno=True); ` +
      `r = l.syscall(${[numbers[process.arch] ?? -1, ...rest].join(", ")}); ` +
      `print("OK" if r >= 0 else errno.errorcode[ctypes.get_errno()])`,
  );
