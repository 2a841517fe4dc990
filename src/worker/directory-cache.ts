// Directories that were read, checked and decoded lately, by digest: input roots share most of theirs.
//
// Invariant: an entry is a pure function of its digest, so it is never stale; the bound is on the bytes of the messages.
// Whether the blob is still in the CAS is asked for each action anew.

import { digestKey, type Digest } from "../digest/digest.ts";
import { parseInputDirectory, type InputDirectory } from "./input-directory.ts";

/**
 * Encoded bytes held; decoded they take some four times as much. A Bazel build of a few thousand actions touches 1 to 5
 * MiB of distinct directories, so this holds several builds.
 */
const DEFAULT_MAX_BYTES = 16 * 1024 * 1024;

export class DirectoryCache {
  readonly #maxBytes: number;
  /** In order of last use. */
  readonly #entries = new Map<string, { readonly directory: InputDirectory; readonly sizeBytes: number }>();
  #bytes = 0;

  constructor(maxBytes = DEFAULT_MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  find(digest: Digest): InputDirectory | undefined {
    const key = digestKey(digest);
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.directory;
  }

  /** Decodes `bytes` and remembers the outcome. Throws INVALID_ARGUMENT as parseInputDirectory. */
  add(digest: Digest, bytes: Uint8Array): InputDirectory {
    const directory = parseInputDirectory(digest, bytes);
    const key = digestKey(digest);
    if (this.#entries.has(key) || digest.sizeBytes > this.#maxBytes / 4) return directory;
    this.#entries.set(key, { directory, sizeBytes: digest.sizeBytes });
    this.#bytes += digest.sizeBytes;
    this.#shrink();
    return directory;
  }

  #shrink(): void {
    for (const [key, entry] of this.#entries) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#entries.delete(key);
      this.#bytes -= entry.sizeBytes;
    }
  }
}
