// The blobs and results of the fake server, in memory, with the rules of digests.

import { Code, StatusError, invalidArgument } from "../../../src/base/status.ts";
import { ActionResult, DigestFunction_Value as Fn, Directory, Tree } from "../../../src/proto/remote_execution.ts";
import type { Digest, DigestInit } from "../../../src/proto/remote_execution.ts";
import { findDigestFunction, type DigestFunctionSpec } from "../../../native-free-bench/digest-functions.ts";
import type { Has } from "./fake-grpc.ts";

export interface Key {
  readonly fn: DigestFunctionSpec;
  readonly hash: string;
  readonly sizeBytes: number;
}

export const BATCH_LIMIT_BYTES = 4 * 1024 * 1024 - 64 * 1024;
export const BLOB_LIMIT_BYTES = 2 ** 34;

export class FakeStore {
  readonly #blobs = new Map<string, Buffer>();
  readonly #byHash = new Map<string, Buffer>();
  readonly #results = new Map<string, ActionResult>();
  readonly #once = new Set<string>();
  readonly has: Has;

  constructor(has: Has) {
    this.has = has;
  }

  keyOf(digest: Partial<DigestInit> | undefined, functionValue: number): Key {
    if (functionValue !== 0 && functionValue !== Fn.SHA256 && functionValue !== Fn.BLAKE3)
      throw invalidArgument(`digest function ${functionValue}`);
    const fn = findDigestFunction(functionValue === 0 ? Fn.SHA256 : functionValue)!;
    const hash = digest?.hash ?? "";
    const sizeBytes = digest?.sizeBytes ?? 0;
    if (!/^[0-9a-f]{64}$/.test(hash) || sizeBytes < 0) {
      if (!this.has("find-missing.no-validation")) throw invalidArgument(`malformed digest "${hash}/${sizeBytes}"`);
    }
    if (sizeBytes === 0 && hash !== fn.hash(new Uint8Array(0)) && !this.has("find-missing.no-validation"))
      throw invalidArgument("size 0 with another hash");
    return { fn, hash, sizeBytes };
  }

  find(key: Key): Buffer | undefined {
    if (key.sizeBytes === 0 && key.hash === key.fn.hash(new Uint8Array(0))) return Buffer.alloc(0);
    return this.#blobs.get(this.#text(key));
  }

  findByHash(hash: string): Buffer | undefined {
    return hash === findDigestFunction(Fn.SHA256)!.hash(new Uint8Array(0)) ? Buffer.alloc(0) : this.#byHash.get(hash);
  }

  get(key: Key, what = "blob"): Buffer {
    const data = this.find(key);
    if (data === undefined) throw new StatusError(Code.NOT_FOUND, `${what} ${key.hash}/${key.sizeBytes} is not here`);
    return data;
  }

  /** Stores unverified. */
  put(key: Key, data: Uint8Array): void {
    if (key.sizeBytes > 0) this.#blobs.set(this.#text(key), Buffer.from(data));
    this.#byHash.set(key.hash, Buffer.from(data));
  }

  storeMessage(fn: DigestFunctionSpec, data: Uint8Array): Digest {
    const digest = { hash: fn.hash(data), sizeBytes: data.length };
    this.put({ fn, ...digest }, data);
    return digest;
  }

  matches(key: Key, data: Uint8Array): boolean {
    return data.length === key.sizeBytes && key.fn.hash(data) === key.hash;
  }

  // --- action results ------------------------------------------------------------------------------------------------

  putResult(instance: string, key: Key, result: ActionResult): void {
    const text = this.#resultText(instance, key);
    if (this.has("action-cache.first-write-wins") && this.#results.has(text)) return;
    this.#results.set(text, this.has("action-cache.symlinks-lost") ? { ...result, outputSymlinks: [] } : result);
  }

  findResult(instance: string, key: Key): ActionResult | undefined {
    const text = this.#resultText(instance, key);
    const result = this.#results.get(text);
    if (result === undefined) return undefined;
    if (this.#isComplete(result, key.fn.value)) return structuredClone(result);
    if (this.has("action-cache.forgets-incomplete")) this.#results.delete(text);
    return undefined;
  }

  /** For results named by hash alone. */
  findResultByHash(hash: string): ActionResult | undefined {
    const fn = findDigestFunction(Fn.SHA256)!;
    const result = this.#results.get(this.#resultText("", { fn, hash, sizeBytes: 0 }));
    return result === undefined || (!this.#isComplete(result, fn.value) && !this.has("http.result-unchecked"))
      ? undefined
      : result;
  }

  #isComplete(result: ActionResult, fn: number): boolean {
    const isHere = (digest: Digest | undefined): boolean =>
      digest === undefined || this.find(this.keyOf(digest, fn)) !== undefined;
    const filesAreHere = (directory: Directory | undefined): boolean =>
      directory === undefined || directory.files.every(({ digest }) => isHere(digest));
    if (!this.has("action-cache.incomplete-file") && !result.outputFiles.every(({ digest }) => isHere(digest)))
      return false;
    if (!this.has("action-cache.incomplete-logs") && !(isHere(result.stdoutDigest) && isHere(result.stderrDigest)))
      return false;
    for (const { treeDigest, rootDirectoryDigest } of result.outputDirectories) {
      if (this.has("action-cache.incomplete-tree")) continue;
      if (!isHere(treeDigest) || !isHere(rootDirectoryDigest)) return false;
      if (treeDigest === undefined) continue;
      const tree = Tree.decode(this.get(this.keyOf(treeDigest, fn)));
      const directories = this.has("action-cache.children-unchecked") ? [tree.root] : [tree.root, ...tree.children];
      if (!directories.every(filesAreHere)) return false;
    }
    return true;
  }

  // --- faults --------------------------------------------------------------------------------------------------------

  /** Whether FindMissingBlobs calls the blob present. */
  isPresent(key: Key): boolean {
    const { has } = this;
    const isEmpty = key.sizeBytes === 0;
    if (isEmpty && has("find-missing.empty-missing")) return false;
    if (has("find-missing.always-present")) return true;
    if (has("find-missing.always-missing") && !isEmpty) return false;
    if (has("find-missing.size-ignored") && this.#byHash.has(key.hash)) return true;
    if (
      has("find-missing.short-compare") &&
      [...this.#byHash.keys()].some((hash) => hash.startsWith(key.hash.slice(0, 16)))
    )
      return true;
    if (has("find-missing.negative-cache") && this.#once.has(key.hash)) return false;
    const isHere = this.find(key) !== undefined;
    if (!isHere) this.#once.add(key.hash);
    return isHere;
  }

  #text({ fn, hash, sizeBytes }: Key): string {
    return `${this.has("digest.function-ignored") ? "" : fn.name}/${hash}/${sizeBytes}`;
  }

  #resultText(instance: string, key: Key): string {
    return `${this.has("action-cache.instances-shared") ? "" : instance}|${key.fn.name}|${key.hash}`;
  }
}
