// The seam of the opaque key-value store behind --http-opaque: any key, any bytes, overwriting allowed.
//
// For clients of the HTTP cache whose bodies are not action results (ccache, sccache, Gradle). Counted and evicted
// together with blobs. Keys are the URL path below the prefix, percent-decoded, at most 1 KiB of UTF-8.

import type { BlobReader, ReadOptions } from "./blob-store.ts";

export interface OpaqueStore {
  /** Size and modification time, or undefined when absent. Touches the entry. */
  find(key: string): Promise<OpaqueInfo | undefined>;
  openRead(key: string, options?: ReadOptions): Promise<BlobReader | undefined>;
  /** Durable once it resolves; concurrent readers of the old value finish undisturbed. */
  put(key: string, chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<void>;
  /** False when there was none. */
  delete(key: string): Promise<boolean>;
}

export interface OpaqueInfo {
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}
