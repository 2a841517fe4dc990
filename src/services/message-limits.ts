// How large messages may be, in both directions, and why.
//
// Invariant: what Capabilities announces is what the batch methods take, and no answer is larger than what gRPC clients
// accept by default, except an ActionResult that cannot be made smaller.

/** The default receive limit of the common gRPC libraries. One byte more and the client drops the answer. */
export const MAX_RESPONSE_BYTES = 4 * 1024 * 1024;

/**
 * Announced as max_batch_total_size_bytes. 64 KiB below the response limit, so that a full BatchReadBlobs answer with
 * several hundred digests still fits; BuildBox subtracts the same amount on its side.
 */
export const MAX_BATCH_TOTAL_BYTES = MAX_RESPONSE_BYTES - 64 * 1024;

/**
 * Requests of methods whose overhead per item is unbounded: 100,000 digests (FindMissingBlobs) or a batch of
 * thousands of tiny blobs are legal. At half of it a FindMissingBlobs of 100,000 digests would fail.
 */
export const MAX_LIST_REQUEST_BYTES = 16 * 1024 * 1024;

/**
 * A data message of a stream. Large enough that per-message costs vanish, small enough that a slow reader holds little;
 * clients take up to 4 MiB.
 */
export const STREAM_CHUNK_BYTES = 1024 * 1024;
