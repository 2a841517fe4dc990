// What a running action is to its supervisor, whether it runs in bwrap or (by the operator's explicit choice) without.

import type { LaunchCommand } from "./launcher-block.ts";
import type { ReapedProcess } from "./native-calls.ts";
import type { LaunchFailure } from "./start-failure.ts";

/** How the process ended. */
export type ProcessExit =
  /** The action's own end; 128 + n for signal n. */
  | { readonly kind: "exited"; readonly exitCode: number }
  /** The command could not be started; nothing of it ran. */
  | { readonly kind: "not-launched"; readonly failure: LaunchFailure }
  /**
   * The isolation ended without the action's exit code: it never came up, or somebody outside killed it. Without a
   * message stderr has the words of the isolation itself.
   */
  | {
      readonly kind: "broken";
      readonly message: string | undefined;
      /** Our own builder could not make it; nothing of the action ran, and bwrap is worth a try. */
      readonly setupFailed?: boolean;
    };

export interface IsolatedProcess {
  /** Resolves when the outermost process has ended, which may be before everything is dead. Never rejects. */
  readonly exit: Promise<ProcessExit>;
  /** Resolves with true when the action can be launched, false when the isolation ended before. Never rejects. */
  readonly ready: Promise<boolean>;
  /** The process that limits apply to, as we see it; undefined until `ready`. */
  readonly initPid: number | undefined;
  /** What could be measured, once settled. */
  readonly usage: ReapedProcess | undefined;
  /** Starts the action. At most once, after `ready`. */
  launch(command: LaunchCommand): void;
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
