// Walks the directories below a root Directory, breadth first, each distinct one once.
//
// Invariant: the order depends on the content alone, so a position in it survives between calls. Depth costs nothing (no
// recursion), reads run a bounded number ahead, and the loop lets others in. Absent directories are reported, not
// skipped over silently: what that means is the caller's affair.

import { setImmediate } from "node:timers/promises";
import { Code, StatusError } from "../base/status.ts";
import { formatDigest, isEmptyDigest, type Digest } from "../digest/digest.ts";
import type { BlobStore } from "./blob-store.ts";
import { visitDirectory } from "./directory-reader.ts";

export interface WalkedDirectory {
  /** Position among the distinct directories of the tree, the root being 0; absent ones count. */
  readonly position: number;
  readonly digest: Digest;
  /** The serialized Directory, or undefined when it is absent. */
  readonly bytes: Uint8Array | undefined;
}

export interface WalkOptions {
  /** Directories beyond this size end the walk with RESOURCE_EXHAUSTED. */
  readonly maxDirectoryBytes: number;
  /** Told of the files of each directory before that is yielded. */
  readonly onFile?: (digest: Digest) => void;
  readonly signal?: AbortSignal;
}

/** Distinct directories of one walk. 500,000 are ten times the largest root file systems; each costs 150 bytes. */
export const MAX_DIRECTORIES = 500_000;
/** Reads ahead of the consumer: enough to keep a disk busy, in count and in bytes. */
const MAX_AHEAD = 16;
const MAX_AHEAD_BYTES = 4 * 1024 * 1024;
/** Directories that come straight from memory before the event loop gets a turn: about a millisecond. */
const TURN = 256;

/** Throws INVALID_ARGUMENT when a blob named as a directory is not a Directory message. */
export async function* walkTree(blobs: BlobStore, root: Digest, options: WalkOptions): AsyncGenerator<WalkedDirectory> {
  const queue: Digest[] = [root];
  const seen = new Set([keyOf(root)]);
  const onDirectory = (digest: Digest): void => {
    const key = keyOf(digest);
    if (seen.has(key)) return;
    if (seen.size >= MAX_DIRECTORIES) throw tooManyDirectories(root);
    seen.add(key);
    queue.push(digest);
  };
  const visitor = { file: options.onFile ?? (() => undefined), directory: onDirectory };
  const ahead: { readonly digest: Digest; readonly bytes: ReturnType<BlobStore["get"]> }[] = [];
  let aheadBytes = 0;
  for (let position = 0, next = 0; position < queue.length; position++) {
    if (position % TURN === TURN - 1) await setImmediate();
    options.signal?.throwIfAborted();
    while (next < queue.length && (ahead.length === 0 || (ahead.length < MAX_AHEAD && aheadBytes < MAX_AHEAD_BYTES))) {
      const digest = queue[next++]!;
      if (digest.sizeBytes > options.maxDirectoryBytes) throw tooLarge(digest, options.maxDirectoryBytes);
      ahead.push({ digest, bytes: readAhead(blobs, digest) });
      aheadBytes += digest.sizeBytes;
    }
    const { digest, bytes: reading } = ahead.shift()!;
    aheadBytes -= digest.sizeBytes;
    const bytes = reading instanceof Promise ? await reading : reading;
    if (bytes !== undefined) visitDirectory(bytes, root.fn, `blob "${formatDigest(digest)}"`, visitor);
    yield { position, digest, bytes };
  }
}

function readAhead(blobs: BlobStore, digest: Digest): ReturnType<BlobStore["get"]> {
  if (isEmptyDigest(digest)) return new Uint8Array(0); // the empty Directory is the empty blob
  const reading = blobs.get(digest);
  // Whoever stops the walk early never awaits what was read ahead; a failure of that must not end the process.
  if (reading instanceof Promise) reading.catch(() => undefined);
  return reading;
}

/** The function is the same in the whole tree. */
function keyOf(digest: Digest): string {
  return `${digest.hash}${digest.sizeBytes}`;
}

function tooManyDirectories(root: Digest): StatusError {
  return new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `the tree of "${formatDigest(root)}" has more than ${MAX_DIRECTORIES} distinct directories`,
  );
}

function tooLarge(digest: Digest, maxBytes: number): StatusError {
  return new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `directory "${formatDigest(digest)}" has ${digest.sizeBytes} bytes, at most ${maxBytes} are possible here: ` +
      "read it through ByteStream.Read",
  );
}
