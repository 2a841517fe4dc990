// Which blobs live inside the key-value store.

/**
 * Smaller blobs are values in LMDB, from here on they are files. See docs/decisions/0005-inline-limit.md for the curve: below
 * it a shared commit beats a file's three syncs, above it LMDB copies more pages than a file would write.
 */
export const INLINE_LIMIT_BYTES = 64 * 1024;
