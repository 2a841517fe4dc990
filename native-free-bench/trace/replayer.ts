// Plays a trace against a server, at its own speed, scaled, or as fast as the server answers.
//
// Where the trace kept no bytes, each recorded blob is replaced by a made-up one of the same size, always the same for
// the same digest; what the trace reads or finds and never uploads is uploaded before the clock starts, unless it was
// recorded as absent. Executions need their bytes: without them they are left out and counted.

import { ByteStream } from "../../src/proto/bytestream.ts";
import { Code } from "../../src/base/status.ts";
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage as Cas,
  Execution,
} from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import { frameMessage } from "../client/message-framing.ts";
import type { Target } from "../client/target.ts";
import { Histogram } from "../load/histogram.ts";
import { LoadSetup, type LoadBlob } from "../load/load-setup.ts";
import { prepare, prepareWrite } from "../load/prepared-calls.ts";
import { RawConnection, type PreparedCall } from "../load/raw-connection.ts";
import { RandomData } from "../random-data.ts";
import type { TraceCall, TraceDigest } from "./trace-format.ts";

export interface ReplayOptions {
  readonly target: Target;
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

export async function replay(calls: readonly TraceCall[], options: ReplayOptions): Promise<ReplayResult> {
  const ordered = calls.toSorted((a, b) => a.at - b.at);
  const main = await RawConnection.open(options.target);
  const connections = new Map<number, RawConnection>();
  try {
    const setup = new LoadSetup(main, { ...options, compressibleShare: COMPRESSIBLE_SHARE, platform: new Map() });
    const blobs = new SyntheticBlobs(setup, options.seed, ordered);
    await uploadWhatIsRead(ordered, setup, blobs);
    const latency = new Map<string, Histogram>();
    const recorded = new Map<string, Histogram>();
    let [outstanding, leftOut, otherCode, done] = [0, 0, 0, 0];
    let wake: () => void = () => undefined;
    const begunMs = performance.now();
    for (const call of ordered) {
      const prepared = call.messages === undefined ? synthesize(call, setup, blobs) : recordedRequest(call);
      if (prepared === undefined) {
        leftOut++;
        continue;
      }
      const dueMs = begunMs + call.at / options.speed;
      for (let waitMs = dueMs - performance.now(); waitMs > 0.5; waitMs = dueMs - performance.now())
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      while (outstanding >= options.depth) await new Promise<void>((resolve) => (wake = resolve));
      let connection = connections.get(call.connection);
      if (connection === undefined)
        connections.set(call.connection, (connection = await RawConnection.open(options.target)));
      if (connection.failure !== undefined)
        throw new Error(`the server went away after ${done} calls: ${connection.failure}`);
      outstanding++;
      // Late starts are the server's doing as well: latency counts from when the call was due.
      const startMs = Number.isFinite(options.speed) ? Math.max(dueMs, begunMs) : performance.now();
      connection.call(prepared, ({ code }) => {
        outstanding--;
        done++;
        if (code !== call.code) otherCode++;
        record(latency, call.path, (performance.now() - startMs) * 1000);
        record(recorded, call.path, call.took * 1000);
        wake();
      });
    }
    while (outstanding > 0) await new Promise<void>((resolve) => (wake = resolve));
    return { calls: done, leftOut, otherCode, durationMs: performance.now() - begunMs, latency, recorded };
  } finally {
    main.close();
    for (const connection of connections.values()) connection.close();
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

  constructor(setup: LoadSetup, seed: number, calls: readonly TraceCall[]) {
    this.#setup = setup;
    this.#seed = seed;
    this.#transferred = new Set(
      calls
        .filter((call) => isUpload(call) || isRead(call))
        .flatMap((call) => (call.digests ?? []).map(({ hash }) => hash)),
    );
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

function isUpload({ path }: TraceCall): boolean {
  return path === ByteStream.methods.Write.path || path === Cas.methods.BatchUpdateBlobs.path;
}

function isRead({ path }: TraceCall): boolean {
  return path === ByteStream.methods.Read.path || path === Cas.methods.BatchReadBlobs.path;
}

async function uploadWhatIsRead(calls: readonly TraceCall[], setup: LoadSetup, blobs: SyntheticBlobs): Promise<void> {
  const written = new Set<string>();
  const needed = new Map<string, TraceDigest>();
  for (const call of calls) {
    if (call.messages !== undefined || call.code !== Code.OK) continue;
    for (const digest of call.digests ?? []) {
      if (isUpload(call)) written.add(digest.hash);
      else if (isRead(call) && !written.has(digest.hash) && blobs.canMake(digest)) needed.set(digest.hash, digest);
    }
  }
  // One at a time, so that the bytes of a long trace are not all in memory at once.
  for (const digest of needed.values()) await setup.store([blobs.get(digest)]);
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
