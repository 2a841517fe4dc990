// Opaque values: the bytes are a blob named by their SHA-256, a small record maps the key to it.
//
// So large values take the same walk as blobs, equal ones are stored once, and a reader of an overwritten value goes on
// reading its blob. When the blob was evicted first, the key counts as absent.

import { createHash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { DigestFunction, type Digest } from "../digest/digest.ts";
import type { BlobReader, ReadOptions } from "./blob-store.ts";
import type { LocalBlobStore } from "./local-blob-store.ts";
import type { OpaqueInfo, OpaqueStore } from "./opaque-store.ts";
import { opaqueTooLarge } from "./opaque-error.ts";
import { ValueKind, type ValueStore } from "./value-store.ts";

interface OpaqueRecord extends OpaqueInfo {
  readonly hash: string;
  readonly key: string;
}

export class LocalOpaqueStore implements OpaqueStore {
  readonly #blobs: LocalBlobStore;
  readonly #values: ValueStore;
  readonly #clock: Clock;

  constructor(options: { readonly blobs: LocalBlobStore; readonly values: ValueStore; readonly clock: Clock }) {
    this.#blobs = options.blobs;
    this.#values = options.values;
    this.#clock = options.clock;
  }

  async find(key: string): Promise<OpaqueInfo | undefined> {
    const record = await this.#record(key);
    if (record === undefined || !this.#blobs.has(digestOf(record))) return undefined;
    return { sizeBytes: record.sizeBytes, modifiedAtMs: record.modifiedAtMs };
  }

  async openRead(key: string, options: ReadOptions = {}): Promise<BlobReader | undefined> {
    const record = await this.#record(key);
    if (record === undefined || !this.#blobs.has(digestOf(record))) return undefined;
    return this.#blobs.openRead(digestOf(record), options);
  }

  async put(key: string, chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<void> {
    const upload = this.#blobs.openIntake(DigestFunction.SHA256);
    try {
      for await (const chunk of chunks) {
        const total = upload.intake.sizeBytes + chunk.length;
        if (total > maxBytes) throw opaqueTooLarge(key, total, maxBytes);
        await upload.intake.write(chunk);
      }
      const received = await upload.intake.finish();
      const { hash, sizeBytes } = received;
      upload.giveBackRoom();
      await this.#blobs.storeReceived({ fn: DigestFunction.SHA256, hash, sizeBytes }, received);
      const record: OpaqueRecord = { hash, sizeBytes, modifiedAtMs: this.#clock.nowMs(), key };
      await this.#values.put(ValueKind.OPAQUE, valueKey(key), Buffer.from(JSON.stringify(record), "utf8"));
    } finally {
      await upload.release();
    }
  }

  delete(key: string): Promise<boolean> {
    return this.#values.delete(ValueKind.OPAQUE, valueKey(key));
  }

  async #record(key: string): Promise<OpaqueRecord | undefined> {
    const value = await this.#values.get(ValueKind.OPAQUE, valueKey(key));
    return value === undefined ? undefined : (JSON.parse(Buffer.from(value).toString("utf8")) as OpaqueRecord);
  }
}

function digestOf(record: OpaqueRecord): Digest {
  return { fn: DigestFunction.SHA256, hash: record.hash, sizeBytes: record.sizeBytes };
}

function valueKey(key: string): Uint8Array {
  return createHash("sha256").update("opaque\0").update(key, "utf8").digest();
}
