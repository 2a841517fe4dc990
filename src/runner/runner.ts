// The seam of the runner: runs one process in isolation and says how it ended. Knows no REAPI.
//
// Implementations: the client of our runner process (runner/runner-client.ts), and a fake one in tests. Every one runs
// test/runner/runner-contract.ts. `run` resolves only when everything the action started is dead (settled): from then on
// nobody but the caller writes below the paths of the spec.

/** Where the input root lies inside, unless the spec says otherwise or it is the root itself. */
export const DEFAULT_INPUT_ROOT_PATH_INSIDE = "/build";

export interface RunSpec {
  /** For logs and for naming what the run leaves behind; unique among running ones. */
  readonly id: string;
  /** 0-based; the slot's unprivileged uid and directories belong to this run until it resolves. */
  readonly slot: number;
  /**
   * Absolute host path of the materialized input root; writable inside the sandbox. The directory and every directory
   * below it that the action may write to belongs to `Runner.ownerOf(slot)` and lies below the runner's build root.
   */
  readonly inputRootPath: string;
  /**
   * How the file system looks: host tools with the input root at a fixed path, the input root as `/` (bwrap then creates
   * `dev`, `proc` and `tmp` in it when they are absent; what is mounted there never reaches the host directories), or an
   * unpacked image (absolute host path of its root directory, seen read-only) with the input root at the fixed path.
   */
  readonly rootMode: "host" | "input-root" | { readonly image: string };
  /** Absolute path of the input root inside; default DEFAULT_INPUT_ROOT_PATH_INSIDE. Ignored for root mode "input-root". */
  readonly inputRootPathInside?: string;
  /** Applied in this order after the input root, so a destination may lie inside it. */
  readonly mounts: readonly Mount[];
  readonly arguments: readonly string[];
  /** Exactly what the process sees, defaults included. */
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Relative to the input root; "" is the input root itself. */
  readonly workingDirectory: string;
  /** Host directory shown as /tmp, owned like the input root. Absent: an in-memory file system that ends with the run. */
  readonly temporaryPath?: string;
  /** Absolute host paths of files the runner creates (they must not exist) for the output streams; a file with nothing in it may be absent. */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  readonly network: "none" | "host";
  readonly limits: RunLimits;
  /** Inside; default 1000, and 0 for root mode "input-root". The host user is always `Runner.ownerOf(slot)`. */
  readonly unixUid?: number;
  readonly unixGid?: number;
}

export interface Mount {
  /** Absolute host path. */
  readonly source: string;
  /** Absolute path inside. */
  readonly destination: string;
  readonly writable: boolean;
  /** An absent source is passed over instead of failing the run. */
  readonly optional: boolean;
}

export interface RunLimits {
  readonly timeoutMs: number;
  /** stdout and stderr together; beyond it the run is killed. */
  readonly maxLogBytes: number;
  readonly memoryBytes?: number;
  readonly maxPids?: number;
  /** Bytes below the input root and the temporary directory together; beyond it the run is killed. */
  readonly diskBytes?: number;
}

export interface RunResult {
  readonly outcome: RunOutcome;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly usage: ResourceUsage;
  /** What stdout and stderr have together; undefined: look. */
  readonly logBytes?: number;
}

export type RunOutcome =
  /** The command ended by itself; 128 + n for signal n. */
  | { readonly kind: "exited"; readonly exitCode: number }
  | { readonly kind: "timeout" }
  | { readonly kind: "cancelled" }
  /**
   * A limit struck and everything was killed. For "memory" the kernel killed it: the runner has appended `message` as
   * one line to stderr, and the action's exit code is 137.
   */
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
  readonly readBytes?: number;
  readonly writtenBytes?: number;
}

/** What a sandbox looks like before anybody knows what runs in it. */
export type PreparedView = Pick<
  RunSpec,
  | "slot"
  | "inputRootPath"
  | "rootMode"
  | "inputRootPathInside"
  | "mounts"
  | "temporaryPath"
  | "network"
  | "unixUid"
  | "unixGid"
> & { readonly limits: Pick<RunLimits, "memoryBytes" | "diskBytes"> };

/** A user and group of the host. */
export interface HostUser {
  readonly uid: number;
  readonly gid: number;
}

export interface Runner {
  /** Aborting `signal` kills everything and resolves as "cancelled". Rejects only with RunnerLostError. */
  run(spec: RunSpec, options: { readonly signal: AbortSignal }): Promise<RunResult>;
  /**
   * A hint that the next run in `view.slot` will most likely have exactly this view: its sandbox is set up now, which
   * takes 3 ms off the run. The input root exists and belongs to the slot, and may still be empty: what is put into it
   * later appears inside. Never fails; a run with another view is merely not faster.
   */
  prepare?(view: PreparedView): void;
  /** Who must own what an action in `slot` may write; undefined: the server's own user, leave ownership alone. */
  ownerOf(slot: number): HostUser | undefined;
  /** Kills what runs and resolves when nothing of it is left. */
  close(): Promise<void>;
}

/** The runner process ended while the action ran. Everything of the action is dead; it may be retried. */
export class RunnerLostError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RunnerLostError";
  }
}
