// The runner process: `ledge runner`, started by the server over an inherited socket, owner of every fork.
//
// Life: "start" arrives → leftovers of an earlier runner are killed → a real sandbox is tried → "condition" is sent →
// runs. The end of the socket means that the server died or closed us: everything is killed, then we exit.
// Invariant: nothing of ours survives. If this process is killed too, each bwrap dies with it (--die-with-parent), and
// what slips through that is swept by the next runner.

import { chmodSync, chownSync, closeSync, fstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import type { SandboxProfile } from "../sandbox/bwrap-arguments.ts";
import { type CgroupController, openCgroups } from "../sandbox/cgroup.ts";
import { loadNativeCalls, type NativeCalls } from "../sandbox/native-calls.ts";
import { probeSandboxProfile, type SandboxAvailability } from "../sandbox/probe.ts";
import { ownerKeyOf, sweepOwnedProcesses } from "../sandbox/process-table.ts";
import { showReachable } from "../sandbox/reachable-root.ts";
import { chooseSlotIdentities, identityOfSlot } from "../sandbox/slot-identity.ts";
import type { RunResult, RunSpec } from "./runner.ts";
import {
  encodeFrame,
  FrameDecoder,
  RUNNER_SOCKET_FD,
  type RunnerCondition,
  type RunnerConfiguration,
  type RunnerMessage,
  type ServerMessage,
} from "./runner-protocol.ts";
import { SlotRunner, type SlotRunnerOptions } from "./slot-runner.ts";

const PROBE_TIMEOUT_MS = 20_000;

/** Serves runs until the server is gone. Resolves with the process's exit code. */
export async function runRunnerProcess(): Promise<number> {
  if (!isSocket(RUNNER_SOCKET_FD)) {
    process.stderr.write("ledge runner is started by the server; it is not for use by hand\n");
    return 2;
  }
  ignoreSignals();
  prepareProcess();
  const socket = new Socket({ fd: RUNNER_SOCKET_FD, readable: true, writable: true });
  const server = new ServerLink(socket);
  await server.ended;
  return 0;
}

/** The server's end of stream is what ends us; a Ctrl-C or a service manager's SIGTERM is meant for the server. */
function ignoreSignals(): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
}

/** What the actions inherit from us: mask and descriptors. */
function prepareProcess(): void {
  process.umask(0o022);
  process.chdir("/"); // the users of the actions may not be able to enter the server's directory
  closeInheritedDescriptors();
}

function openNativeCalls(configuration: RunnerConfiguration): NativeCalls | undefined {
  const native = configuration.nativeCalls ? loadNativeCalls() : undefined;
  native?.becomeSubreaper();
  return native;
}

