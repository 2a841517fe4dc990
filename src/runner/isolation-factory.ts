// Makes isolated processes for runs: a sandbox of exactly the wanted view, or a plain child when there is no sandbox.
//
// Owns the files every sandbox needs (launcher, system call filter, generated /etc) in the runner's directory.

import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";
import { builderImage } from "../sandbox/builder-image.ts";
import { bwrapArguments, insideIdentity, SANDBOX_HOST_NAME, type SandboxProfile } from "../sandbox/bwrap-arguments.ts";
import { GeneratedEtc } from "../sandbox/generated-etc.ts";
import { launcherImage } from "../sandbox/launcher-image.ts";
import type { NativeCalls } from "../sandbox/native-calls.ts";
import { openOutputFiles, openOutputPipes, type OutputStreams } from "../sandbox/output-streams.ts";
import { PlainProcess } from "../sandbox/plain-process.ts";
import { BWRAP_FDS } from "../sandbox/bwrap-child.ts";
import { type SandboxBuilder, SandboxProcess } from "../sandbox/sandbox-process.ts";
import type { SandboxView } from "../sandbox/sandbox-spec.ts";
import { seccompFilter } from "../sandbox/seccomp-filter.ts";
import type { HostUser } from "./runner.ts";
import type { ReadyIsolation } from "./run-supervisor.ts";

export interface IsolationOptions {
  /** undefined: no sandbox at all, by the operator's explicit choice. */
  readonly profile: SandboxProfile | undefined;
  readonly buildRootPath: string;
  /** Where the sandbox's user sees the build root. */
  readonly reachableBuildRootPath: string;
  /** Marks our processes, so that a later runner finds what this one may leave behind. */
  readonly ownerKey: string;
  readonly native: NativeCalls | undefined;
  /** How many actions share the memory of this machine. */
  readonly slots: number;
  /** False for a trial of the sandbox alone: its /etc has no copies of the host's files, which take a third of a second. */
  readonly copiesHostEtc?: boolean;
  readonly builder: BuilderUse;
}

/** Who makes sandboxes: our own builder and bwrap what it cannot, the builder alone (a trial of it), or bwrap. */
export type BuilderUse = "preferred" | "alone" | "never";

/** All actions together can fill five eighths of the memory with files, so that processes find some whatever they do. */
const TEMPORARY_SHARE = 1 / 2;
const SHARED_MEMORY_SHARE = 1 / 8;
/** Views that the builder failed to make. Each costs a start in vain when it is forgotten, and some KiB until then. */
const MAX_BWRAP_VIEWS = 64;
/** What kept the builder from it may have been one input root's own; those after it are tried again. */
const BWRAP_VIEW_MS = 60_000;

export class IsolationFactory {
  readonly #options: IsolationOptions;
  readonly #directory: string;
  readonly #etc: GeneratedEtc;
  readonly #launcherFd: number;
  readonly #nullFd = openSync("/dev/null", "r");
  readonly #seccompPath: string | undefined;
  readonly #builder: SandboxBuilder | undefined;
  /** Kinds of sandbox that the builder could not make, and until when bwrap does. */
  readonly #bwrapViews = new Map<string, number>();
  readonly #memoryFileBytes: { readonly temporary: number; readonly shared: number };

