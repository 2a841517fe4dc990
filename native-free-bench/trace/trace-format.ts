// The trace of `ledge record`: one JSON object a line (docs/formats/trace.md).
//
// Invariant: a trace holds no header, no environment and no file name unless bytes were asked for (`--keep-bytes`):
// digests, sizes, times, codes. Reading refuses what it does not know, naming the line.

import { createReadStream } from "node:fs";

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
  /** `/package.Service/Method`; of HTTP `/cas`, `/ac`, or `/` for all else. */
  readonly path: string;
  /** Of HTTP only. */
  readonly method?: string;
  /** Of gRPC; of HTTP the status. */
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

/** A call, and where its line is in the file. */
export interface TraceLine {
  readonly call: TraceCall;
  readonly offset: number;
  readonly length: number;
}

/** Yields the calls of a trace in the order of the file. */
export async function* readTrace(path: string): AsyncGenerator<TraceLine> {
  let number = 0;
  for await (const { text, offset, length } of readLines(path)) {
    number++;
    if (text === "") continue;
    const where = `"${path}" line ${number}`;
    if (number > 1) yield { call: parseTraceCall(text, where), offset, length };
    else if ((parseObject(text, where) as Partial<TraceHeader>).format !== TRACE_FORMAT)
      throw new Error(`"${path}" is not a trace: its first line does not say "format": "${TRACE_FORMAT}"`);
  }
  if (number === 0) throw new Error(`"${path}" is empty`);
}

export function parseTraceCall(text: string, where: string): TraceCall {
  const call = parseObject(text, where) as TraceCall;
  if (typeof call.at !== "number" || typeof call.path !== "string" || !Array.isArray(call.sent))
    throw new Error(`${where}: expected an object with at, path and sent`);
  return call;
}

async function* readLines(path: string): AsyncGenerator<{ text: string; offset: number; length: number }> {
  let offset = 0;
  let parts: Buffer[] = [];
  const line = (): { text: string; offset: number; length: number } => {
    const bytes = Buffer.concat(parts);
    parts = [];
    return { text: bytes.toString(), offset, length: bytes.length };
  };
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) {
    let rest = chunk as Buffer;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      parts.push(rest.subarray(0, end));
      const whole = line();
      yield whole;
      offset += whole.length + 1;
      rest = rest.subarray(end + 1);
    }
    parts.push(rest);
  }
  const last = line();
  if (last.length > 0) yield last;
}

function parseObject(text: string, where: string): object {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // The message below says where; a trace that was cut by a kill ends like this.
  }
  throw new Error(`${where} is not a JSON object; was the trace cut?`);
}
