// Runs processes in slots, inside the runner process: the same promise as the seam, without the pipe in between.
//
// Invariant: a slot has at most one run at a time, and a slot whose processes would not die is never used again.

import { statSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { CgroupController } from "../sandbox/cgroup.ts";
import type { OutputStreams } from "../sandbox/output-streams.ts";
import { workingDirectoryInside } from "../sandbox/sandbox-spec.ts";
import { identityOfSlot, type SlotIdentities } from "../sandbox/slot-identity.ts";
import { explainLaunchFailure } from "../sandbox/start-failure.ts";
import { IsolationFactory, type IsolationOptions } from "./isolation-factory.ts";
import type { HostUser, PreparedView, RunOutcome, RunResult, RunSpec } from "./runner.ts";
import { type ReadyIsolation, superviseRun } from "./run-supervisor.ts";
import { SpareSandboxes } from "./spare-sandboxes.ts";

export interface SlotRunnerOptions extends IsolationOptions {
  readonly identities: SlotIdentities;
  readonly cgroups: CgroupController | undefined;
  readonly clock: Clock;
}

export class SlotRunner {
  readonly #options: SlotRunnerOptions;
  readonly #factory: IsolationFactory;
  readonly #spares = new SpareSandboxes();
  /** Slots with a run, with how to stop it. */
  readonly #running = new Map<number, { abort: AbortController; done: Promise<unknown> }>();
  /** Slots that hold processes which do not die. */
  readonly #quarantined = new Set<number>();
  #closing = false;

  constructor(options: SlotRunnerOptions) {
    this.#options = options;
    this.#factory = new IsolationFactory(options);
  }

  /** Resolves when everything the action started is dead. */
  async run(spec: RunSpec, signal: AbortSignal): Promise<RunResult> {
    const refusal = this.#refusal(spec);
    if (refusal !== undefined) return this.#atOnce(refusal);
    const abort = new AbortController();
    const { clock, cgroups } = this.#options;
    const done = superviseRun(spec, AbortSignal.any([signal, abort.signal]), {
      clock,
      cgroups,
      isolate: (begin) => this.#isolate(spec, begin),
      workingDirectory: this.#workingDirectory(spec),
    });
    this.#running.set(spec.slot, { abort, done });
    try {
      const { result, settled } = await done;
      if (!settled || !(await this.#spares.settled(spec.slot))) this.#quarantined.add(spec.slot);
      return result;
    } finally {
      this.#running.delete(spec.slot);
    }
  }

  /** Does now what the first run would otherwise wait for. */
  warmUp(): void {
    try {
      if (!this.#closing) this.#factory.warmUp();
    } catch {
      // The run itself will meet the same fault and report it.
    }
  }

  /** Sets up a sandbox for a run that has not come yet. A hint: it may do nothing. */
  prepare(view: PreparedView): void {
    const { slot } = view;
    if (this.#closing || this.#running.has(slot) || this.#quarantined.has(slot) || !this.#factory.canStartAhead) return;
    try {
      const options = this.#factory.sandboxOptions(view);
      if (options === undefined) return;
      const spare = this.#factory.startSandbox(options, this.ownerOf(slot), () => undefined);
      this.#spares.put(slot, options, spare);
    } catch {
      // The run itself will meet the same fault and report it.
    }
  }

  ownerOf(slot: number): HostUser | undefined {
    return identityOfSlot(this.#options.identities, slot);
  }

  /** Kills what runs, and resolves when it is dead and our files are gone. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const { abort } of this.#running.values()) abort.abort();
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
    await this.#spares.close();
    this.#factory.close();
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

  #isolate(spec: RunSpec, begin: (streams: OutputStreams) => void): ReadyIsolation {
    const owner = this.ownerOf(spec.slot);
    const options = this.#factory.sandboxOptions(spec);
    if (options === undefined) return this.#factory.startPlain(spec.id, owner, begin);
    const spare = this.#spares.take(spec.slot, options);
    if (spare === undefined) return this.#factory.startSandbox(options, owner, begin);
    try {
      begin(spare.streams);
      return spare;
    } catch (error) {
      this.#spares.bury(spec.slot, spare);
      throw error;
    }
  }

  /** Without a sandbox the action is on the host, where its input root is. */
  #workingDirectory(spec: RunSpec): string {
    if (this.#options.profile !== undefined) return workingDirectoryInside(spec);
    return join(spec.inputRootPath, spec.workingDirectory);
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
