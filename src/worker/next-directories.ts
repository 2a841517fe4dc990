// The directory of the next action in each slot, made while another one runs, and the sandbox set up around it.
//
//   action n runs ── directory n+1 is made ──► n ends ── a sandbox is set up around n+1 ──► action n+1 finds both
//
// Invariant: what is handed out is as good as new: empty, owned by the slot's user, used by nobody before. A sandbox is
// only a hint to the runner, which takes it for a run with exactly its view and starts another one otherwise; so one is
// asked for only where two actions in a row looked alike, and only where setting it up puts nothing into the directory.
// What is left at the end lies where the next start sweeps.

import { posix } from "node:path";
import { DEFAULT_INPUT_ROOT_PATH_INSIDE, type PreparedView, type Runner, type RunSpec } from "../runner/runner.ts";
import type { BuildDirectories, BuildDirectory } from "./build-directories.ts";
import type { FileThreads } from "./file-threads.ts";
import { emptyRootJob } from "./materialize-plan.ts";

export interface NextDirectoriesOptions {
  readonly buildDirectories: BuildDirectories;
  readonly runner: Runner;
  readonly threads: FileThreads;
}

export interface TakenDirectory {
  readonly directory: BuildDirectory;
  /** Its root exists. Otherwise nothing of it does. */
  readonly isMade: boolean;
}

interface Next {
  readonly directory: BuildDirectory;
  /** Resolves with false when it could not be made. */
  readonly made: Promise<boolean>;
  isMade: boolean;
}

interface Slot {
  next: Next | undefined;
  /** How the last action's sandbox looked. */
  lastLook: string | undefined;
}

export class NextDirectories {
  readonly #options: NextDirectoriesOptions;
  readonly #slots = new Map<number, Slot>();

  constructor(options: NextDirectoriesOptions) {
    this.#options = options;
  }

  /** The directory for an action that begins now. */
  take(slot: number): TakenDirectory {
    const state = this.#slotOf(slot);
    const { next } = state;
    state.next = undefined;
    if (next?.isMade === true) return { directory: next.directory, isMade: true };
    // One that is late is removed when it is there.
    void next?.made.then((isMade) => (isMade ? this.#options.buildDirectories.discard(next.directory) : undefined));
    return { directory: this.#options.buildDirectories.next(slot), isMade: false };
  }

  /** Makes the directory after the one in use. Nobody needs to wait for it. */
  make(slot: number): void {
    const { buildDirectories, runner, threads } = this.#options;
    const state = this.#slotOf(slot);
    if (runner.prepare === undefined || state.next !== undefined) return;
    const directory = buildDirectories.next(slot);
    const job = emptyRootJob(directory.rootPath, [directory.path], runner.ownerOf(slot));
    const next: Next = {
      directory,
      isMade: false,
      made: threads.run("materialize", job).then(
        () => (next.isMade = true),
        // The action itself will meet the same fault and report it; half of the directory may be there.
        () =>
          buildDirectories.discard(directory).then(
            () => false,
            () => false,
          ),
      ),
    };
    state.next = next;
  }

  /** The run of `spec` is over: the next one in its slot probably looks the same. */
  prepareSandbox(spec: RunSpec): void {
    const state = this.#slotOf(spec.slot);
    const view = viewOf(spec);
    const look = JSON.stringify({ ...view, inputRootPath: "" });
    const isUsual = state.lastLook === undefined || state.lastLook === look;
    state.lastLook = look;
    const { next } = state;
    if (!isUsual || next === undefined || makesMountPoints(spec)) return;
    const prepare = (isMade: boolean) => {
      if (isMade && state.next === next) {
        this.#options.runner.prepare?.({ ...view, inputRootPath: next.directory.rootPath });
      }
    };
    if (next.isMade) prepare(true);
    else void next.made.then(prepare);
  }

  #slotOf(slot: number): Slot {
    let state = this.#slots.get(slot);
    if (state === undefined) {
      state = { next: undefined, lastLook: undefined };
      this.#slots.set(slot, state);
    }
    return state;
  }
}

/**
 * Mounts inside the input root need directories there, which the sandbox makes when it is set up: inputs of the same
 * names could then not be created any more.
 */
function makesMountPoints({ rootMode, inputRootPathInside, mounts }: RunSpec): boolean {
  if (rootMode === "input-root") return true;
  const root = posix.normalize(inputRootPathInside ?? DEFAULT_INPUT_ROOT_PATH_INSIDE);
  return mounts.some(({ destination }) => `${posix.normalize(destination)}/`.startsWith(`${root}/`));
}

function viewOf(spec: RunSpec): PreparedView {
  const { slot, inputRootPath, rootMode, inputRootPathInside, mounts, temporaryPath, network, unixUid, unixGid } = spec;
  const { memoryBytes, diskBytes } = spec.limits;
  return {
    slot,
    inputRootPath,
    rootMode,
    mounts,
    network,
    limits: {
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(diskBytes === undefined ? {} : { diskBytes }),
    },
    ...(inputRootPathInside === undefined ? {} : { inputRootPathInside }),
    ...(temporaryPath === undefined ? {} : { temporaryPath }),
    ...(unixUid === undefined ? {} : { unixUid }),
    ...(unixGid === undefined ? {} : { unixGid }),
  };
}
