// What the event loop and a zstd thread say to each other: whole buffers, and the pieces of a stream to decompress.
//
// Buffers are transferred both ways. A thread keeps the context of every stream it was given by number, and nothing else
// while the client is silent.

/**
 * One output, and so one job, of a stream; a shorter one is the last of its piece. At half of it the hop to the thread
 * (40 µs) is a tenth of the work.
 */
export const STREAM_OUTPUT_BYTES = 512 * 1024;

interface Bytes {
  readonly bytes: ArrayBuffer;
  readonly length: number;
}

export interface CompressJob extends Bytes {
  readonly type: "compress";
}

/** The next piece of a stream to compress into one frame; answered with what of the frame is ready, perhaps nothing. */
export interface PressJob extends Bytes {
  readonly type: "press";
  readonly streamId: number;
  /** Of the whole stream. */
  readonly sizeBytes: number;
  readonly isLast: boolean;
}

export interface DecompressJob extends Bytes {
  readonly type: "decompress";
  readonly sizeBytes: number;
}

/** The next piece of a stream; answered with the first slab of what it holds. */
export interface FeedJob extends Bytes {
  readonly type: "feed";
  readonly streamId: number;
  /** Declared for the whole stream. */
  readonly sizeBytes: number;
  readonly isLast: boolean;
}

/** Asks for another slab of the piece given last. */
export interface DrainJob {
  readonly type: "drain";
  readonly streamId: number;
}

export interface ForgetStreamJob {
  readonly type: "forget";
  readonly streamId: number;
}

export type ZstdJob = CompressJob | PressJob | DecompressJob | FeedJob | DrainJob | ForgetStreamJob;

/** As a value: an Error would lose its code on the way between threads. */
export interface ZstdFailure {
  readonly failed: string;
  readonly code: string;
}

export type ZstdAnswer = Uint8Array<ArrayBuffer> | ZstdFailure | undefined;
