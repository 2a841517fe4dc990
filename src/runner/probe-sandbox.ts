// Answers "can this machine run actions, and if not, what has to be done?" by starting a real runner and its sandbox.

import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "../telemetry/log.ts";
import type { SandboxProfile } from "../sandbox/bwrap-arguments.ts";
import { startRunner } from "./runner-client.ts";
import type { WantedSandbox } from "./runner-protocol.ts";

export type ProbeResult =
  | {
      readonly available: true;
      readonly profile: SandboxProfile;
      /** As in RunnerCondition. */
      readonly ownBuilder: boolean;
      readonly warnings: readonly string[];
    }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

export interface ProbeSandboxOptions {
  readonly bwrapPath?: string | undefined;
  /** Where build directories would lie; a scratch directory is made in it and removed. Default: the temporary directory. */
  readonly directory?: string;
  readonly allowSharedNetwork?: boolean;
  /** Default: bwrap. */
  readonly sandbox?: Exclude<WantedSandbox, "none">;
}

/** Takes about 0.3 s. Leaves nothing behind and does not disturb a server that runs on the same directory. */
export async function probeSandbox(options: ProbeSandboxOptions = {}): Promise<ProbeResult> {
  const scratch = mkdtempSync(join(options.directory ?? tmpdir(), "ledge-probe-"));
  chmodSync(scratch, 0o755); // mkdtemp makes it ours alone, and the users of the actions are others
  try {
    const started = await startRunner({
      sandbox: options.sandbox ?? "bwrap",
      bwrapPath: options.bwrapPath,
      buildRootPath: join(scratch, "build"),
      slots: 1,
      allowSharedNetwork: options.allowSharedNetwork ?? false,
      logger: silentLogger,
    });
    if (!started.available) return started;
    await started.runner.close();
    const { availability, ownBuilder } = started.condition;
    if (!availability.available || availability.profile === undefined) throw new Error("A probe ran without a sandbox");
    return { available: true, profile: availability.profile, ownBuilder, warnings: availability.warnings };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
