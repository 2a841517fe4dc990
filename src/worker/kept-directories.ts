// Input directories that an action left as they were, ready for the next action in the slot that has the same ones.
//
//   action n ends ── what it did not change is moved to kept/ ──► action n+1 begins ── what it needs is moved into it
//
// Moving a directory is one system call, whatever it holds. Invariant: a kept directory is, inode for inode, what was
// made for its Directory, proven by the kernel's change times (directory-stamp.ts); it belongs to one slot, whose user
// owns it, and to one action at a time. What was changed, or merely may have been, is thrown away with the build directory.

import type { BuildDirectories, BuildDirectory } from "./build-directories.ts";
import { MIN_KEPT_ENTRIES, preorder, type LaidOutDirectory } from "./directory-layout.ts";
import { blindMs } from "./directory-stamp.ts";
import type { FileThreads } from "./file-threads.ts";
import type { DirectorySupply } from "./input-plan.ts";
import type { KeptPart, LeftDirectory } from "./keep-job.ts";

export interface KeptDirectoriesOptions {
  readonly buildDirectories: BuildDirectories;
  readonly threads: FileThreads;
  readonly slots: number;
  /** Files, directories and symlinks of all slots together: names on the disk. */
  readonly maxEntries: number;
  /** Of the files in them, whether they are links or copies. */
  readonly maxBytes: number;
}

export interface LeftRoot {
  readonly directory: BuildDirectory;
  readonly layout: LaidOutDirectory;
  /** When the action could begin to change anything. */
  readonly startedAtMs: number;
}

interface Slot {
  readonly path: string;
  /** Whole directories on the disk, in order of last use. */
  readonly tops: Map<LaidOutDirectory, Top>;
  /** Also those within others. */
  readonly byKey: Map<string, LaidOutDirectory[]>;
  entryCount: number;
  sizeBytes: number;
  nextNumber: number;
  /** What was taken for the action that begins and may still lie here. */
  taken: string[];
  pending: Promise<void>;
}

interface Top {
  readonly path: string;
  /** What is left of it. */
  entryCount: number;
  sizeBytes: number;
}

export class KeptDirectories {
  readonly #options: KeptDirectoriesOptions;
  readonly #slots = new Map<number, Slot>();
  #blindMs: number | undefined;

  constructor(options: KeptDirectoriesOptions) {
    this.#options = options;
  }

  /** What an action that begins in `slot` may take; waits until the action before it has been looked at. */
  async supplyFor(slot: number): Promise<DirectorySupply> {
    const state = this.#slotOf(slot);
    await state.pending;
    state.taken = [];
    return {
      find: (key) => state.byKey.get(key) ?? [],
      take: (directory) => this.#take(state, directory),
    };
  }

  /** The input root was not made after all: what was taken for it belongs to nobody. */
  abandon(slot: number): void {
    const state = this.#slotOf(slot);
    for (const path of state.taken) this.#options.buildDirectories.discardPath(path);
    state.taken = [];
  }

