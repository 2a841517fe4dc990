// SHA256TREE: SHA-256 over a binary tree of blocks of 1 KiB, for servers that advertise it.
//
// Invariant: equal to the published vectors (test/native-free-bench). Source: DigestFunction.SHA256TREE in the proto and
// sha256tree_test_vectors.txt of remote-apis.

import { createHash } from "node:crypto";

const LEAF_BYTES = 1024;
const CHAIN = [0xcbbb9d5d, 0x629a292a, 0x9159015a, 0x152fecd8, 0x67332667, 0x8eb44a87, 0xdb0c2e0d, 0x47b5481d] as const;

/** The fractional parts of the cube roots of the first 64 primes, as in FIPS 180-4. */
const ROUND_CONSTANTS = roundConstants();

export function sha256TreeHex(data: Uint8Array): string {
  return tree(data).toString("hex");
}

function tree(data: Uint8Array): Buffer {
  if (data.length <= LEAF_BYTES) return createHash("sha256").update(data).digest();
  const leftBytes = 2 ** Math.ceil(Math.log2(data.length) - 1);
  return join(Buffer.concat([tree(data.subarray(0, leftBytes)), tree(data.subarray(leftBytes))]));
}

/** One run of SHA-256's compression function without the final addition. */
function join(block: Buffer): Buffer {
  const w = new Uint32Array(64);
  for (let index = 0; index < 16; index++) w[index] = block.readUInt32BE(index * 4);
  for (let index = 16; index < 64; index++) {
    const a = w[index - 15]!;
    const b = w[index - 2]!;
    w[index] =
      w[index - 16]! +
      (rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3)) +
      w[index - 7]! +
      (rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10));
  }
  const v = Uint32Array.from(CHAIN);
  for (let index = 0; index < 64; index++) {
    const e = v[4]!;
    const a = v[0]!;
    const first =
      (v[7]! +
        (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
        ((e & v[5]!) ^ (~e & v[6]!)) +
        ROUND_CONSTANTS[index]! +
        w[index]!) >>>
      0;
    const second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & v[1]!) ^ (a & v[2]!) ^ (v[1]! & v[2]!));
    v.copyWithin(1, 0, 7);
    v[4] = v[4]! + first;
    v[0] = first + second;
  }
  const hash = Buffer.alloc(32);
  for (let index = 0; index < 8; index++) hash.writeUInt32BE(v[index]!, index * 4);
  return hash;
}

function rotate(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

function roundConstants(): Uint32Array {
  const constants = new Uint32Array(64);
  for (let candidate = 2, count = 0; count < 64; candidate++) {
    let isPrime = true;
    for (let divisor = 2; divisor * divisor <= candidate; divisor++) if (candidate % divisor === 0) isPrime = false;
    if (isPrime) constants[count++] = Number(cubeRootTimes2To32(BigInt(candidate)) & 0xffff_ffffn);
  }
  return constants;
}

/** floor(cbrt(n) * 2^32), exactly: the largest r with r^3 <= n * 2^96. */
function cubeRootTimes2To32(n: bigint): bigint {
  const scaled = n << 96n;
  let low = 0n;
  let high = 1n << 36n;
  while (low < high) {
    const middle = (low + high + 1n) >> 1n;
    if (middle * middle * middle <= scaled) low = middle;
    else high = middle - 1n;
  }
  return low;
}
