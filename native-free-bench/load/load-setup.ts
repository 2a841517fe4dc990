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
import type { PreparedCall, RawConnection } from "./raw-connection.ts";

export interface LoadBlob {
  readonly data: Buffer;
  readonly digest: BlobDigest;
}

const SHA256 = findDigestFunction(1)!;
const BATCH_BYTES = 1024 * 1024;

export class LoadSetup {
  readonly random: RandomData;
  readonly instanceName: string;
  readonly platform: ReadonlyMap<string, string>;
  readonly #connection: RawConnection;
  /** Share of a blob that a compressor removes. */
  readonly #compressibleShare: number;

  constructor(
    connection: RawConnection,
    options: { seed: number; instanceName: string; compressibleShare: number; platform: ReadonlyMap<string, string> },
  ) {
    this.#connection = connection;
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
      if (blob.data.length > BATCH_BYTES / 2) await this.expectOk(prepareWrite(this.writeName(blob.digest), blob.data));
      else {
        if (bytes + blob.data.length > BATCH_BYTES || batch.length === 1000) await flush();
        batch.push(blob);
        bytes += blob.data.length;
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
    const result = await this.#connection.callOnce(call);
    if (result.code !== Code.OK) {
      throw new Error(
        `preparing: ${call.path} answered ${codeName(result.code)}${this.#connection.failure === undefined ? "" : ` (${this.#connection.failure})`}`,
      );
    }
    return result.body ?? Buffer.alloc(0);
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
