// Where actions run: one directory per action below its slot's, and a trash that is emptied off the path.
//
//   {exec}/slots/{slot}/{n}/root     the input root            {exec}/files/   the file cache
//   {exec}/slots/{slot}/{n}/stdout   written by the runner     {exec}/trees/   the tree cache
//   {exec}/slots/{slot}/{n}/stderr   likewise                  {exec}/trash/   on its way out
//   {exec}/kept/{slot}/{n}           an input directory that an action left as it was (kept-directories.ts)
//
// Invariant: a directory is used by one action and never again, so nothing of one action is seen by the next; input
// directories that were proven unchanged are taken out of it first. What a killed server left is removed at start. {exec} lies on the file system of the CAS, so that files can be linked.

import { existsSync, mkdirSync, chownSync, renameSync } from "node:fs";
import { FileThreads } from "./file-threads.ts";
import { removeTrees, type Owner } from "./file-operations.ts";

export interface BuildDirectory {
  readonly path: string;
  readonly rootPath: string;
  readonly stdoutPath: string;
  readonly stderrPath: string;
}

/** Removals under way per slot before an action waits for one: its own leftovers must not fill the disk. */
const MAX_PENDING_REMOVALS = 8;
/** Waking a thread costs more than removing what a trivial action left, so a few actions are removed at a time. */
const REMOVAL_DELAY_MS = 50;

/** The runner has others beside these. */
const OWN_NAMES = ["slots", "files", "trees", "kept", "trash"];
/** Left by a start that was killed while it swept. */
const SWEPT_NAME = "swept";

export class BuildDirectories {
  readonly #path: string;
  /** Its own: removing 50,000 files takes longer than an action may wait for a thread. */
  readonly #threads = new FileThreads(1);
  readonly #slots: number;
  #nextDirectory = 1;
  /** In the trash, and not given to the thread yet. */
  #doomed: string[] = [];
  /** How many the thread has. */
  #dying = 0;
  #timer: NodeJS.Timeout | undefined;
  #emptied = Promise.resolve();
  /** Directories on their way into the trash. */
  readonly #leaving = new Set<Promise<void>>();

  private constructor(path: string, slots: number) {
    this.#path = path;
    this.#slots = slots;
  }

  /** Prepares `path` and removes what an earlier server left there. */
  static async open(options: {
    readonly path: string;
    readonly slots: number;
    readonly ownerOf: (slot: number) => Owner | undefined;
  }): Promise<BuildDirectories> {
    const { path, slots, ownerOf } = options;
    mkdirSync(path, { recursive: true, mode: 0o755 });
    sweep(path);
    for (const name of OWN_NAMES) mkdirSync(`${path}/${name}`, { recursive: true, mode: 0o755 });
    for (let slot = 0; slot < slots; slot++) {
      makeSlotDirectory(`${path}/slots/${slot}`, ownerOf(slot));
      mkdirSync(`${path}/kept/${slot}`, 0o700);
    }
    const directories = new BuildDirectories(path, slots);
    directories.#remove(`${path}/trash/old`);
    return directories;
  }

  /** For a start that executes nothing: what an earlier one left goes as well, in the background; close() waits for it. */
  static removeLeftovers(path: string): BuildDirectories {
    const directories = new BuildDirectories(path, 0);
    if (sweep(path)) directories.#remove(`${path}/trash/old`);
    return directories;
  }

  get fileCachePath(): string {
    return `${this.#path}/files`;
  }

  get treeCachePath(): string {
    return `${this.#path}/trees`;
  }

  keptPath(slot: number): string {
    return `${this.#path}/kept/${slot}`;
  }

  /** Names a fresh directory; the caller creates it (together with the input root, in one job). */
  next(slot: number): BuildDirectory {
    const path = `${this.#path}/slots/${slot}/${this.#nextDirectory++}`;
    return { path, rootPath: `${path}/root`, stdoutPath: `${path}/stdout`, stderrPath: `${path}/stderr` };
  }

  /** Takes the directory out of the slot at once; its removal goes on in the background. */
  async discard(directory: BuildDirectory): Promise<void> {
    this.discardPath(directory.path);
    if (this.#doomed.length + this.#dying > MAX_PENDING_REMOVALS * Math.max(1, this.#slots)) await this.#empty();
  }

  /** The same once nobody looks at it any more. Never rejects. */
  discardAfter(isLookedAt: Promise<void>, directory: BuildDirectory): Promise<void> {
    const left = isLookedAt
      .then(() => this.discard(directory))
      .catch(() => undefined) // safe: what stays in the slot is swept at the next start
      .finally(() => this.#leaving.delete(left));
    this.#leaving.add(left);
    return left;
  }

  /** A file or directory of ours that need not be there. */
  discardPath(path: string): void {
    if (!existsSync(path)) return;
    const trashPath = `${this.#path}/trash/${this.#nextDirectory++}`;
    renameSync(path, trashPath);
    this.#remove(trashPath);
  }

  /** Resolves when the trash is empty. */
  async settle(): Promise<void> {
    await Promise.all(this.#leaving);
    while (this.#doomed.length > 0 || this.#dying > 0) await this.#empty();
  }

  /** Empties the trash; no action may run any more. */
  async close(): Promise<void> {
    await this.settle();
    await this.#threads.close();
  }

  #remove(path: string): void {
    this.#doomed.push(path);
    this.#timer ??= setTimeout(() => void this.#empty(), REMOVAL_DELAY_MS); // never rejects
  }

  /** Resolves when all that is in the trash now has been removed. */
  #empty(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const paths = this.#doomed.splice(0);
    if (paths.length === 0) return this.#emptied;
    this.#dying += paths.length;
    this.#emptied = this.#threads
      .run("removeTrees", paths)
      // Safe: what is left is swept at the next start, and a full disk shows where it matters.
      .catch(() => undefined)
      .then(() => void (this.#dying -= paths.length));
    return this.#emptied;
  }
}

/** Moves what is ours of an earlier server into a new trash: renaming is quick however much there is. False: nothing. */
function sweep(path: string): boolean {
  const leftovers = OWN_NAMES.filter((name) => existsSync(`${path}/${name}`));
  if (leftovers.length === 0) return false;
  const swept = `${path}/${SWEPT_NAME}`;
  removeTrees([swept]);
  mkdirSync(swept, 0o700);
  for (const name of leftovers) renameSync(`${path}/${name}`, `${swept}/${name}`);
  mkdirSync(`${path}/trash`, 0o755);
  renameSync(swept, `${path}/trash/old`);
  return true;
}

/** Only the slot's own user gets in, so that no action could reach another's files even outside its sandbox. */
function makeSlotDirectory(path: string, owner: Owner | undefined): void {
  mkdirSync(path, 0o700);
  if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
}
