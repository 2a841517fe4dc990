// Builds input trees, commands and actions for tests and puts them into a store, the way a client does.

import type { BlobStore } from "../../src/cas/blob-store.ts";
import { digestOf } from "../../src/compute/hash.ts";
import { DigestFunction, toWireDigest, type Digest } from "../../src/digest/digest.ts";
import {
  Action,
  Command,
  Directory,
  type ActionInit,
  type CommandInit,
  type NodePropertiesInit,
} from "../../src/proto/remote_execution.ts";
import type { ActionJob } from "../../src/worker/executor.ts";

/** A tree as nested objects: text and bytes are files, `{ target }` is a symlink, every other object a directory. */
export interface TreeSpec {
  readonly [name: string]: string | Uint8Array | FileSpec | SymlinkSpec | DirectorySpec;
}

export interface FileSpec {
  readonly content: string | Uint8Array;
  readonly isExecutable?: boolean;
  readonly nodeProperties?: NodePropertiesInit;
}

export interface SymlinkSpec {
  readonly target: string;
}

export interface DirectorySpec {
  readonly entries: TreeSpec;
  readonly nodeProperties?: NodePropertiesInit;
}

export function executable(content: string): FileSpec {
  return { content, isExecutable: true };
}

export class ActionBuilder {
  readonly store: BlobStore;
  readonly fn: DigestFunction;

  constructor(store: BlobStore, fn: DigestFunction = DigestFunction.SHA256) {
    this.store = store;
    this.fn = fn;
  }

  async blob(content: string | Uint8Array): Promise<Digest> {
    const bytes = typeof content === "string" ? Buffer.from(content) : content;
    const digest = digestOf(this.fn, bytes);
    await this.store.put(digest, bytes);
    return digest;
  }

  async tree(entries: TreeSpec, nodeProperties?: NodePropertiesInit): Promise<Digest> {
    const files = [];
    const directories = [];
    const symlinks = [];
    for (const [name, entry] of Object.entries(entries).toSorted(([a], [b]) =>
      Buffer.compare(bytesOf(a), bytesOf(b)),
    )) {
      if (typeof entry === "string" || entry instanceof Uint8Array) {
        files.push({ name, digest: toWireDigest(await this.blob(entry)) });
      } else if ("content" in entry && (typeof entry.content === "string" || entry.content instanceof Uint8Array)) {
        const { isExecutable, nodeProperties: own } = entry as FileSpec;
        files.push({ name, digest: toWireDigest(await this.blob(entry.content)), isExecutable, nodeProperties: own });
      } else if ("target" in entry && typeof entry.target === "string") {
        symlinks.push({ name, target: entry.target });
      } else {
        const { entries: children, nodeProperties: own } = entry as DirectorySpec;
        directories.push({ name, digest: toWireDigest(await this.tree(children, own)) });
      }
    }
    return this.blob(Directory.encode({ files, directories, symlinks, nodeProperties }));
  }

  async command(command: CommandInit): Promise<Digest> {
    return this.blob(Command.encode(command));
  }

  /** The job of an action; what is left out has a default that works. */
  async job(options: {
    readonly command: CommandInit;
    readonly inputs?: TreeSpec | Digest;
    readonly action?: ActionInit;
    readonly instanceName?: string;
  }): Promise<ActionJob> {
    const { inputs = {}, action: overrides } = options;
    const inputRoot = isDigest(inputs) ? inputs : await this.tree(inputs);
    const action = Action.encode({
      commandDigest: toWireDigest(await this.command(options.command)),
      inputRootDigest: toWireDigest(inputRoot),
      ...overrides,
    });
    const actionDigest = await this.blob(action);
    return {
      instanceName: options.instanceName ?? "",
      actionDigest,
      action,
      cacheable: overrides?.doNotCache !== true,
      queuedAtMs: 1_700_000_000_000,
      toolInvocationId: undefined,
      targetId: undefined,
      actionMnemonic: undefined,
    };
  }
}

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text);
}

function isDigest(value: TreeSpec | Digest): value is Digest {
  return typeof value["hash"] === "string" && typeof value["sizeBytes"] === "number";
}
