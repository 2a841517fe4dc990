// Runs processes in slots, inside the runner process: the same promise as the seam, without the pipe in between.
//
// Invariant: a slot has at most one run at a time, and a slot whose processes would not die is never used again.

import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { bwrapArguments, insideIdentity, SANDBOX_HOST_NAME, type SandboxProfile } from "../sandbox/bwrap-arguments.ts";
import { GeneratedEtc } from "../sandbox/generated-etc.ts";
import type { IsolatedProcess } from "../sandbox/isolated-process.ts";
import { launcherImage } from "../sandbox/launcher-image.ts";
import type { NativeCalls } from "../sandbox/native-calls.ts";
import type { OutputStreams } from "../sandbox/output-streams.ts";
import { PlainProcess } from "../sandbox/plain-process.ts";
import { BWRAP_FDS, SandboxProcess } from "../sandbox/sandbox-process.ts";
import { identityOfSlot, type SlotIdentities } from "../sandbox/slot-identity.ts";
import { workingDirectoryInside } from "../sandbox/sandbox-spec.ts";
import { explainLaunchFailure } from "../sandbox/start-failure.ts";
import type { HostUser, RunOutcome, RunResult, RunSpec } from "./runner.ts";
import { superviseRun } from "./run-supervisor.ts";

export interface SlotRunnerOptions {
  /** undefined: no sandbox at all, by the operator's explicit choice. */
  readonly profile: SandboxProfile | undefined;
  readonly identities: SlotIdentities;
  readonly buildRootPath: string;
  /** Where the sandbox's user sees the build root. */
  readonly reachableBuildRootPath: string;
  /** Marks our processes, so that a later runner finds what this one may leave behind. */
  readonly ownerKey: string;
  readonly native: NativeCalls | undefined;
  readonly clock: Clock;
}

export class SlotRunner {
  readonly #options: SlotRunnerOptions;
  readonly #directory: string;
  readonly #etc: GeneratedEtc;
  readonly #launcherPath: string;
  /** Slots with a run, with how to stop it. */
  #running = new Map<number, { abort: AbortController; done: Promise<unknown> }>();
  /** Slots that hold processes which do not die. */
  #quarantined = new Set<number>();
  #closing = false;

  constructor(options: SlotRunnerOptions) {
    this.#options = options;
    this.#directory = runnerDirectory(options.buildRootPath);
    rmSync(this.#directory, { recursive: true, force: true });
    mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
    this.#etc = new GeneratedEtc(join(this.#directory, "etc"));
    this.#launcherPath = join(this.#directory, "launcher");
    const image = launcherImage();
    if (image === undefined) throw new Error(`There is no launcher for the architecture ${process.arch}`);
    writeFileSync(this.#launcherPath, image, { mode: 0o555 });
  }

  /** Resolves when everything the action started is dead. */
  async run(spec: RunSpec, signal: AbortSignal): Promise<RunResult> {
    const refusal = this.#refusal(spec);
    if (refusal !== undefined) return this.#atOnce(refusal);
    const abort = new AbortController();
    const { native, clock } = this.#options;
    const done = superviseRun(spec, AbortSignal.any([signal, abort.signal]), {
      clock,
      native,
      owner: this.ownerOf(spec.slot),
      start: (streams) => this.#start(spec, streams),
      workingDirectory: this.#workingDirectory(spec),
    });
    this.#running.set(spec.slot, { abort, done });
    try {
      const { result, settled } = await done;
      if (!settled) this.#quarantined.add(spec.slot);
      return result;
    } finally {
      this.#running.delete(spec.slot);
    }
  }

  ownerOf(slot: number): HostUser | undefined {
    return identityOfSlot(this.#options.identities, slot);
  }

  /** Kills what runs, and resolves when it is dead and our files are gone. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const { abort } of this.#running.values()) abort.abort();
    await Promise.all([...this.#running.values()].map(({ done }) => done));
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #refusal(spec: RunSpec): RunOutcome | undefined {
    const { slot } = spec;
    if (this.#closing) return { kind: "cancelled" };
    if (this.#running.has(slot)) return { kind: "sandbox-failed", message: `Slot ${slot} is already in use` };
    if (this.#quarantined.has(slot)) {
      return { kind: "sandbox-failed", message: `Slot ${slot} holds processes of an earlier action that do not die` };
    }
    return this.#options.profile === undefined ? plainRefusal(spec) : undefined;
  }

  #start(spec: RunSpec, streams: OutputStreams): IsolatedProcess {
    const { profile, ownerKey, native } = this.#options;
    const identity = this.ownerOf(spec.slot);
    const outputFds = streams.childFds;
    if (profile === undefined) return new PlainProcess({ identity, outputFds, ownerKey, runId: spec.id });
    const { network } = spec;
    return new SandboxProcess({
      bwrapPath: profile.bwrapPath,
      options: bwrapArguments(spec, {
        profile,
        etcPath: this.#etc.current({ ...insideIdentity(spec), hostName: SANDBOX_HOST_NAME, network }),
        fds: { status: BWRAP_FDS.status },
        reachablePath: (path) => this.#reachable(path),
      }),
      launcherPath: this.#launcherPath,
      seccompPath: undefined,
      identity,
      outputFds,
      ownerKey,
      native,
      stderrHead: () => streams.stderrHead(),
    });
  }

  /** Without a sandbox the action is on the host, where its input root is. */
  #workingDirectory(spec: RunSpec): string {
    if (this.#options.profile !== undefined) return workingDirectoryInside(spec);
    return join(spec.inputRootPath, spec.workingDirectory);
  }

  #reachable(path: string): string {
    const { buildRootPath, reachableBuildRootPath } = this.#options;
    if (path === buildRootPath) return reachableBuildRootPath;
    return path.startsWith(`${buildRootPath}/`) ? reachableBuildRootPath + path.slice(buildRootPath.length) : path;
  }

  #atOnce(outcome: RunOutcome): RunResult {
    const nowMs = this.#options.clock.nowMs();
    return { outcome, startedAtMs: nowMs, endedAtMs: nowMs, usage: {} };
  }
}

/** What a plain child process cannot do, or would not say well. */
function plainRefusal(spec: RunSpec): RunOutcome | undefined {
  if (spec.rootMode !== "host") {
    return { kind: "sandbox-failed", message: "Without a sandbox an action cannot have a root of its own" };
  }
  const stats = statSync(join(spec.inputRootPath, spec.workingDirectory), { throwIfNoEntry: false });
  if (stats?.isDirectory() === true) return undefined;
  const errno = stats === undefined ? constants.errno.ENOENT : constants.errno.ENOTDIR;
  const failure = { stage: "enter-directory", errno } as const;
  return { kind: "not-started", message: explainLaunchFailure(failure, "", spec.workingDirectory) };
}

/** The runner's own directory below the build root; the rest belongs to the caller. */
export function runnerDirectory(buildRootPath: string): string {
  return join(buildRootPath, "runner");
}
