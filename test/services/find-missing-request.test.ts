// The hand-written decoder against the generated codec, which is slower and plain: same digests or same error.

import { randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import { StatusError } from "../../src/base/status.ts";
import { DigestFunction, parseDigest, parseDigestFunction, type Digest } from "../../src/digest/digest.ts";
import { FindMissingBlobsRequest, FindMissingBlobsResponse } from "../../src/proto/remote_execution.ts";
import { FindMissingRequest } from "../../src/services/find-missing-request.ts";
import { encodeIndependently } from "./independent-encoding.ts";
import { sample } from "./sample-blobs.ts";

function oracle(bytes: Uint8Array): Digest[] {
  const request = FindMissingBlobsRequest.decode(bytes);
  const fn = parseDigestFunction(request.digestFunction);
  return request.blobDigests.map((digest, i) => parseDigest(fn, digest, `blob_digests[${i}]`));
}

function decode(bytes: Uint8Array, request = new FindMissingRequest()): Digest[] {
  request.decode(bytes);
  return Array.from({ length: request.batch.count }, (_, i) => request.batch.digestAt(i));
}

function outcome(run: () => Digest[]): unknown {
  try {
    return run();
  } catch (error) {
    return error instanceof StatusError ? error.message : (error as Error).message;
  }
}

const digests = Array.from({ length: 3000 }, (_, i) => sample(`content ${i}`.repeat(i % 50)).digest);
const SIZES = [0, 1, 127, 128, 16_383, 16_384, 2 ** 21, 2 ** 28, 2 ** 35 + 1, 2 ** 42, 2 ** 49, 2 ** 53 - 1];

describe("decode()", () => {
  test("reads what an independent encoder writes, with sizes of every length", () => {
    const request = new FindMissingRequest();
    const sized = SIZES.map((sizeBytes, i) =>
      sizeBytes === 0 ? sample("").digest : { ...digests[i + 1]!, sizeBytes },
    );
    for (const blobDigests of [digests, sized, []]) {
      const bytes = encodeIndependently("FindMissingBlobsRequest", { instanceName: "main", blobDigests });
      expect(decode(bytes, request)).toEqual(oracle(bytes));
    }
  });

  test("reads BLAKE3, whose empty blob has another name", () => {
    const blobDigests = [sample("", DigestFunction.BLAKE3).digest, sample("x", DigestFunction.BLAKE3).digest];
    const bytes = encodeIndependently("FindMissingBlobsRequest", { blobDigests, digestFunction: 9 });
    expect(decode(bytes)).toEqual(oracle(bytes));
  });

  test("reads other layouts: fields in another order, unknown fields, long and foreign instance names", () => {
    const [a, b] = [digests[1]!, digests[2]!];
    const plain = encodeIndependently("FindMissingBlobsRequest", { blobDigests: [a, b] });
    const unknownField = Buffer.from([0xfa, 0x01, 3, 1, 2, 3]);
    const functionFirst = Buffer.concat([Buffer.from([0x18, 1]), plain]);
    const hash = Buffer.concat([Buffer.from([0x0a, 64]), Buffer.from(a.hash)]);
    const sizeFirst = Buffer.concat([Buffer.from([0x12, 68, 0x10, 5]), hash]);
    const named = (instanceName: string) =>
      encodeIndependently("FindMissingBlobsRequest", { instanceName, blobDigests: [a, b] });
    for (const bytes of [
      Buffer.concat([plain, unknownField]),
      Buffer.concat([unknownField, plain]),
      functionFirst,
      sizeFirst,
      named("x".repeat(300)),
      named("ünïcode"),
    ]) {
      expect(decode(bytes)).toEqual(oracle(bytes));
    }
  });

  test("names the digest that is wrong, by position", () => {
    const good = digests[1]!;
    for (const [bad, expected] of [
      [{ hash: good.hash.toUpperCase(), sizeBytes: 1 }, /blob_digests\[2\]: hash .* is not lower-case hexadecimal/],
      [{ hash: good.hash.slice(1), sizeBytes: 1 }, /blob_digests\[2\]: .* 63 characters, expected 64/],
      [{ hash: good.hash, sizeBytes: 0 }, /blob_digests\[2\]: size_bytes is 0 but hash/],
      [{ hash: good.hash, sizeBytes: -5 }, /blob_digests\[2\]: size_bytes -5 is not between/],
      [{ hash: good.hash, sizeBytes: 2 ** 60 }, /blob_digests\[2\]: size_bytes 1152921504606847000 is not between/],
      [{}, /blob_digests\[2\]: hash "" has 0 characters/],
    ] as const) {
      const bytes = encodeIndependently("FindMissingBlobsRequest", { blobDigests: [good, good, bad, good] });
      expect(outcome(() => decode(bytes))).toMatch(expected);
    }
  });

  test("random damage gives the oracle's digests or an error of the oracle", () => {
    const seed = randomInt(2 ** 31);
    console.log(`seed ${seed}`);
    let state = seed;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return state % below;
    };
    const request = new FindMissingRequest();
    const blobDigests = digests.slice(0, 4);
    const whole = encodeIndependently("FindMissingBlobsRequest", {
      instanceName: "main",
      blobDigests,
      digestFunction: 1,
    });
    for (let round = 0; round < 5000; round++) {
      const bytes = new Uint8Array(whole.subarray(0, random(3) === 0 ? random(whole.length) : whole.length));
      for (let i = random(4); i > 0 && bytes.length > 0; i--) bytes[random(bytes.length)] = random(256);
      const expected = outcome(() => oracle(bytes));
      const actual = outcome(() => decode(bytes, request));
      // Names of instances are checked here and not by the oracle.
      if (typeof actual === "string" && actual.startsWith("instance_name")) continue;
      expect(actual, `seed ${seed} round ${round}`).toEqual(expected);
    }
  });
});

test("encodeResponse() echoes the digests at the positions", () => {
  const request = new FindMissingRequest();
  const bytes = encodeIndependently("FindMissingBlobsRequest", { blobDigests: digests });
  request.decode(bytes);
  for (const positions of [[], [0], [2999], [0, 1, 2, 10, 11, 2999], digests.map((_, i) => i)]) {
    const response = FindMissingBlobsResponse.decode(request.encodeResponse(Uint32Array.from(positions)));
    const expected = positions.map((i) => ({ hash: digests[i]!.hash, sizeBytes: digests[i]!.sizeBytes }));
    expect(response.missingBlobDigests).toEqual(expected);
  }
});
