// The frame of the bad-input tables: a served store, a witness, and rows that say what is wrong and what comes of it.
//
// Everything goes over a real connection. After each row a witness blob, a witness result and the number of blobs are
// what they were before.

import type { ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { ActionCache } from "../../src/proto/remote_execution.ts";
import { Served } from "./served.ts";
import { sample } from "./sample-blobs.ts";

export const MIB = 1024 * 1024;
export const witness = sample("the witness");
/** The hash of a blob that is nowhere. */
export const { hash } = sample("anything").digest;
/** No message of any type: a field longer than the bytes. */
export const GARBAGE = Buffer.from([0x0a, 0xff, 0xff, 0xff, 0x0f, 1]);

export type Row = readonly [name: string, call: () => Promise<unknown>, code: number, message: RegExp];

/** The server of one test file; made before its tests and closed after them. */
export class BadInputServer {
  readonly blobs = new MemoryBlobStore();
  #served: Served | undefined;

  constructor() {
    beforeAll(async () => {
      this.#served = await Served.start(this.blobs);
      await this.blobs.put(witness.digest, witness.data);
      const actionResult = { stdoutDigest: witness.digest, exitCode: 7 };
      const { UpdateActionResult } = ActionCache.methods;
      await this.#served.unary(UpdateActionResult, { actionDigest: witness.digest, actionResult });
    });
    afterAll(() => this.#served?.close());
  }

  get served(): Served {
    if (this.#served === undefined) throw new Error("the server is not up yet");
    return this.#served;
  }

  /** One test per row. */
  rows(name: string, table: readonly Row[]): void {
    const named = table.map(([row, call, code, message]) => ({ row, call, code, message }));
    describe(name, () => {
      test.each(named)("$row", async ({ call, code, message }) => {
        const blobsBefore = this.blobs.count;
        const error = await failureOf(call());
        expect({ code: error.code, details: error.details }).toEqual({ code, details: expect.stringMatching(message) });
        await assertAlive(this, blobsBefore);
      });
    });
  }
}

/** The server goes on and nothing was lost, nor anything added. */
export async function assertAlive({ blobs, served }: BadInputServer, blobsBefore: number): Promise<void> {
  expect(blobs.count).toBe(blobsBefore);
  const resourceName = `blobs/${witness.digest.hash}/${witness.digest.sizeBytes}`;
  const [response] = await served.stream(ByteStream.methods.Read, [{ resourceName }]);
  expect(Buffer.from(response!.data).toString()).toBe("the witness");
  const result = await served.unary(ActionCache.methods.GetActionResult, { actionDigest: witness.digest });
  expect(result.exitCode).toBe(7);
}

export async function failureOf(call: Promise<unknown>): Promise<ServiceError> {
  return call.then(
    () => expect.unreachable("the call succeeded"),
    (error: ServiceError) => error,
  );
}
