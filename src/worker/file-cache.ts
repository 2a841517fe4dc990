// Files ready to be hard-linked into input roots: one inode per (content, executable bit, replica).
//
// Invariant: a file in the cache is complete, 0444 or 0555, has the modification time of its replica, and is never
// changed: input roots share its inode. It is a cache beside the CAS: everything in it can be made again, and it is
// emptied at start. Used only where an action cannot write what the server owns (root with a uid per slot).
// Source: executor.md 3.2 and 3.3.

import type { BlobStore } from "../cas/blob-store.ts";
import { DigestFunction, type Digest } from "../digest/digest.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import { readBlobContent } from "./blob-content.ts";
import type { FileThreads } from "./file-threads.ts";
import { BASE_MTIME_SECONDS } from "./input-plan.ts";
import type { NewFile } from "./file-operations.ts";

export interface CachedFileKey {
  readonly digest: Digest;
  readonly isExecutable: boolean;
  readonly replica: number;
}

interface Entry {
  readonly path: string;
  readonly sizeBytes: number;
  /** How many input roots are being built from it; such an entry stays. */
  uses: number;
  readonly ready: Promise<void>;
}

interface AbsentFile {
  readonly key: CachedFileKey;
  readonly entry: Entry;
}

export interface AcquiredFiles {
  readonly paths: readonly string[];
  release(): void;
}

class OthersFailure extends Error {}

export interface FileCacheOptions {
  readonly directory: string;
  readonly store: BlobStore;
  readonly threads: FileThreads;
  readonly maxBytes: number;
  /** Inodes: a cache of small files fills the inode table of a small disk before its blocks. */
  readonly maxFiles: number;
}

/** Bytes of blobs in memory at once on their way into the cache. */
const BATCH_BYTES = 16 * 1024 * 1024;

export class FileCache {
  readonly #options: FileCacheOptions;
  /** In order of last use. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #nextFile = 1;

  /** `directory` exists and is empty. */
  constructor(options: FileCacheOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#entries.size;
  }

  /**
   * Returns the path of each file, in order. They stay until `release`; the blobs must be pinned until this resolves.
   * Throws FAILED_PRECONDITION when a blob is gone.
   */
  async acquire(keys: readonly CachedFileKey[]): Promise<AcquiredFiles> {
    for (;;) {
      try {
        return await this.#tryAcquire(keys);
      } catch (error) {
        // Another action failed while it made files that this one needs, too: it was not about ours, so make them.
        if (!(error instanceof OthersFailure)) throw error;
      }
    }
  }

  async #tryAcquire(keys: readonly CachedFileKey[]): Promise<AcquiredFiles> {
    const used: Entry[] = [];
    const absent: AbsentFile[] = [];
    const filled = Promise.withResolvers<void>();
    filled.promise.catch(() => undefined); // whoever waits for an entry has a handler of its own
    for (const key of keys) {
      const name = entryName(key);
      let entry = this.#entries.get(name);
      if (entry === undefined) {
        // Numbered, so that removing a file of the same key that was dropped earlier cannot remove this one.
        const path = `${this.#options.directory}/${name}-${this.#nextFile++}`;
        entry = { path, sizeBytes: key.digest.sizeBytes, uses: 0, ready: filled.promise };
        absent.push({ key, entry });
        this.#bytes += entry.sizeBytes;
      }
      this.#entries.delete(name);
      this.#entries.set(name, entry);
      entry.uses++;
      used.push(entry);
    }
    const paths = used.map((entry) => entry.path);
    const release = () => {
      for (const entry of used.splice(0)) entry.uses--;
      this.#shrink();
    };
    try {
      await this.#make(absent).then(filled.resolve, (error: unknown) => {
        filled.reject(new OthersFailure("another action failed", { cause: error }));
        throw error;
      });
      await Promise.all(new Set(used.map((entry) => entry.ready)));
    } catch (error) {
      release();
      throw error;
    }
    return { paths, release };
  }

  /** Makes all of them, or forgets all of them. */
  async #make(absent: readonly AbsentFile[]): Promise<void> {
    try {
      await this.#fill(absent);
    } catch (error) {
      for (const { key, entry } of absent) this.#forget(entryName(key), entry);
      this.#remove(absent.map(({ entry }) => entry.path)); // some may be there
      throw error;
    }
  }

  async #fill(absent: readonly AbsentFile[]): Promise<void> {
    let batch: NewFile[] = [];
    let bytes = 0;
    const flush = async () => {
      const files = batch;
      batch = [];
      bytes = 0;
      await this.#options.threads.run("writeFiles", files);
    };
    for (const { key, entry } of absent) {
      const content = await readBlobContent(this.#options.store, key.digest);
      if (content === undefined) throw missingBlobs([key.digest], "Input root");
      batch.push({
        path: entry.path,
        content,
        mode: key.isExecutable ? 0o555 : 0o444,
        mtimeSeconds: BASE_MTIME_SECONDS + key.replica,
      });
      if (typeof content !== "string") bytes += content.length;
      if (bytes >= BATCH_BYTES) await flush();
    }
    if (batch.length > 0) await flush();
  }

  #shrink(): void {
    const doomed: string[] = [];
    for (const [name, entry] of this.#entries) {
      if (this.#bytes <= this.#options.maxBytes && this.#entries.size <= this.#options.maxFiles) break;
      if (entry.uses > 0) continue;
      this.#forget(name, entry);
      doomed.push(entry.path);
    }
    if (doomed.length > 0) this.#remove(doomed);
  }

  #remove(paths: readonly string[]): void {
    // Nobody waits for it, and what could not be removed is swept at the next start.
    this.#options.threads.run("removeTrees", paths).catch(() => undefined);
  }

  #forget(name: string, entry: Entry): void {
    if (this.#entries.get(name) !== entry) return;
    this.#entries.delete(name);
    this.#bytes -= entry.sizeBytes;
  }
}

function entryName({ digest, isExecutable, replica }: CachedFileKey): string {
  const fn = digest.fn === DigestFunction.BLAKE3 ? "b" : "s";
  return `${digest.hash}-${fn}${isExecutable ? "x" : ""}${replica}`;
}