  /** The disk is full. */
  discardAll(): void {
    for (const state of this.#slots.values()) for (const node of state.tops.keys()) this.#drop(state, node);
  }

  /** Keeps what can be kept of the input root of an action that has ended, and discards the rest. Never rejects. */
  keep(slot: number, left: LeftRoot): void {
    const state = this.#slotOf(slot);
    const { buildDirectories } = this.#options;
    const kept = this.#keep(state, left).catch(() => undefined); // safe: what is not kept is discarded
    state.pending = buildDirectories.discardAfter(kept, left.directory);
  }

  async #keep(state: Slot, { directory, layout, startedAtMs }: LeftRoot): Promise<void> {
    const nodes = layout.children.filter(isWorthIt).flatMap((child) => [...preorder(child)]);
    if (nodes.length === 0) return;
    this.#blindMs ??= blindMs(state.path);
    const parts = await this.#options.threads.run("keepDirectories", {
      root: directory.rootPath,
      directories: describe(nodes),
      keptPath: state.path,
      firstNumber: state.nextNumber,
      trustedUntilMs: this.#blindMs === 0 ? Number.POSITIVE_INFINITY : startedAtMs - this.#blindMs,
    });
    for (const part of parts) this.#add(state, nodes[part.position]!, part);
    state.nextNumber += parts.length;
    this.#shrink(state);
  }

  #add(state: Slot, top: LaidOutDirectory, { number, stamp }: KeptPart): void {
    top.parent = undefined;
    top.stamp = stamp;
    top.name = String(number);
    state.tops.set(top, {
      path: `${state.path}/${number}`,
      entryCount: top.entryCount,
      sizeBytes: top.sizeBytes,
    });
    state.entryCount += top.entryCount;
    state.sizeBytes += top.sizeBytes;
    for (const node of preorder(top)) {
      // Taking a small one would break a large one.
      if (!isWorthIt(node)) continue;
      const others = state.byKey.get(node.key!);
      if (others === undefined) state.byKey.set(node.key!, [node]);
      else others.push(node);
    }
  }

  #take(state: Slot, node: LaidOutDirectory): string {
    for (const below of preorder(node)) this.#forget(state, below);
    let path = "";
    let above = node;
    for (; above.parent !== undefined; above = above.parent) {
      path = `/${above.name}${path}`;
      // Without this one it is not what its key says any more.
      this.#forget(state, above.parent);
    }
    const top = state.tops.get(above)!;
    path = top.path + path;
    top.entryCount -= node.entryCount;
    top.sizeBytes -= node.sizeBytes;
    state.entryCount -= node.entryCount;
    state.sizeBytes -= node.sizeBytes;
    if (above === node) state.tops.delete(above);
    else node.parent!.children.splice(node.parent!.children.indexOf(node), 1);
    state.taken.push(path);
    return path;
  }

  #forget(state: Slot, node: LaidOutDirectory): void {
    const { key } = node;
    const others = state.byKey.get(key!);
    const position = others?.indexOf(node) ?? -1;
    if (position === -1) return;
    if (others!.length === 1) state.byKey.delete(key!);
    else others!.splice(position, 1);
  }

  #shrink(state: Slot): void {
    const { slots, maxEntries, maxBytes } = this.#options;
    for (const node of state.tops.keys()) {
      if (state.entryCount <= maxEntries / slots && state.sizeBytes <= maxBytes / slots) return;
      this.#drop(state, node);
    }
  }

  #drop(state: Slot, node: LaidOutDirectory): void {
    const top = state.tops.get(node)!;
    for (const below of preorder(node)) this.#forget(state, below);
    state.tops.delete(node);
    state.entryCount -= top.entryCount;
    state.sizeBytes -= top.sizeBytes;
    this.#options.buildDirectories.discardPath(top.path);
  }

  #slotOf(slot: number): Slot {
    let state = this.#slots.get(slot);
    if (state === undefined) {
      state = {
        path: this.#options.buildDirectories.keptPath(slot),
        tops: new Map(),
        byKey: new Map(),
        entryCount: 0,
        sizeBytes: 0,
        nextNumber: 1,
        taken: [],
        pending: Promise.resolve(),
      };
      this.#slots.set(slot, state);
    }
    return state;
  }
}

function isWorthIt(node: LaidOutDirectory): boolean {
  return node.entryCount >= MIN_KEPT_ENTRIES;
}

function describe(nodes: readonly LaidOutDirectory[]): LeftDirectory[] {
  const positions = new Map(nodes.map((node, position) => [node, position]));
  return nodes.map((node) => ({
    name: node.name,
    parent: positions.get(node.parent!) ?? -1,
    stamp: node.stamp!,
    check: node.check,
    isInput: node.key !== undefined,
    isWorthIt: isWorthIt(node) && node.isMovable,
  }));
}
