// BLAKE3 in plain TypeScript, for the blobs the harness makes up: a few kilobytes at a time.
//
// Invariant: equal to the published function (unkeyed, 32 bytes out); test/native-free-bench compares it with another
// implementation. About 30 MB/s: large blobs are hashed with SHA-256. Source: the BLAKE3 paper, section 2.

const IV = Uint32Array.of(
  0x6a09e667,
  0xbb67ae85,
  0x3c6ef372,
  0xa54ff53a,
  0x510e527f,
  0x9b05688c,
  0x1f83d9ab,
  0x5be0cd19,
);
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8] as const;
const CHUNK_START = 1;
const CHUNK_END = 2;
const PARENT = 4;
const ROOT = 8;
const CHUNK_BYTES = 1024;
const BLOCK_BYTES = 64;

interface Block {
  readonly chain: Uint32Array;
  readonly words: Uint32Array;
  readonly counter: number;
  readonly sizeBytes: number;
  readonly flags: number;
}

export function blake3Hex(data: Uint8Array): string {
  const words = compress(withRoot(subtree(data, 0)));
  const hash = Buffer.alloc(32);
  for (let index = 0; index < 8; index++) hash.writeUInt32LE(words[index]!, index * 4);
  return hash.toString("hex");
}

/** Returns the last block of the subtree over `data`, not yet compressed, because the root's is flagged. */
function subtree(data: Uint8Array, chunkIndex: number): Block {
  if (data.length <= CHUNK_BYTES) return chunk(data, chunkIndex);
  const chunks = Math.ceil(data.length / CHUNK_BYTES);
  const leftChunks = 2 ** Math.floor(Math.log2(chunks - 1));
  const words = new Uint32Array(16);
  words.set(compress(subtree(data.subarray(0, leftChunks * CHUNK_BYTES), chunkIndex)).subarray(0, 8), 0);
  words.set(compress(subtree(data.subarray(leftChunks * CHUNK_BYTES), chunkIndex + leftChunks)).subarray(0, 8), 8);
  return { chain: IV, words, counter: 0, sizeBytes: BLOCK_BYTES, flags: PARENT };
}

function chunk(data: Uint8Array, chunkIndex: number): Block {
  let chain = IV;
  const blocks = Math.max(1, Math.ceil(data.length / BLOCK_BYTES));
  for (let index = 0; ; index++) {
    const bytes = data.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
    const padded = Buffer.alloc(BLOCK_BYTES);
    padded.set(bytes);
    const words = new Uint32Array(16);
    for (let word = 0; word < 16; word++) words[word] = padded.readUInt32LE(word * 4);
    const isLast = index === blocks - 1;
    const flags = (index === 0 ? CHUNK_START : 0) | (isLast ? CHUNK_END : 0);
    const block: Block = { chain, words, counter: chunkIndex, sizeBytes: bytes.length, flags };
    if (isLast) return block;
    chain = compress(block).slice(0, 8);
  }
}

function withRoot(block: Block): Block {
  return { ...block, flags: block.flags | ROOT };
}

function compress(block: Block): Uint32Array {
  const v = new Uint32Array(16);
  v.set(block.chain.subarray(0, 8), 0);
  v.set(IV.subarray(0, 4), 8);
  v[12] = block.counter >>> 0;
  v[13] = Math.floor(block.counter / 2 ** 32);
  v[14] = block.sizeBytes;
  v[15] = block.flags;
  let m = block.words;
  for (let round = 0; ; round++) {
    mix(v, 0, 4, 8, 12, m[0]!, m[1]!);
    mix(v, 1, 5, 9, 13, m[2]!, m[3]!);
    mix(v, 2, 6, 10, 14, m[4]!, m[5]!);
    mix(v, 3, 7, 11, 15, m[6]!, m[7]!);
    mix(v, 0, 5, 10, 15, m[8]!, m[9]!);
    mix(v, 1, 6, 11, 12, m[10]!, m[11]!);
    mix(v, 2, 7, 8, 13, m[12]!, m[13]!);
    mix(v, 3, 4, 9, 14, m[14]!, m[15]!);
    if (round === 6) break;
    const previous = m;
    m = Uint32Array.from(PERMUTATION, (from) => previous[from]!);
  }
  for (let index = 0; index < 8; index++) v[index] = v[index]! ^ v[index + 8]!;
  return v;
}

function mix(v: Uint32Array, a: number, b: number, c: number, d: number, x: number, y: number): void {
  v[a] = v[a]! + v[b]! + x;
  v[d] = rotateRight(v[d]! ^ v[a]!, 16);
  v[c] = v[c]! + v[d]!;
  v[b] = rotateRight(v[b]! ^ v[c]!, 12);
  v[a] = v[a]! + v[b]! + y;
  v[d] = rotateRight(v[d]! ^ v[a]!, 8);
  v[c] = v[c]! + v[d]!;
  v[b] = rotateRight(v[b]! ^ v[c]!, 7);
}

function rotateRight(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}