/** A descriptor that the server inherited without close-on-exec would leak into every action. */
function closeInheritedDescriptors(): void {
  for (const name of readdirSync("/proc/self/fdinfo")) {
    const fd = Number(name);
    if (fd <= RUNNER_SOCKET_FD) continue;
    try {
      const flags = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${name}`, "latin1"))?.[1] ?? "0";
      const closesOnExec = (Number.parseInt(flags, 8) & 0o2000000) !== 0;
      if (!closesOnExec) closeSync(fd);
    } catch {
      // the descriptor of this very listing
    }
  }
}

class ServerLink {
  /** Resolves when the server is gone and nothing of ours runs any more. */
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #decoder = new FrameDecoder<ServerMessage>();
  readonly #aborts = new Map<number, AbortController>();
  #runner: SlotRunner | undefined;
  #closeCgroups: (() => void) | undefined;
  #ownerKey: string | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", () => socket.destroy()); // the server is gone: "close" follows
    this.ended = new Promise((resolve) => {
      socket.on("close", () => {
        void this.#stop().then(resolve);
      });
    });
  }

  /** The last look is for what nobody knows of: without a server there may be no next start to sweep it. */
  async #stop(): Promise<void> {
    await this.#runner?.close();
    if (this.#ownerKey !== undefined) await sweepOwnedProcesses(this.#ownerKey).catch(() => undefined);
    this.#closeCgroups?.();
  }

  #receive(chunk: Buffer): void {
    let messages: ServerMessage[];
    try {
      messages = this.#decoder.push(chunk);
    } catch {
      this.#socket.destroy(); // never happens between two ends of one program; if it does, nothing can be trusted
      return;
    }
    for (const message of messages) this.#handle(message);
  }

  #handle(message: ServerMessage): void {
    if (message.type === "start") void this.#start(message.configuration);
    else if (message.type === "prepare") this.#runner?.prepare(message.view);
    else if (message.type === "run") void this.#run(message.runId, message.spec);
    else this.#aborts.get(message.runId)?.abort();
  }

  async #start(configuration: RunnerConfiguration): Promise<void> {
    this.#ownerKey = ownerKeyOf(configuration.buildRootPath);
    const cgroups = configuration.sandbox === "none" ? undefined : openCgroups(this.#ownerKey);
    this.#closeCgroups = () => cgroups?.close();
    const { condition, runner } = await openSlotRunner(configuration, openNativeCalls(configuration), cgroups);
    this.#runner = runner;
    this.#send({ type: "condition", condition });
    // Once that is on its way: the server starts to listen meanwhile.
    if (runner !== undefined) setImmediate(() => runner.warmUp());
  }

  async #run(runId: number, spec: RunSpec): Promise<void> {
    const abort = new AbortController();
    this.#aborts.set(runId, abort);
    const result = await this.#supervise(spec, abort.signal);
    this.#aborts.delete(runId);
    this.#send({ type: "result", runId, result });
  }

  async #supervise(spec: RunSpec, signal: AbortSignal): Promise<RunResult> {
    const runner = this.#runner;
    try {
      if (runner === undefined) throw new Error("The runner was not started");
      return await runner.run(spec, signal);
    } catch (error) {
      const nowMs = systemClock.nowMs();
      const message = error instanceof Error ? error.message : String(error);
      return { outcome: { kind: "sandbox-failed", message }, startedAtMs: nowMs, endedAtMs: nowMs, usage: {} };
    }
  }

  #send(message: RunnerMessage): void {
    if (this.#socket.writable) this.#socket.write(encodeFrame(message));
  }
}

/** Sweeps, probes, and returns a runner when actions can run. */
async function openSlotRunner(
  configuration: RunnerConfiguration,
  native: NativeCalls | undefined,
  cgroups: CgroupController | undefined,
): Promise<{ condition: RunnerCondition; runner: SlotRunner | undefined }> {
  const ownerKey = ownerKeyOf(configuration.buildRootPath);
  const identities = chooseSlotIdentities(ownerKey);
  let sweptProcesses = 0;
  let ownBuilder = false;
  const conditionWith = (availability: RunnerCondition["availability"]): RunnerCondition => ({
    availability,
    identities,
    sweptProcesses,
    ownBuilder,
    nativeCalls: native !== undefined,
    memoryLimits: cgroups === undefined ? "polling" : `cgroup v${cgroups.version}`,
  });
  const refuse = (reason: string, remedy: string) => ({
    condition: conditionWith({ available: false, reason, remedy }),
    runner: undefined,
  });
  let reachableBuildRootPath = configuration.buildRootPath;
  try {
    sweptProcesses = await sweepOwnedProcesses(ownerKey);
    if (configuration.ownMounts) reachableBuildRootPath = showReachable(configuration.buildRootPath);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return refuse(reason, "choose a --data-dir whose parent directories everybody may enter (mode o+x)");
  }
  if (identities.kind === "refused") return refuse(identities.reason, identities.remedy);
  const options = {
    identities,
    buildRootPath: configuration.buildRootPath,
    reachableBuildRootPath,
    ownerKey,
    native,
    slots: configuration.slots,
    cgroups,
    clock: systemClock,
  };
  const availability = await probe(configuration, options);
  if (!availability.available) return { condition: conditionWith(availability), runner: undefined };
  const { profile } = availability;
  ownBuilder = profile !== undefined && configuration.sandbox === "own" && (await builderWorks(profile, options));
  const runner = new SlotRunner({ ...options, profile, builder: ownBuilder ? "preferred" : "never" });
  return { condition: conditionWith(availability), runner };
}

type ProbeOptions = Omit<SlotRunnerOptions, "profile" | "builder">;

/** Where bwrap works, a failure of the builder is no reason to say anything: sandboxes are the same, and slower. */
async function builderWorks(profile: SandboxProfile, options: ProbeOptions): Promise<boolean> {
  if (options.native === undefined) return false;
  const directory = join(options.buildRootPath, "runner-probe");
  try {
    return (await tryProfile(profile, directory, { ...options, builder: "alone" })) === undefined;
  } catch {
    return false;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function probe(
  configuration: RunnerConfiguration,
  options: ProbeOptions,
): Promise<RunnerCondition["availability"]> {
  if (configuration.sandbox === "none") {
    return {
      available: true,
      profile: undefined,
      warnings: ["actions run without a sandbox: they can read and change whatever their user can"],
    };
  }
  const directory = join(options.buildRootPath, "runner-probe");
  try {
    return await probeSandboxProfile({
      bwrapPath: configuration.bwrapPath,
      allowSharedNetwork: configuration.allowSharedNetwork,
      tryProfile: (profile) => tryProfile(profile, directory, { ...options, builder: "never" }),
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { available: false, reason, remedy: "make the data directory writable" } satisfies SandboxAvailability;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Runs `true` exactly as an action would run. A program that cannot be found proves the sandbox as well. */
async function tryProfile(
  profile: SandboxProfile,
  directory: string,
  options: Omit<SlotRunnerOptions, "profile">,
): Promise<string | undefined> {
  rmSync(directory, { recursive: true, force: true });
  const inputRootPath = join(directory, "root");
  mkdirSync(inputRootPath, { recursive: true, mode: 0o755 });
  for (const path of [directory, inputRootPath]) chmodSync(path, 0o755);
  const owner = identityOfSlot(options.identities, 0);
  if (owner !== undefined) chownSync(inputRootPath, owner.uid, owner.gid);
  const runner = new SlotRunner({ ...options, profile, copiesHostEtc: false });
  try {
    const { outcome } = await runner.run(probeSpec(directory, inputRootPath), AbortSignal.timeout(PROBE_TIMEOUT_MS));
    if (outcome.kind === "exited" || outcome.kind === "not-started") return undefined;
    return outcome.kind === "sandbox-failed" ? outcome.message : `the trial sandbox ended with ${outcome.kind}`;
  } finally {
    await runner.close();
  }
}

function probeSpec(directory: string, inputRootPath: string): RunSpec {
  return {
    id: "probe",
    slot: 0,
    inputRootPath,
    rootMode: "host",
    mounts: [],
    arguments: ["true"],
    environment: [{ name: "PATH", value: "/usr/local/bin:/usr/bin:/bin" }],
    workingDirectory: "",
    stdoutPath: join(directory, "stdout"),
    stderrPath: join(directory, "stderr"),
    network: "none",
    limits: { timeoutMs: PROBE_TIMEOUT_MS, maxLogBytes: 65_536 },
  };
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}
