// What scenarios use to get a server into the state that they measure: uploads, results, and unique data.
//
// Invariant: everything follows from the seed, so two targets get the same load; a preparation that fails ends the
// scenario with the server's own words.

import { zstdCompressSync } from "node:zlib";
import { Code, codeName } from "../../src/base/status.ts";
import { ActionCache, ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";
import type { ActionResultInit, DigestInit } from "../../src/proto/remote_execution.ts";
import type { MessageType } from "../../src/proto/wire.ts";
import { digestOf, findDigestFunction, type BlobDigest } from "../digest-functions.ts";
import { RandomData } from "../random-data.ts";
import { prepare, prepareWrite } from "./prepared-calls.ts";
import type { FindMissingOptions } from "./find-missing-scenarios.ts";
import type { CallResult, PreparedCall } from "./raw-connection.ts";

export interface LoadBlob {
  readonly data: Buffer;
  readonly digest: BlobDigest;
}

/** What a preparation needs of a connection, of either protocol. */
export interface SetupConnection {
  readonly failure: string | undefined;
  callOnce(call: PreparedCall): Promise<CallResult>;
}

export interface SetupOptions {
  readonly seed: number;
  readonly instanceName: string;
  readonly compressibleShare: number;
  readonly platform: ReadonlyMap<string, string>;
  readonly findMissing?: FindMissingOptions;
  /** What the server takes in one BatchUpdateBlobs, when it says so. */
  readonly maxBatchBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A server that takes longer for one call of a preparation hangs: the largest is an upload of 64 MiB. */
const PREPARE_TIMEOUT_MS = 60_000;

const SHA256 = findDigestFunction(1)!;
const BATCH_BYTES = 1024 * 1024;
/** What a blob adds to a batch beside its data. */
const DIGEST_BYTES = 80;

export class LoadSetup {
  readonly random: RandomData;
  readonly instanceName: string;
  readonly platform: ReadonlyMap<string, string>;
  readonly findMissing: FindMissingOptions;
  readonly #connection: SetupConnection;
  readonly #batchBytes: number;
  readonly #signal: AbortSignal | undefined;
  /** Share of a blob that a compressor removes. */
  readonly #compressibleShare: number;

  constructor(connection: SetupConnection, options: SetupOptions) {
    this.#connection = connection;
    this.findMissing = options.findMissing ?? {};
    // Digests and names count as well, so a batch stays below what the server names.
    this.#batchBytes = Math.min(BATCH_BYTES, (options.maxBatchBytes ?? Infinity) / 2);
    this.#signal = options.signal;
    this.random = new RandomData(options.seed);
    this.instanceName = options.instanceName;
    this.platform = options.platform;
    this.#compressibleShare = options.compressibleShare;
  }

  blob(sizeBytes: number): LoadBlob {
    return this.blobOf(this.random.compressibleBytes(sizeBytes, this.#compressibleShare));
  }

  blobOf(data: Uint8Array): LoadBlob {
    return { data: Buffer.from(data), digest: digestOf(SHA256, data) };
  }

  /** A blob that differs from `template` in its head: cheap enough to make one per call. */
  variantOf(template: Buffer): LoadBlob {
    const data = Buffer.from(template);
    data.set(this.random.bytes(Math.min(16, data.length)), 0);
    return { data, digest: digestOf(SHA256, data) };
  }

  absent(sizeBytes: number): BlobDigest {
    return { hash: this.random.bytes(32).toString("hex"), sizeBytes };
  }

  async store(blobs: readonly LoadBlob[]): Promise<void> {
    let batch: LoadBlob[] = [];
    let bytes = 0;
    const flush = async (): Promise<void> => {
      if (batch.length > 0)
        await this.expectOk(
          prepare(Cas.methods.BatchUpdateBlobs, { instanceName: this.instanceName, requests: batch }),
        );
      batch = [];
      bytes = 0;
    };
    for (const blob of blobs) {
      if (blob.data.length > this.#batchBytes / 2)
        await this.expectOk(prepareWrite(this.writeName(blob.digest), blob.data));
      else {
        if (bytes + blob.data.length + DIGEST_BYTES > this.#batchBytes || batch.length === 1000) await flush();
        batch.push(blob);
        bytes += blob.data.length + DIGEST_BYTES;
      }
    }
    await flush();
  }

  async storeMessage<Init>(type: MessageType<unknown, Init>, message: Init): Promise<BlobDigest> {
    const blob = this.blobOf(type.encode(message));
    if (blob.data.length > 0) await this.store([blob]);
    return blob.digest;
  }

  async storeResult(actionDigest: DigestInit, result: ActionResultInit): Promise<void> {
    await this.expectOk(
      prepare(ActionCache.methods.UpdateActionResult, {
        instanceName: this.instanceName,
        actionDigest,
        actionResult: { executionMetadata: { worker: "bench" }, ...result },
      }),
    );
  }

  async expectOk(call: PreparedCall): Promise<Buffer> {
    const result = await this.#answerOf(call);
    if (result.code !== Code.OK) {
      const words = this.#connection.failure ?? result.message;
      throw new Error(
        `preparing: ${call.path} answered ${statusName(result.code)}${words === undefined ? "" : ` (${words})`}`,
      );
    }
    return result.body ?? Buffer.alloc(0);
  }

  async #answerOf(call: PreparedCall): Promise<CallResult> {
    this.#signal?.throwIfAborted();
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const ended = new Promise<never>((_, reject) => {
      const message = `preparing: ${call.path} was not answered within ${PREPARE_TIMEOUT_MS / 1000} s; the server hangs`;
      timer = setTimeout(() => reject(new Error(message)), PREPARE_TIMEOUT_MS);
      onAbort = () => reject(this.#signal?.reason as Error);
      this.#signal?.addEventListener("abort", onAbort);
    });
    try {
      return await Promise.race([this.#connection.callOnce(call), ended]);
    } finally {
      clearTimeout(timer);
      if (onAbort !== undefined) this.#signal?.removeEventListener("abort", onAbort);
    }
  }

  readName(digest: BlobDigest, compressor = ""): string {
    return `${this.#prefix}${compressor === "" ? "blobs" : `compressed-blobs/${compressor}`}/${digest.hash}/${digest.sizeBytes}`;
  }

  writeName(digest: BlobDigest, compressor = ""): string {
    return `${this.#prefix}uploads/${this.random.uuid()}/${compressor === "" ? "blobs" : `compressed-blobs/${compressor}`}/${digest.hash}/${digest.sizeBytes}`;
  }

  zstd(data: Uint8Array): Buffer {
    return zstdCompressSync(data);
  }

  get #prefix(): string {
    return this.instanceName === "" ? "" : `${this.instanceName}/`;
  }
}

/** gRPC codes by name; others are HTTP's. */
export function statusName(code: number | string): string {
  const number = Number(code);
  if (Number.isNaN(number)) return String(code);
  return number < 100 ? codeName(number) : `HTTP ${number}`;
}
