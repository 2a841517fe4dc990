// The harness's own hash functions against published vectors and another implementation.

import { createHash as createBlake3 } from "blake3";
import { describe, expect, test } from "vitest";
import { blake3Hex } from "../../native-free-bench/blake3.ts";
import { sha256TreeHex } from "../../native-free-bench/sha256tree.ts";

const sample = (sizeBytes: number): Buffer => Buffer.from(Array.from({ length: sizeBytes }, (_, index) => index % 251));

describe("blake3Hex()", () => {
  test.each([0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 5000, 16_384, 100_001])(
    "agrees with the blake3 package on %i bytes",
    (sizeBytes) => {
      expect(blake3Hex(sample(sizeBytes))).toBe(createBlake3().update(sample(sizeBytes)).digest("hex"));
    },
  );
});

// sha256tree_test_vectors.txt of remote-apis.
describe("sha256TreeHex()", () => {
  test.each([
    [1025, "36c0998b21839ef74300b9de47d96d1f62323dc81f2b4231e98ce70cd6ffe750"],
    [2048, "b584996386f01793751c5cf0c39561f51b7e9924b818943b3cb2f6928cea0fa9"],
    [2049, "7318d2029b0392edf4cf109edb5a086b4bdadbb7950f710a1483eb881d9e5d44"],
    [6145, "6dc4b78efd770453417b2ffdc74b27054793efe6122ecd7ee098670ed7c4651c"],
    [16_384, "a7a10149a8cb00be537000560edb83b196306b780b72fad8af218f369f75fc19"],
    [102_400, "0668d69e5331840d2f1823d717b7b3f5d1fdc8a09504cddb692b87ff83d50e5f"],
  ])("gives the published value for %i bytes", (sizeBytes, expected) => {
    expect(sha256TreeHex(sample(sizeBytes))).toBe(expected);
  });
});
