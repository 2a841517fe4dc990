// A blob as the content of a new file: the path of the store's own file where there is one, else the bytes.

import type { BlobStore } from "../cas/blob-store.ts";
import { isEmptyDigest, type Digest } from "../digest/digest.ts";

/**
 * Returns a path to copy from or the bytes, or undefined when the blob is absent. The blob must be pinned while the
 * path is used. Blobs without a file of their own are small enough to be held in memory.
 */
export async function readBlobContent(store: BlobStore, digest: Digest): Promise<string | Uint8Array | undefined> {
  if (isEmptyDigest(digest)) return new Uint8Array(0);
  return store.filePath(digest) ?? (await store.get(digest));
}
