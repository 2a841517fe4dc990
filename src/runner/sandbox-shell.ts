// Runs a command of a person in exactly the sandbox an action would get, with the person's own terminal: `ledge sandbox`.
//
// The sandbox is made by the same code with the same options; only the streams differ. Nothing is limited or supervised
// but the end: when the command ends, so does everything it started.

import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProcessExit } from "../sandbox/isolated-process.ts";
import { loadNativeCalls } from "../sandbox/native-calls.ts";
import { ownerKeyOf } from "../sandbox/process-table.ts";
import { findSpecFault, type SandboxSpec, workingDirectoryInside } from "../sandbox/sandbox-spec.ts";
import { chooseSlotIdentities, identityOfSlot } from "../sandbox/slot-identity.ts";
import { explainLaunchFailure } from "../sandbox/start-failure.ts";
import { IsolationFactory } from "./isolation-factory.ts";
import { processLimits } from "./limit-watch.ts";
import { probeSandbox } from "./probe-sandbox.ts";
import type { HostUser, RunSpec } from "./runner.ts";
import type { WantedSandbox } from "./runner-protocol.ts";

export interface SandboxShellSpec extends Pick<
  RunSpec,
  "arguments" | "rootMode" | "mounts" | "network" | "inputRootPathInside" | "unixUid" | "unixGid"
> {
  /** Default: what an action without variables gets, and TERM. */
  readonly environment?: RunSpec["environment"];
  /** Default: an empty directory that is gone afterwards. */
  readonly inputRootPath?: string;
  readonly workingDirectory?: string;
}

export interface SandboxShellOptions {
  readonly spec: SandboxShellSpec;
  readonly bwrapPath?: string | undefined;
  /** Default: bwrap. */
  readonly sandbox?: Exclude<WantedSandbox, "none">;
}

export type SandboxShellResult =
  | { readonly kind: "exited"; readonly exitCode: number }
  /** Nothing ran; for the person at the terminal. */
  | { readonly kind: "failed"; readonly message: string };

const DEFAULT_ENVIRONMENT = [
  { name: "PATH", value: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
  { name: "HOME", value: "/tmp" },
  { name: "TERM", value: process.env["TERM"] ?? "dumb" },
];

/** Runs the command on this process's streams. */
export async function runSandboxShell({
  spec,
  bwrapPath,
  sandbox = "bwrap",
}: SandboxShellOptions): Promise<SandboxShellResult> {
  const probe = await probeSandbox({ bwrapPath, sandbox });
  if (!probe.available) return { kind: "failed", message: `${probe.reason}. Remedy: ${probe.remedy}` };
  const scratch = mkdtempSync(join(tmpdir(), "ledge-sandbox-"));
  chmodSync(scratch, 0o755); // mkdtemp makes it ours alone, and the user of the sandbox is another
  const ownerKey = ownerKeyOf(scratch);
  const factory = new IsolationFactory({
    profile: probe.profile,
    buildRootPath: scratch,
    reachableBuildRootPath: scratch,
    ownerKey,
    native: loadNativeCalls(),
    slots: 1,
    builder: probe.ownBuilder ? "preferred" : "never",
  });
  try {
    const identities = chooseSlotIdentities(ownerKey);
    if (identities.kind === "refused") return { kind: "failed", message: `${identities.reason}: ${identities.remedy}` };
    const owner = identityOfSlot(identities, 0);
    const inputRootPath = spec.inputRootPath ?? makeInputRoot(scratch, owner);
    const { environment = DEFAULT_ENVIRONMENT, workingDirectory = "" } = spec;
    const full = { ...spec, environment, workingDirectory, inputRootPath, limits: NO_LIMITS };
    const fault = findSpecFault(full);
    if (fault !== undefined) return { kind: "failed", message: fault };
    let exit = await runOnce(factory, full, owner);
    if (exit.kind === "broken" && exit.setupFailed === true) exit = await runOnce(factory, full, owner); // by bwrap now
    if (exit.kind === "exited") return exit;
    if (exit.kind === "broken") return { kind: "failed", message: exit.message ?? "the sandbox did not come up" };
    const [command = ""] = full.arguments;
    return { kind: "failed", message: explainLaunchFailure(exit.failure, command, full.workingDirectory) };
  } finally {
    factory.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function runOnce(
  factory: IsolationFactory,
  spec: SandboxSpec & Pick<RunSpec, "limits">,
  owner: HostUser | undefined,
): Promise<ProcessExit> {
  const process = factory.startSandboxOnStreams(factory.sandboxOptions(spec) ?? [], owner, [0, 1, 2]);
  if (await process.ready) {
    process.launch({ ...spec, workingDirectory: workingDirectoryInside(spec), limits: processLimits(spec.limits) });
  }
  const exit = await process.exit;
  await process.settle(SETTLE_TIMEOUT_MS);
  process.close();
  return exit;
}

const NO_LIMITS: RunSpec["limits"] = { timeoutMs: 0, maxLogBytes: 0 };
const SETTLE_TIMEOUT_MS = 10_000;

function makeInputRoot(scratch: string, owner: { readonly uid: number; readonly gid: number } | undefined): string {
  const path = join(scratch, "root");
  mkdirSync(path);
  if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
  return path;
}
