// Hashing: published vectors, and each implementation of BLAKE3 against the other.

import { createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { blake3, loadNativeBlake3, loadWasmBlake3 } from "../../src/compute/blake3.ts";
import { createIncrementalHash, hashBytes, hashHex, toHex } from "../../src/compute/hash.ts";
import { DigestFunction, EMPTY_HASH } from "../../src/digest/digest.ts";

/** Published with BLAKE3: the input of n bytes is 0, 1, 2, … 250, 0, 1, … */
const BLAKE3_VECTORS: readonly [number, string][] = [
  [0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
  [1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"],
  [1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"],
  [1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"],
  [1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"],
  [102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"],
];

const SHA256_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

function vectorInput(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index % 251);
}

describe("hashing", () => {
  test("SHA-256 of a published vector", () => {
    expect(hashHex(DigestFunction.SHA256, Buffer.from("abc"))).toBe(SHA256_ABC);
    expect(hashHex(DigestFunction.SHA256, new Uint8Array(0))).toBe(EMPTY_HASH[DigestFunction.SHA256]);
  });

  for (const implementation of [loadNativeBlake3(), loadWasmBlake3(), blake3()]) {
    test(`BLAKE3 of the published vectors, ${implementation.name}`, () => {
      for (const [length, expected] of BLAKE3_VECTORS) {
        expect(toHex(implementation.hash(vectorInput(length)))).toBe(expected);
        const running = implementation.create();
        const input = vectorInput(length);
        for (let offset = 0; offset < length; offset += 1000) running.update(input.subarray(offset, offset + 1000));
        expect(toHex(running.digest())).toBe(expected);
      }
    });
  }

  // Where the native package does not load, clients must get the same digests.
  test("BLAKE3 native and WebAssembly agree on random bytes, also with several hashes running at once", () => {
    const [native, wasm] = [loadNativeBlake3(), loadWasmBlake3()];
    const running = Array.from({ length: 20 }, () => ({ hash: wasm.create(), chunks: [] as Uint8Array[] }));
    for (let round = 0; round < 50; round++) {
      for (const state of running) {
        const chunk = randomBytes(round * 531);
        state.hash.update(chunk);
        state.chunks.push(chunk);
      }
    }
    for (const state of running) {
      expect(toHex(state.hash.digest())).toBe(toHex(native.hash(Buffer.concat(state.chunks))));
    }
  });

  test("piece by piece gives the hash of the whole", () => {
    const data = randomBytes(200_000);
    for (const fn of [DigestFunction.SHA256, DigestFunction.BLAKE3] as const) {
      const hash = createIncrementalHash(fn);
      for (let offset = 0; offset < data.length; offset += 777) hash.update(data.subarray(offset, offset + 777));
      expect(toHex(hash.digest())).toBe(hashHex(fn, data));
      expect(toHex(hashBytes(fn, data))).toBe(hashHex(fn, data));
    }
    expect(hashHex(DigestFunction.SHA256, data)).toBe(createHash("sha256").update(data).digest("hex"));
  });
});
