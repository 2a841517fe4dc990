// Finds out by running real sandboxes, as the user actions will have, how this machine can isolate them.
//
// The ladder: everything; then without what this bwrap or this container cannot do, one concession per failure, each of
// them recognized by bwrap's message. A failure nobody recognizes ends it. What a failure means and how an operator mends
// it is sandbox-remedies.ts. Source: executor measurements, section 7.

import { spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import type { SandboxProfile } from "./bwrap-arguments.ts";
import { explainProbeFailure, missingBwrap, setuidBwrap } from "./sandbox-remedies.ts";

/** What a probe says about this machine. */
export type SandboxAvailability =
  | {
      readonly available: true;
      readonly profile: SandboxProfile;
      /** What works less well than it could, one sentence each with its remedy. */
      readonly warnings: readonly string[];
    }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

export interface ProbeOptions {
  /** undefined: the `bwrap` in PATH. */
  readonly bwrapPath: string | undefined;
  /** Whether actions may share the host's network when no namespace for it can be made. */
  readonly allowSharedNetwork: boolean;
  /** Runs a trivial command in a sandbox of that profile; resolves with undefined when it came up, else bwrap's words. */
  readonly tryProfile: (profile: SandboxProfile) => Promise<string | undefined>;
}

/** Climbs down the ladder and returns the first profile that works, or why none does. */
export async function probeSandboxProfile(options: ProbeOptions): Promise<SandboxAvailability> {
  const bwrapPath = findBwrap(options.bwrapPath);
  if (bwrapPath === undefined) return missingBwrap(options.bwrapPath);
  if ((statSync(bwrapPath).mode & constants.S_IFMT) !== constants.S_IFREG) return missingBwrap(bwrapPath);
  if ((statSync(bwrapPath).mode & 0o4000) !== 0) return setuidBwrap(bwrapPath);
  let profile: SandboxProfile = {
    bwrapPath,
    bwrapVersion: bwrapVersion(bwrapPath),
    disableUserns: true,
    proc: "own",
    ownNetwork: true,
  };
  const warnings: string[] = [];
  for (;;) {
    const failure = await options.tryProfile(profile);
    if (failure === undefined) return { available: true, profile, warnings };
    const concession = concede(profile, failure, options.allowSharedNetwork);
    if (concession === undefined) return { available: false, ...explainProbeFailure(failure) };
    profile = concession.profile;
    warnings.push(concession.warning);
  }
}

function concede(
  profile: SandboxProfile,
  failure: string,
  allowSharedNetwork: boolean,
): { profile: SandboxProfile; warning: string } | undefined {
  if (profile.disableUserns && /disable-userns|max_user_namespaces/.test(failure)) {
    return {
      profile: { ...profile, disableUserns: false },
      warning: `bwrap ${profile.bwrapVersion} cannot forbid user namespaces inside the sandbox (--disable-userns, 0.8 and newer); actions can make their own, which widens what they can attack in the kernel. Install a newer bubblewrap`,
    };
  }
  if (profile.proc === "own" && /mount proc/.test(failure)) {
    return {
      profile: { ...profile, proc: "host" },
      warning: `/proc cannot be mounted in this container, so actions see the processes outside (${explainProbeFailure(failure).remedy})`,
    };
  }
  if (profile.ownNetwork && allowSharedNetwork && /loopback|RTM_NEW|network namespace/.test(failure)) {
    return {
      profile: { ...profile, ownNetwork: false },
      warning: `no network namespace can be made here, so actions have the host's network (${explainProbeFailure(failure).remedy})`,
    };
  }
  return undefined;
}

/** Returns the absolute path of an executable bwrap. */
function findBwrap(wanted: string | undefined): string | undefined {
  if (wanted !== undefined && isAbsolute(wanted)) return isExecutable(wanted) ? wanted : undefined;
  const directories = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin", "/bin", "/usr/local/bin"];
  return directories
    .filter((directory) => isAbsolute(directory))
    .map((directory) => join(directory, wanted ?? "bwrap"))
    .find((path) => isExecutable(path));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function bwrapVersion(bwrapPath: string): string {
  const { stdout } = spawnSync(bwrapPath, ["--version"], { encoding: "utf8", env: {} });
  return /(\d+(?:\.\d+)+)/.exec(stdout ?? "")?.[1] ?? "unknown";
}
