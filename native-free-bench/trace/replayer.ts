// Plays a trace against a server, at its own speed, scaled, or as fast as the server answers.
//
// Where the trace kept no bytes, each recorded blob is replaced by a made-up one of the same size, always the same for
// the same digest; what the trace reads or finds and never uploads is uploaded before the clock starts, unless it was
// recorded as absent. Executions need their bytes: without them they are left out and counted.

import { ByteStream } from "../../src/proto/bytestream.ts";
import { Code } from "../../src/base/status.ts";
import {
  ActionCache,
  ActionResult,
  Capabilities,
  ContentAddressableStorage as Cas,
  Execution,
} from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { frameMessage } from "../client/message-framing.ts";
import type { BenchTarget } from "../load/bench-target.ts";
import type { LoadClient } from "../load/generator.ts";
import { Histogram } from "../load/histogram.ts";
import { HttpLoadClient } from "../load/http-client.ts";
import { LoadSetup, type LoadBlob } from "../load/load-setup.ts";
import { prepare, prepareWrite } from "../load/prepared-calls.ts";
import { RawConnection, type CallResult, type PreparedCall } from "../load/raw-connection.ts";
import { RandomData } from "../random-data.ts";
import type { TraceCall, TraceDigest } from "./trace-format.ts";
import { TraceIndex } from "./trace-index.ts";

export interface ReplayOptions {
  readonly target: BenchTarget;
  readonly instanceName: string;
  /** 1 is the recorded speed, 2 twice as fast; Infinity as fast as the server answers. */
  readonly speed: number;
  /** Calls in flight at most. */
  readonly depth: number;
  readonly seed: number;
}

export interface ReplayResult {
  readonly calls: number;
  readonly leftOut: number;
  /** Calls that ended with another code than was recorded. */
  readonly otherCode: number;
  readonly durationMs: number;
  readonly latency: ReadonlyMap<string, Histogram>;
  readonly recorded: ReadonlyMap<string, Histogram>;
}

const COMPRESSIBLE_SHARE = 0.5;

export async function replay(path: string, options: ReplayOptions): Promise<ReplayResult> {
  const needs = new TraceNeeds();
  const trace = await TraceIndex.open(path, (call) => needs.note(call));
  const connections = new ReplayConnections(options.target);
  try {
    const setupOptions = { ...options, compressibleShare: COMPRESSIBLE_SHARE, platform: new Map<string, string>() };
    const setup = new LoadSetup(connections, setupOptions);
    const blobs = new SyntheticBlobs(setup, options.seed, needs.transferred);
    await uploadWhatIsRead(needs, setup, blobs);
    return await play(trace, connections, options, (call) =>
      call.method !== undefined
        ? httpRequest(call, blobs)
        : call.messages === undefined
          ? synthesize(call, setup, blobs)
          : recordedRequest(call),
    );
  } finally {
    connections.close();
    trace.close();
  }
}

async function play(
  trace: TraceIndex,
  connections: ReplayConnections,
  options: ReplayOptions,
  requestOf: (call: TraceCall) => PreparedCall | undefined,
): Promise<ReplayResult> {
  const latency = new Map<string, Histogram>();
  const recorded = new Map<string, Histogram>();
  let [outstanding, leftOut, otherCode, done] = [0, 0, 0, 0];
  let wake: () => void = () => undefined;
  const begunMs = performance.now();
  for (const call of trace.calls()) {
    const prepared = requestOf(call);
    if (prepared === undefined) {
      leftOut++;
      continue;
    }
    const dueMs = begunMs + call.at / options.speed;
    for (let waitMs = dueMs - performance.now(); waitMs > 0.5; waitMs = dueMs - performance.now())
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    while (outstanding >= options.depth) await new Promise<void>((resolve) => (wake = resolve));
    const connection = await connections.get(call);
    if (connection.failure !== undefined)
      throw new Error(`the server went away after ${done} calls: ${connection.failure}`);
    outstanding++;
    // Late starts are the server's doing as well: latency counts from when the call was due.
    const startMs = Number.isFinite(options.speed) ? Math.max(dueMs, begunMs) : performance.now();
    const name = call.method === undefined ? call.path : `${call.method} ${call.path}`;
    connection.call(prepared, ({ code }) => {
      outstanding--;
      done++;
      if (!isSameCode(code, call)) otherCode++;
      record(latency, name, (performance.now() - startMs) * 1000);
      record(recorded, name, call.took * 1000);
      wake();
    });
  }
  while (outstanding > 0) await new Promise<void>((resolve) => (wake = resolve));
  return { calls: done, leftOut, otherCode, durationMs: performance.now() - begunMs, latency, recorded };
}

