// Unary calls as fast as a server answers: connections × depth in flight, each answer at once followed by the next call.
//
// Invariant: an answer counts only when it is the one asked for: the status of the first one is looked at, and the DATA
// octets of all must be the first one's times their number, so a server that fails fast does not look fast. Latencies are taken with one call in flight.

import { Code } from "../../src/base/status.ts";
import { Flag } from "../../src/http2/frame.ts";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { Histogram } from "../load/histogram.ts";
import { LoadConnection, type Endpoint, type StreamEvents } from "./load-connection.ts";
import { RequestTemplate, type SmallRequest } from "./request-template.ts";

export interface SmallCallShape {
  readonly connections: number;
  readonly depth: number;
  readonly warmUpMs: number;
  readonly durationMs: number;
}

export interface SmallCallResult {
  readonly callsPerSecond: number;
  /** Warm-up included. */
  readonly calls: number;
  readonly latency: Histogram;
}

/** What one run counts, over its connections. */
class Tally {
  calls = 0;
  dataBytes = 0;
  bytesPerCall = 0;
  running = true;
  failure: string | undefined;
  latency = new Histogram();
}

export async function runSmallCalls(
  endpoint: Endpoint,
  request: SmallRequest,
  shape: SmallCallShape,
): Promise<SmallCallResult> {
  const tally = new Tally();
  const callers: Caller[] = [];
  try {
    for (let index = 0; index < shape.connections; index++)
      callers.push(await Caller.open(endpoint, request, tally, shape.depth));
    for (const caller of callers) caller.start();
    await sleep(shape.warmUpMs);
    tally.latency = new Histogram();
    const [callsBefore, begunMs] = [tally.calls, performance.now()];
    await sleep(shape.durationMs);
    const [calls, seconds] = [tally.calls, (performance.now() - begunMs) / 1000];
    tally.running = false;
    if (tally.failure !== undefined) throw new Error(`the load on ${endpoint.port} broke: ${tally.failure}`);
    // Messages of calls that are under way may be counted already, hence the tolerance.
    const inFlight = shape.connections * shape.depth * tally.bytesPerCall;
    const expected = tally.calls * tally.bytesPerCall;
    if (tally.dataBytes < expected || tally.dataBytes > expected + inFlight) {
      const found = `${tally.dataBytes} octets of answers in ${tally.calls} calls`;
      throw new Error(`the server on ${endpoint.port} did not answer as it did first: ${found}, expected ${expected}`);
    }
    return { callsPerSecond: (calls - callsBefore) / seconds, calls, latency: tally.latency };
  } finally {
    for (const caller of callers) caller.close();
  }
}

/** One connection, and the calls it keeps in flight. */
class Caller implements StreamEvents {
  readonly #template: RequestTemplate;
  readonly #tally: Tally;
  readonly #depth: number;
  #connection: LoadConnection | undefined;
  #onFirst: (() => void) | undefined;
  #onFailure: ((error: Error) => void) | undefined;
  /** Calls to send when the read ends. */
  #due = 0;
  #sentAtMs = 0;
  readonly #decoder = new HpackDecoder();
  #status: number | undefined;
  /** Two, as the kernel may not have taken the last one yet. */
  #outputs: Buffer[];

  private constructor(template: RequestTemplate, tally: Tally, depth: number) {
    this.#template = template;
    this.#tally = tally;
    this.#depth = depth;
    this.#outputs = [0, 1].map(() => Buffer.allocUnsafeSlow(depth * template.sizeBytes));
  }

  /** Connects and waits for the answer to one call, so that every run starts with a warm connection. */
  static async open(endpoint: Endpoint, request: SmallRequest, tally: Tally, depth: number): Promise<Caller> {
    const template = new RequestTemplate(request, `${endpoint.host}:${endpoint.port}`);
    const caller = new Caller(template, tally, depth);
    caller.#connection = await LoadConnection.open(endpoint, caller);
    await new Promise<void>((resolve, reject) => {
      caller.#onFirst = resolve;
      caller.#onFailure = reject;
      caller.#connection?.nextStreamId();
      caller.#connection?.socket.write(template.first);
    });
    caller.#onFirst = undefined;
    tally.calls = 0;
    tally.bytesPerCall = tally.dataBytes;
    tally.dataBytes = 0;
    caller.#assertFirst(endpoint, request);
    return caller;
  }

  #assertFirst(endpoint: Endpoint, { path, status = Code.OK }: SmallRequest): void {
    const { bytesPerCall } = this.#tally;
    if (this.#status === status && bytesPerCall > 0 === (status === Code.OK)) return;
    const found = `status ${this.#status} and ${bytesPerCall} octets`;
    throw new Error(`the server on ${endpoint.port} answered ${path} with ${found}, expected status ${status}`);
  }

  start(): void {
    this.#due = this.#depth;
    this.#send();
  }

  close(): void {
    this.#connection?.close();
  }

  onData(_streamId: number, sizeBytes: number): void {
    this.#tally.dataBytes += sizeBytes;
  }

  onHeaders(_streamId: number, flags: number, block: Uint8Array): void {
    if (this.#onFirst !== undefined) this.#readStatus(block);
    if ((flags & Flag.END_STREAM) === 0) return;
    this.#tally.calls++;
    this.#due++;
    if (this.#depth === 1) this.#tally.latency.record((performance.now() - this.#sentAtMs) * 1000);
  }

  onBroken(reason: string): void {
    this.#tally.failure = reason;
    this.#onFailure?.(new Error(reason));
  }

  onReadEnd(): void {
    if (this.#onFirst !== undefined) {
      if (this.#due > 0) this.#onFirst();
      return;
    }
    if (this.#due > 0 && this.#tally.running) this.#send();
  }

  /** The first answer's; later blocks are not decoded, which costs more than the rest of a call. */
  #readStatus(block: Uint8Array): void {
    this.#decoder.decode(block, 0, block.length, {
      onField: (name, value) => {
        if (name === "grpc-status") this.#status = Number(value);
      },
    });
  }

  #send(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const [output, other] = this.#outputs as [Buffer, Buffer];
    let end = 0;
    for (; this.#due > 0; this.#due--) end = this.#template.write(output, end, connection.nextStreamId());
    this.#sentAtMs = performance.now();
    connection.socket.write(output.subarray(0, end));
    if (connection.socket.writableLength > 0) this.#outputs = [Buffer.allocUnsafeSlow(output.length), other];
    this.#outputs.reverse();
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
