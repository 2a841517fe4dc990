// What a sandbox process holds of the process it started, whether that is bwrap or our own builder.

export interface SandboxEnd {
  /** What the first process inside ended with; 128 + n for signal n. undefined: nobody told. */
  readonly exitCode: number | undefined;
  /** What ended bwrap from outside. */
  readonly signal: string | undefined;
  /** It could not even be started. */
  readonly error: Error | undefined;
  /** What our own builder could not do, in words; nothing of the action ran, and bwrap may be able to. */
  readonly setupFailure?: string | undefined;
}

export interface SandboxChild {
  /** Of the process that was started, which leads a process group; undefined when it could not be. */
  readonly pid: number | undefined;
  /** Never rejects. The pid inside has been told by then. */
  readonly ended: Promise<SandboxEnd>;
  /** Gives the launcher its block. Once; nothing after withdrawBlock(). */
  writeBlock(block: Buffer): void;
  /** A launcher that still waits for its block ends. */
  withdrawBlock(): void;
  /** What the launcher reported; complete once everything is dead. */
  readReport(): Buffer;
  close(): void;
}

/** Told once the first process of the pid namespace exists, with its pid as we see it. */
export type OnInit = (pid: number) => void;
