// The zstd thread: compresses and decompresses whole buffers, and goes on with streams piece by piece.
//
// Runs in a worker thread of piscina. A stream that failed or ended is forgotten at once; one that its client left is
// forgotten when the event loop says so.

import { move } from "piscina";
import { ZstdError } from "./zstd-context.ts";
import { ZstdDecoder } from "./zstd-decoder.ts";
import { STREAM_OUTPUT_BYTES, type DrainJob, type FeedJob, type ZstdAnswer, type ZstdJob } from "./zstd-protocol.ts";
import { compressWhole, decompressWhole } from "./zstd-whole.ts";

interface StreamState {
  readonly decoder: ZstdDecoder;
  isLast: boolean;
}

const streams = new Map<number, StreamState>();
/** Where output is made; it goes away when it is full. */
let scratch: Uint8Array<ArrayBuffer> | undefined;

export default function run(job: ZstdJob): ZstdAnswer {
  try {
    switch (job.type) {
      case "compress":
        return transferred(compressWhole(new Uint8Array(job.bytes, 0, job.length)));
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
    if (job.type === "feed" || job.type === "drain") forget(job.streamId);
    const code = error instanceof ZstdError ? error.code : "";
    return { failed: error instanceof Error ? error.message : String(error), code };
  }
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
}

function transferred(data: Uint8Array): ZstdAnswer {
  return move(data) as Uint8Array<ArrayBuffer>;
}
