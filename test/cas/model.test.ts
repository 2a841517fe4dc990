// Random operations on the local store against a plain Map: with restarts in between, without and with eviction.

import fc from "fast-check";
import { describe, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import type { Pin } from "../../src/cas/blob-store.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { readAll, same } from "./blob-store-contract.ts";
import { blobOf } from "./crash-blobs.ts";
import { StorageFixture } from "./storage-fixture.ts";

const BLOBS = 60;

type Operation =
  | { readonly type: "put" | "upload" | "abandon" | "get" | "read" | "pin" | "unpin"; readonly blob: number }
  | { readonly type: "value" | "delete"; readonly key: number; readonly text: string }
  | { readonly type: "restart" | "wait" };

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ type: fc.constantFrom("put", "upload", "get", "read"), blob: fc.nat(BLOBS - 1) }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constantFrom("abandon", "pin", "unpin"), blob: fc.nat(BLOBS - 1) }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constantFrom("value", "delete"), key: fc.nat(20), text: fc.string() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom("restart", "wait") }) },
);

class Model {
  readonly blobs = new Set<number>();
  readonly values = new Map<number, string>();
  readonly pins = new Map<number, Pin>();
  readonly fixture: StorageFixture;
  readonly clock: ManualClock;
  readonly evicts: boolean;

  constructor(fixture: StorageFixture, clock: ManualClock, evicts: boolean) {
    this.fixture = fixture;
    this.clock = clock;
    this.evicts = evicts;
  }

  async apply(step: Operation): Promise<void> {
    const { storage } = this.fixture;
    switch (step.type) {
      case "put": {
        const { digest, data } = blobOf("model", step.blob);
        await storage.blobs.put(digest, data);
        this.blobs.add(step.blob);
        return;
      }
      case "upload":
      case "abandon": {
        const { digest, data } = blobOf("model", step.blob);
        const upload = await storage.blobs.openUpload(digest);
        const size = step.type === "upload" ? data.length : Math.floor(data.length / 2);
        for (let offset = 0; offset < size; offset += 90_001) {
          await upload.write(new Uint8Array(data.subarray(offset, Math.min(size, offset + 90_001))));
        }
        if (step.type === "abandon") return upload.abort();
        await upload.finish();
        this.blobs.add(step.blob);
        return;
      }
      case "get":
      case "read":
        return this.#read(step.blob, step.type === "get");
      case "pin":
        if (!this.pins.has(step.blob)) this.pins.set(step.blob, storage.blobs.pin([blobOf("model", step.blob).digest]));
        // Pinned after it was evicted: only what is there from now on stays.
        if (this.evicts && !(await storage.blobs.has(blobOf("model", step.blob).digest))) this.blobs.delete(step.blob);
        return;
      case "unpin":
        this.pins.get(step.blob)?.release();
        this.pins.delete(step.blob);
        return;
      case "value":
        await storage.values.put(16, Buffer.alloc(32, step.key), Buffer.from(step.text));
        this.values.set(step.key, step.text);
        return;
      case "delete": {
        const existed = await storage.values.delete(16, Buffer.alloc(32, step.key));
        if (!this.evicts && existed !== this.values.has(step.key))
          throw new Error(`delete() of ${step.key}: ${existed}`);
        this.values.delete(step.key);
        return;
      }
      case "restart":
        for (const pin of this.pins.values()) pin.release();
        this.pins.clear();
        return this.fixture.restart();
      case "wait":
        this.clock.advance(1000);
        return;
    }
  }

  async #read(blob: number, whole: boolean): Promise<void> {
    const { blobs } = this.fixture.storage;
    const { digest, data } = blobOf("model", blob);
    if (!(await blobs.has(digest))) return this.#mustBeAbsent(blob);
    const read = whole ? await blobs.get(digest) : await readAll(await blobs.openRead(digest));
    if (!same(read, data)) throw new Error(`blob ${blob} has other bytes`);
    if (!this.blobs.has(blob)) throw new Error(`blob ${blob} was never stored`);
  }

  #mustBeAbsent(blob: number): void {
    if (this.blobs.has(blob) && (!this.evicts || this.pins.has(blob))) throw new Error(`blob ${blob} is lost`);
  }

  /** Compares everything at once. */
  async check(): Promise<void> {
    const { blobs, values, loaded } = this.fixture.storage;
    await loaded;
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3] as const) {
      const digests: Digest[] = [];
      const numbers: number[] = [];
      for (let blob = 0; blob < BLOBS; blob++) {
        const { digest } = blobOf("model", blob);
        if (digest.fn !== fn) continue;
        digests.push(digest);
        numbers.push(blob);
      }
      const missing = new Set(await blobs.findMissing(DigestBatch.of(fn, digests)));
      for (const [position, blob] of numbers.entries()) {
        if (missing.has(position)) this.#mustBeAbsent(blob);
        else if (!this.blobs.has(blob)) throw new Error(`blob ${blob} was never stored`);
      }
    }
    for (let key = 0; key <= 20; key++) {
      const value = await values.get(16, Buffer.alloc(32, key));
      if (value === undefined && this.evicts) continue;
      const text = value && Buffer.from(value).toString();
      if (text !== this.values.get(key)) throw new Error(`value ${key} is ${JSON.stringify(text)}`);
    }
  }
}

async function run(steps: readonly Operation[], maxSizeBytes: number): Promise<void> {
  const clock = new ManualClock(Date.UTC(2026, 0, 1));
  await using fixture = await StorageFixture.open({ clock, maxSizeBytes, protectRecentMs: 0, threads: 1 });
  const model = new Model(fixture, clock, maxSizeBytes < 2 ** 30);
  for (const step of steps) await model.apply(step);
  await model.check();
  await fixture.restart();
  for (const pin of model.pins.values()) pin.release();
  model.pins.clear();
  await model.check();
}

const RUNS = Number(process.env["LEDGE_MODEL_RUNS"] ?? "8");

describe("the local store against a Map", () => {
  test("random operations with restarts agree", async () => {
    const property = fc.asyncProperty(fc.array(operation, { minLength: 30, maxLength: 80 }), (steps) =>
      run(steps, 2 ** 40),
    );
    await fc.assert(property, { numRuns: RUNS, endOnFailure: true });
  }, 300_000);

  test("random operations with eviction lose only what may be evicted", async () => {
    const property = fc.asyncProperty(fc.array(operation, { minLength: 60, maxLength: 120 }), (steps) =>
      run(steps, 9 * 2 ** 20),
    );
    await fc.assert(property, { numRuns: Math.ceil(RUNS / 2), endOnFailure: true });
  }, 300_000);
});
