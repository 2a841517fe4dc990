// The trace of `ledge record`: one JSON object a line (docs/formats/trace.md).
//
// Invariant: a trace holds no header, no environment and no file name unless bytes were asked for (`--keep-bytes`):
// digests, sizes, times, codes. Reading refuses what it does not know, naming the line.

import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

export const TRACE_FORMAT = "ledge-trace/1";

export interface TraceHeader {
  readonly format: typeof TRACE_FORMAT;
  readonly startedAt: string;
  /** Whether requests and responses have their bytes. */
  readonly keepsBytes: boolean;
}

export interface TraceDigest {
  readonly hash: string;
  readonly size: number;
}

/** One call, in the order in which calls ended. */
export interface TraceCall {
  /** Milliseconds from the start of the trace to the first byte of the request. */
  readonly at: number;
  /** Milliseconds until the status. */
  readonly took: number;
  readonly connection: number;
  readonly path: string;
  readonly code: number;
  /** Payload bytes of each request message, prefixes excluded. */
  readonly sent: readonly number[];
  /** Payload bytes of the response messages in all. */
  readonly received: number;
  /** What the request names: digests of FindMissingBlobs, blobs of a batch, the action, the blob of a stream. */
  readonly digests?: readonly TraceDigest[];
  readonly digestFunction?: number;
  /** Of ByteStream.Read. */
  readonly offset?: number;
  readonly limit?: number;
  readonly compressor?: string;
  /** The request messages in base64; only with --keep-bytes. */
  readonly messages?: readonly string[];
}

/** Yields the calls of a trace. */
export async function* readTrace(path: string): AsyncGenerator<TraceCall> {
  let number = 0;
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
    number++;
    if (line === "") continue;
    const value = parseLine(line, path, number);
    if (number === 1) {
      if ((value as Partial<TraceHeader>).format !== TRACE_FORMAT)
        throw new Error(`"${path}" is not a trace: its first line does not say "format": "${TRACE_FORMAT}"`);
      continue;
    }
    const call = value as TraceCall;
    if (typeof call.at !== "number" || typeof call.path !== "string" || !Array.isArray(call.sent)) {
      throw new Error(`"${path}" line ${number}: expected an object with at, path and sent`);
    }
    yield call;
  }
  if (number === 0) throw new Error(`"${path}" is empty`);
}

function parseLine(line: string, path: string, number: number): object {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // The message below says where; a trace that was cut by a kill ends like this.
  }
  throw new Error(`"${path}" line ${number} is not a JSON object; was the trace cut?`);
}