  constructor(options: IsolationOptions) {
    this.#options = options;
    const shareBytes = totalmem() / Math.max(1, options.slots);
    this.#memoryFileBytes = { temporary: shareBytes * TEMPORARY_SHARE, shared: shareBytes * SHARED_MEMORY_SHARE };
    // The runner's own directory below the build root; the rest of it belongs to the worker.
    this.#directory = join(options.buildRootPath, "runner");
    rmSync(this.#directory, { recursive: true, force: true });
    mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
    this.#etc = new GeneratedEtc(join(this.#directory, "etc"), options.copiesHostEtc === false ? undefined : "/etc");
    this.#launcherFd = openSync(this.#write("launcher", needLauncher(), 0o555), "r");
    const filter = seccompFilter();
    this.#seccompPath = filter === undefined ? undefined : this.#write("seccomp.bpf", filter, 0o444);
    this.#builder = options.builder === "never" ? undefined : this.#openBuilder(filter);
  }

  /** bwrap's options for that view. Equal options make equal sandboxes. */
  sandboxOptions(view: SandboxView): string[] | undefined {
    const { profile } = this.#options;
    if (profile === undefined) return undefined;
    return bwrapArguments(view, {
      profile,
      // Only this view shows it, and making one takes a while.
      etcPath: view.rootMode === "host" ? this.#etcPath(view) : "",
      fds: { status: BWRAP_FDS.status, seccomp: this.#seccompPath === undefined ? undefined : BWRAP_FDS.seccomp },
      memoryFileBytes: this.#memoryFileBytes,
      reachablePath: (path) => this.#reachable(path),
    });
  }

  /** Makes what the first ordinary run would otherwise wait for. */
  warmUp(): void {
    if (this.#options.profile !== undefined) this.#etcPath({ rootMode: "host", network: "none" });
  }

  /** Starts a sandbox with `options` of sandboxOptions(); `begin` is called with its streams before that. */
  startSandbox(
    options: readonly string[],
    owner: HostUser | undefined,
    begin: (streams: OutputStreams) => void,
  ): ReadyIsolation {
    const streams = this.#openStreams(owner);
    try {
      begin(streams);
      return { process: this.#startSandbox(options, owner, { outputFds: streams.childFds }), streams };
    } catch (error) {
      streams.close();
      throw error;
    }
  }

  /** The same on descriptors of the caller's, for a person at a terminal. */
  startSandboxOnStreams(
    options: readonly string[],
    owner: HostUser | undefined,
    [stdinFd, stdoutFd, stderrFd]: readonly [number, number, number],
  ): SandboxProcess {
    return this.#startSandbox(options, owner, { stdinFd, outputFds: [stdoutFd, stderrFd] });
  }

  #etcPath(view: Pick<SandboxView, "rootMode" | "network" | "unixUid" | "unixGid">): string {
    return this.#etc.current({ ...insideIdentity(view), hostName: SANDBOX_HOST_NAME, network: view.network });
  }

  #startSandbox(
    options: readonly string[],
    identity: HostUser | undefined,
    fds: { readonly stdinFd?: number; readonly outputFds: readonly [number, number] },
  ): SandboxProcess {
    const { profile, ownerKey, native } = this.#options;
    if (profile === undefined) throw new Error("There is no sandbox here");
    const { bwrapPath } = profile;
    const [launcherFd, seccompPath, stdinFd] = [this.#launcherFd, this.#seccompPath, this.#nullFd];
    const files = { launcherFd, seccompPath, stdinFd };
    const isLeftToBwrap = (this.#bwrapViews.get(this.#kindOf(options)) ?? 0) > performance.now();
    const builder = isLeftToBwrap ? undefined : this.#builder;
    const process = new SandboxProcess({ bwrapPath, options, identity, ...files, ...fds, ownerKey, native, builder });
    void process.exit.then((exit) => {
      if (exit.kind === "broken" && exit.setupFailed === true) this.#leaveToBwrap(options);
    });
    return process;
  }

  #leaveToBwrap(options: readonly string[]): void {
    if (this.#options.builder === "alone") return;
    if (this.#bwrapViews.size >= MAX_BWRAP_VIEWS) this.#bwrapViews.clear();
    this.#bwrapViews.set(this.#kindOf(options), performance.now() + BWRAP_VIEW_MS);
  }

  /** Without the paths of one action's directories. */
  #kindOf(options: readonly string[]): string {
    const ours = `${this.#options.reachableBuildRootPath}/`;
    return options.filter((word) => !word.startsWith(ours)).join("\0");
  }

  #openBuilder(filter: Buffer | undefined): SandboxBuilder | undefined {
    const image = builderImage();
    return image === undefined ? undefined : { builderFd: openSync(this.#write("builder", image, 0o555), "r"), filter };
  }

  /** Whether a sandbox can be started before anybody knows where its output goes. */
  get canStartAhead(): boolean {
    return this.#options.native !== undefined && this.#options.profile !== undefined;
  }

  startPlain(runId: string, owner: HostUser | undefined, begin: (streams: OutputStreams) => void): ReadyIsolation {
    const streams = this.#openStreams(owner);
    try {
      begin(streams);
    } catch (error) {
      streams.close();
      throw error;
    }
    const { ownerKey } = this.#options;
    return { process: new PlainProcess({ identity: owner, streams, ownerKey, runId }), streams };
  }

  close(): void {
    closeSync(this.#launcherFd);
    if (this.#builder !== undefined) closeSync(this.#builder.builderFd);
    closeSync(this.#nullFd);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #openStreams(owner: HostUser | undefined): OutputStreams {
    const { native } = this.#options;
    return native === undefined ? openOutputFiles(owner) : openOutputPipes(native, owner);
  }

  #write(name: string, content: Buffer, mode: number): string {
    const path = join(this.#directory, name);
    writeFileSync(path, content, { mode });
    return path;
  }

  #reachable(path: string): string {
    const { buildRootPath, reachableBuildRootPath } = this.#options;
    if (path === buildRootPath) return reachableBuildRootPath;
    return path.startsWith(`${buildRootPath}/`) ? reachableBuildRootPath + path.slice(buildRootPath.length) : path;
  }
}

function needLauncher(): Buffer {
  const image = launcherImage();
  if (image === undefined)
    throw new Error(`Actions cannot run on the architecture ${process.arch}: no launcher for it`);
  return image;
}
