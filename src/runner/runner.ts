// The seam of the runner: runs one process in isolation and says how it ended. Knows no REAPI.
//
// Implementations: the client of our runner process (runner/runner-client.ts), and a fake one in tests. Every one runs
// test/runner/runner-contract.ts. `run` resolves only when everything the action started is dead (settled).

export interface RunSpec {
  /** For logs and for naming what the run leaves behind; unique among running ones. */
  readonly id: string;
  /** 0-based; the slot's unprivileged uid and directories belong to this run until it resolves. */
  readonly slot: number;
  /** Absolute host path of the materialized input root; writable inside the sandbox. */
  readonly inputRootPath: string;
  /** How the file system looks: host tools with the input root at a fixed path, or the input root as `/`. */
  readonly rootMode: "host" | "input-root" | { readonly image: string };
  /** Absolute host paths bound read-only inside (or writable when the operator said so). */
  readonly mounts: readonly Mount[];
  readonly arguments: readonly string[];
  /** Exactly what the process sees, defaults included. */
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Relative to the input root; "" is the input root itself. */
  readonly workingDirectory: string;
  /** Absolute host paths of files the runner creates for the output streams. */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  readonly network: "none" | "host";
  readonly limits: RunLimits;
  readonly unixUid?: number;
  readonly unixGid?: number;
}

export interface Mount {
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
  readonly optional: boolean;
}

export interface RunLimits {
  readonly timeoutMs: number;
  /** stdout and stderr together; beyond it the run is killed. */
  readonly maxLogBytes: number;
  readonly memoryBytes?: number;
  readonly maxPids?: number;
  readonly diskBytes?: number;
}

export interface RunResult {
  readonly outcome: RunOutcome;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly usage: ResourceUsage;
}

export type RunOutcome =
  /** The command ended by itself; 128 + n for signal n. */
  | { readonly kind: "exited"; readonly exitCode: number }
  | { readonly kind: "timeout" }
  | { readonly kind: "cancelled" }
  | { readonly kind: "limit"; readonly limit: "log-bytes" | "disk" | "memory"; readonly message: string }
  /** The command could not be started: absent, not executable, bad working directory. Nothing of it ran. */
  | { readonly kind: "not-started"; readonly message: string }
  /** The sandbox itself failed; the machine's fault, not the action's. */
  | { readonly kind: "sandbox-failed"; readonly message: string };

/** Absent fields could not be measured here. */
export interface ResourceUsage {
  readonly userMs?: number;
  readonly systemMs?: number;
  readonly peakMemoryBytes?: number;
}

export interface Runner {
  /** Aborting `signal` kills everything and resolves as "cancelled". Rejects only when the runner itself is lost. */
  run(spec: RunSpec, options: { readonly signal: AbortSignal }): Promise<RunResult>;
  close(): Promise<void>;
}
