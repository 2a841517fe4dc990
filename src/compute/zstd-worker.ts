// The zstd thread: compresses and decompresses whole buffers, and goes on with streams piece by piece.
//
// Runs in a worker thread of piscina. A stream that failed or ended is forgotten at once; one that its client left is
// forgotten when the event loop says so.

import { move } from "piscina";
import { ZstdContext, ZstdError } from "./zstd-context.ts";
import { ZstdDecoder } from "./zstd-decoder.ts";
import {
  STREAM_OUTPUT_BYTES,
  type DrainJob,
  type FeedJob,
  type PressJob,
  type ZstdAnswer,
  type ZstdJob,
} from "./zstd-protocol.ts";
import { compressWhole, decompressWhole, maxFrameBytes } from "./zstd-whole.ts";

interface StreamState {
  readonly decoder: ZstdDecoder;
  isLast: boolean;
}

const streams = new Map<number, StreamState>();
const encoders = new Map<number, ZstdContext>();
/** Where output is made; it goes away when it is full. */
let scratch: Uint8Array<ArrayBuffer> | undefined;

export default function run(job: ZstdJob): ZstdAnswer {
  try {
    switch (job.type) {
      case "compress":
        return transferred(compressWhole(new Uint8Array(job.bytes, 0, job.length)));
      case "press":
        return press(job);
      case "decompress":
        return transferred(decompressWhole(new Uint8Array(job.bytes, 0, job.length), job.sizeBytes));
      case "feed":
        return feed(job);
      case "drain":
        return drain(job);
      case "forget":
        forget(job.streamId);
        return undefined;
    }
  } catch (error) {
    if ("streamId" in job) forget(job.streamId);
    const code = error instanceof ZstdError ? error.code : "";
    return { failed: error instanceof Error ? error.message : String(error), code };
  }
}

/** What an encoder holds back: the largest block of the format, and no more. */
const MAX_HELD_BYTES = 128 * 1024;

function press(job: PressJob): ZstdAnswer {
  let encoder = encoders.get(job.streamId);
  if (encoder === undefined) encoders.set(job.streamId, (encoder = ZstdContext.encoderOf(job.sizeBytes)));
  const input = new Uint8Array(job.bytes, 0, job.length);
  const output = new Uint8Array(maxFrameBytes(job.length + MAX_HELD_BYTES));
  // One step takes all of the input as long as there is room; another one after the last would begin a new frame.
  const { read, written } = encoder.step(input, output, job.isLast);
  if (read !== input.length || written === output.length) throw new Error("a piece of a zstd frame is over its bound");
  if (job.isLast) forget(job.streamId);
  return transferred(written * 2 < output.length ? output.slice(0, written) : output.subarray(0, written));
}

function feed(job: FeedJob): ZstdAnswer {
  let state = streams.get(job.streamId);
  if (state === undefined)
    streams.set(job.streamId, (state = { decoder: new ZstdDecoder(job.sizeBytes), isLast: false }));
  state.isLast = job.isLast;
  state.decoder.feed(new Uint8Array(job.bytes, 0, job.length), job.isLast);
  return nextSlab(job.streamId, state);
}

function drain(job: DrainJob): ZstdAnswer {
  const state = streams.get(job.streamId);
  if (state === undefined) throw new Error(`zstd stream ${job.streamId} is not known`);
  return nextSlab(job.streamId, state);
}

function nextSlab(streamId: number, state: StreamState): ZstdAnswer {
  const slab = (scratch ??= new Uint8Array(STREAM_OUTPUT_BYTES));
  const made = state.decoder.fill(slab);
  if (made < slab.length && state.isLast) forget(streamId);
  // Half full goes as it is: the receiver hands such a buffer on without copying it.
  if (made * 2 < slab.length) return transferred(slab.slice(0, made));
  scratch = undefined;
  return transferred(slab.subarray(0, made));
}

function forget(streamId: number): void {
  streams.get(streamId)?.decoder.close();
  streams.delete(streamId);
  encoders.get(streamId)?.close();
  encoders.delete(streamId);
}

function transferred(data: Uint8Array): ZstdAnswer {
  return move(data) as Uint8Array<ArrayBuffer>;
}