function isSameCode(code: number, { method, code: before }: TraceCall): boolean {
  if (method === undefined) return code === before;
  return code === Code.OK ? before >= 200 && before < 300 : code === before;
}

/** A connection for each recorded one, and one of each protocol for preparing. */
class ReplayConnections {
  readonly #target: BenchTarget;
  readonly #open = new Map<string, LoadClient & { callOnce(call: PreparedCall): Promise<CallResult> }>();

  constructor(target: BenchTarget) {
    this.#target = target;
  }

  get failure(): string | undefined {
    return [...this.#open.values()].find(({ failure }) => failure !== undefined)?.failure;
  }

  async get({
    connection,
    method,
  }: Pick<TraceCall, "connection" | "method">): Promise<
    LoadClient & { callOnce(call: PreparedCall): Promise<CallResult> }
  > {
    const key = `${method === undefined ? "grpc" : "http"} ${connection}`;
    let client = this.#open.get(key);
    if (client === undefined) {
      client =
        method === undefined ? await RawConnection.open(this.#target.grpc) : await HttpLoadClient.open(this.#target, 1);
      this.#open.set(key, client);
    }
    return client;
  }

  /** For preparing: HTTP calls name their method. */
  async callOnce(call: PreparedCall): Promise<CallResult> {
    const method = call.path.startsWith("/") ? {} : { method: "PUT" };
    return await (await this.get({ connection: -1, ...method })).callOnce(call);
  }

  close(): void {
    for (const client of this.#open.values()) client.close();
  }
}

function record(histograms: Map<string, Histogram>, path: string, microseconds: number): void {
  let histogram = histograms.get(path);
  if (histogram === undefined) histograms.set(path, (histogram = new Histogram()));
  histogram.record(microseconds);
}

/** A made-up blob above this is not worth its memory; the recorded digest is sent as it is, and nothing is found. */
const MAX_SYNTHETIC_BYTES = 1024 * 1024 * 1024;

/** Stands in for recorded blobs: the same bytes whenever the same digest occurs. */
class SyntheticBlobs {
  readonly #setup: LoadSetup;
  readonly #seed: number;
  /** Hashes that the trace uploads or reads: the others are only asked for, and keep their digest. */
  readonly #transferred: ReadonlySet<string>;
  readonly #digests = new Map<string, BlobDigest>();

  constructor(setup: LoadSetup, seed: number, transferred: ReadonlySet<string>) {
    this.#setup = setup;
    this.#seed = seed;
    this.#transferred = transferred;
  }

  digest(recorded: TraceDigest): BlobDigest {
    const known = this.#digests.get(recorded.hash);
    if (known !== undefined) return known;
    const asRecorded = { hash: recorded.hash, sizeBytes: recorded.size };
    if (!this.#transferred.has(recorded.hash) || !this.canMake(recorded)) return asRecorded;
    const { digest } = this.get(recorded);
    this.#digests.set(recorded.hash, digest);
    return digest;
  }

  canMake({ hash, size }: TraceDigest): boolean {
    return /^[0-9a-f]{32,}$/.test(hash) && size >= 0 && size <= MAX_SYNTHETIC_BYTES;
  }

  get({ hash, size }: TraceDigest): LoadBlob {
    const random = new RandomData((Number.parseInt(hash.slice(0, 8), 16) ^ this.#seed) >>> 0);
    return this.#setup.blobOf(random.compressibleBytes(size, COMPRESSIBLE_SHARE));
  }
}

function isUpload({ path, method }: TraceCall): boolean {
  return path === ByteStream.methods.Write.path || path === Cas.methods.BatchUpdateBlobs.path || method === "PUT";
}

function isRead({ path, method }: TraceCall): boolean {
  return path === ByteStream.methods.Read.path || path === Cas.methods.BatchReadBlobs.path || method === "GET";
}

/** What a trace transfers, and what of it must be there before it is played. */
class TraceNeeds {
  readonly transferred = new Set<string>();
  readonly reads = new Map<string, { readonly digest: TraceDigest; readonly httpPath: string | undefined }>();
  readonly #written = new Set<string>();

  note(call: TraceCall): void {
    const [upload, isReading] = [isUpload(call), isRead(call)];
    if (!upload && !isReading) return;
    for (const digest of call.digests ?? []) {
      this.transferred.add(digest.hash);
      const isOk = call.method === undefined ? call.code === Code.OK : call.code === 200;
      if (upload && isOk) this.#written.add(digest.hash);
      else if (isReading && isOk && call.messages === undefined && !this.#written.has(digest.hash))
        this.reads.set(digest.hash, { digest, httpPath: call.method === undefined ? undefined : call.path });
      else if (isReading && isOk && call.method !== undefined && !this.#written.has(digest.hash))
        this.reads.set(digest.hash, { digest, httpPath: call.path });
    }
  }
}

/** One at a time, so that the bytes of a long trace are not all in memory at once. */
async function uploadWhatIsRead({ reads }: TraceNeeds, setup: LoadSetup, blobs: SyntheticBlobs): Promise<void> {
  for (const { digest, httpPath } of reads.values()) {
    if (!blobs.canMake(digest)) continue;
    if (httpPath === undefined) await setup.store([blobs.get(digest)]);
    else await setup.expectOk(httpUpload(httpPath, digest, blobs));
  }
}

function httpRequest(call: TraceCall, blobs: SyntheticBlobs): PreparedCall | undefined {
  const [recorded] = call.digests ?? [];
  if (recorded === undefined || call.path === "/" || !blobs.canMake(recorded)) return undefined;
  if (call.method !== "PUT") return { path: `${call.method} ${httpPath(call.path, recorded, blobs)}`, body: [] };
  const upload = httpUpload(call.path, recorded, blobs);
  // Bytes that were kept belong to the recorded name.
  const kept = call.messages?.[0];
  if (kept === undefined) return upload;
  return { path: `PUT ${call.path}/${recorded.hash}`, body: [Buffer.from(kept, "base64")] };
}

function httpUpload(store: string, recorded: TraceDigest, blobs: SyntheticBlobs): PreparedCall {
  const { data } = blobs.get(recorded);
  // What is under /ac/ must be an ActionResult; its size is about the recorded one.
  const body = store === "/ac" ? ActionResult.encode({ stdoutRaw: data.subarray(Math.min(data.length, 8)) }) : data;
  return { path: `PUT ${httpPath(store, recorded, blobs)}`, body: [body] };
}

/** Keys of the action cache are as recorded; blobs have the name of what stands in for them. */
function httpPath(store: string, recorded: TraceDigest, blobs: SyntheticBlobs): string {
  return `${store}/${store === "/ac" ? recorded.hash : blobs.digest(recorded).hash}`;
}

function recordedRequest(call: TraceCall): PreparedCall {
  return {
    path: call.path,
    body: (call.messages ?? []).map((text) => frameMessage(Buffer.from(text, "base64"))),
    accepts: call.code,
  };
}

function synthesize(call: TraceCall, setup: LoadSetup, blobs: SyntheticBlobs): PreparedCall | undefined {
  const { instanceName } = setup;
  const recorded = call.digests ?? [];
  const digests = recorded.map((digest) => blobs.digest(digest));
  const [first] = digests;
  if (isUpload(call) && !recorded.every((digest) => blobs.canMake(digest))) return undefined;
  switch (call.path) {
    case Capabilities.methods.GetCapabilities.path:
      return prepare(Capabilities.methods.GetCapabilities, { instanceName });
    case Cas.methods.FindMissingBlobs.path:
      return prepare(Cas.methods.FindMissingBlobs, { instanceName, blobDigests: digests });
    case Cas.methods.BatchReadBlobs.path:
      return prepare(Cas.methods.BatchReadBlobs, { instanceName, digests });
    case Cas.methods.BatchUpdateBlobs.path:
      return prepare(Cas.methods.BatchUpdateBlobs, {
        instanceName,
        requests: recorded.map((digest) => blobs.get(digest)),
      });
    case ActionCache.methods.GetActionResult.path:
      return first && prepare(ActionCache.methods.GetActionResult, { instanceName, actionDigest: first });
    case ActionCache.methods.UpdateActionResult.path:
      return (
        first &&
        prepare(ActionCache.methods.UpdateActionResult, {
          instanceName,
          actionDigest: first,
          actionResult: { executionMetadata: { worker: "replay" } },
        })
      );
    case ByteStream.methods.Read.path:
      return (
        first &&
        prepare(ByteStream.methods.Read, {
          resourceName: setup.readName(first, call.compressor),
          readOffset: call.offset,
          readLimit: call.limit,
        })
      );
    case ByteStream.methods.Write.path: {
      const [digest] = recorded;
      if (digest === undefined) return undefined;
      const blob = blobs.get(digest);
      return prepareWrite(
        setup.writeName(blob.digest, call.compressor),
        call.compressor === "zstd" ? setup.zstd(blob.data) : blob.data,
      );
    }
    case Execution.methods.Execute.path:
    default:
      return undefined;
  }
}
