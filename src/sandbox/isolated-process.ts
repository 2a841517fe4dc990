// What a running action is to its supervisor, whether it runs in bwrap or (by the operator's explicit choice) without.

import type { ReapedProcess } from "./native-calls.ts";

/** How the process ended. */
export interface ProcessExit {
  /** The action's, 128 + n for signal n; undefined when the action never ran. */
  readonly exitCode: number | undefined;
  /** What ended the outermost process when no exit code is known. */
  readonly signal: NodeJS.Signals | null;
  /** Set when not even the outermost process could be started. */
  readonly error: Error | undefined;
}

export interface IsolatedProcess {
  /** Resolves when the outermost process has ended, which may be before everything is dead. Never rejects. */
  readonly exit: Promise<ProcessExit>;
  /** Resolves with true when the action waits at the gate, false when it ended before. Never rejects. */
  readonly ready: Promise<boolean>;
  /** The process that limits apply to, as we see it; undefined until `ready`. */
  readonly initPid: number | undefined;
  /** What could be measured, once settled. */
  readonly usage: ReapedProcess | undefined;
  /** Lets the action start. */
  release(): void;
  /** Kills everything, at any time and any number of times. */
  kill(): void;
  /**
   * Resolves with true when everything the action started is dead, false when something would not die in `timeoutMs`
   * (a process inside the kernel, such as on a hung NFS mount). Call after `exit`.
   */
  settle(timeoutMs: number): Promise<boolean>;
  /** Gives back descriptors. */
  close(): void;
}
