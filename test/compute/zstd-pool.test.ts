// Zstandard whole and in streams, checked against node:zlib called directly.

import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import type { ZstdStream } from "../../src/base/zstd.ts";
import { Code } from "../../src/base/status.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";

const zstd = new ZstdPool({ threads: 2 });
afterAll(() => zstd.close());

async function run(stream: ZstdStream, chunks: readonly Uint8Array[]): Promise<Buffer> {
  const outputs: Uint8Array[] = [];
  try {
    for (const chunk of chunks) for await (const output of stream.push(chunk)) outputs.push(output);
    for await (const output of stream.finish()) outputs.push(output);
  } finally {
    stream.close();
  }
  return Buffer.concat(outputs);
}

function pieces(data: Uint8Array, size: number): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) result.push(data.subarray(at, at + size));
  return result;
}

const text = new Uint8Array(Buffer.from("the quick brown fox ".repeat(50_000)));

describe("ZstdPool", () => {
  test("compress() and decompress() give back the bytes, small and large", async () => {
    for (const data of [new Uint8Array(0), text.subarray(0, 1000), text]) {
      const compressed = await zstd.compress(data);
      expect(zstdDecompressSync(compressed).equals(data)).toBe(true);
      expect(Buffer.from(await zstd.decompress(compressed, data.length)).equals(data)).toBe(true);
    }
  });

  test("decompress() refuses more, fewer and corrupt bytes", async () => {
    const compressed = zstdCompressSync(text);
    await expect(zstd.decompress(compressed, text.length - 1)).rejects.toThrow(
      /more than 999999 bytes, expected 999999/,
    );
    await expect(zstd.decompress(compressed, text.length + 1)).rejects.toThrow(/holds 1000000 bytes, expected 1000001/);
    await expect(zstd.decompress(compressed.subarray(0, -3), text.length)).rejects.toThrow(/middle of a frame/);
    await expect(zstd.decompress(Buffer.from("not zstd at all"), 10)).rejects.toThrow(/corrupt zstd stream/);
    await expect(zstd.decompress(new Uint8Array(0), 10)).rejects.toThrow(/zstd stream/);
  });

  test("a stream gives back the bytes, whatever the pieces", async () => {
    for (const size of [7, 1000, 65_536, 2_000_000]) {
      const expected = text.subarray(0, size * 300);
      const compressed = await run(zstd.createCompressor(expected.length), pieces(expected, size));
      expect(zstdDecompressSync(compressed).equals(expected)).toBe(true);
      expect((await run(zstd.createDecompressor(expected.length), pieces(compressed, size))).equals(expected)).toBe(
        true,
      );
    }
  });

  test("a stream of several frames, one of them to be skipped, is their concatenation", async () => {
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    const frames = Buffer.concat([zstdCompressSync("ab"), skippable, zstdCompressSync("cd")]);
    expect((await run(zstd.createDecompressor(4), [frames])).toString()).toBe("abcd");
  });

  // A bomb: 100 MB of zeros in a few kilobytes. Only the declared size is ever made.
  test("a stream stops at the declared size", async () => {
    const bomb = zstdCompressSync(Buffer.alloc(100_000_000));
    const stream = zstd.createDecompressor(1_000_000);
    let produced = 0;
    const reading = async (): Promise<void> => {
      for await (const output of stream.push(bomb)) produced += output.length;
    };
    await expect(reading()).rejects.toThrow(/more than 1000000 bytes/);
    stream.close();
    expect(produced).toBeLessThanOrEqual(1_000_000);
  });

  test("a stream refuses cut frames, garbage after the last frame, and no frame at all", async () => {
    const compressed = zstdCompressSync(text);
    await expect(run(zstd.createDecompressor(text.length), [compressed.subarray(0, -3)])).rejects.toThrow(/middle of/);
    const garbage = Buffer.concat([compressed, Buffer.from("garbage!!")]);
    await expect(run(zstd.createDecompressor(text.length), [garbage])).rejects.toThrow(/corrupt zstd stream/);
    await expect(run(zstd.createDecompressor(5), [])).rejects.toThrow(/empty/);
  });

  test("close() lets jobs end, and refuses more", async () => {
    const pool = new ZstdPool({ threads: 1 });
    const results = Array.from({ length: 5 }, () => pool.compress(text));
    await pool.close();
    expect(await Promise.all(results.map(async (each) => each))).toHaveLength(5);
    await expect(pool.compress(text)).rejects.toThrow(/closed/);
  });

  // A client that concatenates frames cuts them wherever its messages end, in the middle of a magic number too.
  test("frames may meet anywhere in a piece", async () => {
    const frames = Array.from({ length: 30 }, (_, i) => zstdCompressSync(`frame ${i} `.repeat(i * 7)));
    const expected = frames.map((frame) => zstdDecompressSync(frame).toString()).join("");
    for (const size of [1, 2, 3, 5, 11, 64]) {
      const got = await run(zstd.createDecompressor(expected.length), pieces(Buffer.concat(frames), size));
      expect(got.toString()).toBe(expected);
    }
  });

  test("a second frame that is cut anywhere is refused, whatever the pieces", async () => {
    const first = zstdCompressSync("abc");
    const second = zstdCompressSync("def");
    for (let kept = 1; kept < second.length; kept++) {
      const cut = Buffer.concat([first, second.subarray(0, kept)]);
      for (const size of [1, 5, 100]) {
        await expect(run(zstd.createDecompressor(6), pieces(cut, size))).rejects.toThrow(/middle of|holds 3 bytes/);
      }
    }
  });

  // The context is used again: neither a failed frame nor what came before may show in the next.
  test("small buffers are what node:zlib makes of them, after failures too", async () => {
    const seed = Number(process.env["LEDGE_TEST_SEED"] ?? Date.now() % 1_000_000_007);
    process.stdout.write(`seed ${seed}\n`);
    let state = seed;
    const random = (below: number): number => (state = (state * 48_271 + 11) % 2_147_483_647) % below;
    const level1 = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
    for (let round = 0; round < 300; round++) {
      const data = Buffer.from(text.subarray(random(1000), random(8000)).map((byte) => (random(9) === 0 ? 0 : byte)));
      const compressed = await zstd.compress(data);
      expect(Buffer.compare(compressed, zstdCompressSync(data, level1))).toBe(0);
      expect(Buffer.compare(await zstd.decompress(compressed, data.length), data)).toBe(0);
      const damaged = Buffer.from(compressed);
      damaged[random(damaged.length)]! ^= 1 + random(255);
      const outcome = await zstd.decompress(damaged, data.length).catch((error: unknown) => error);
      if (outcome instanceof Error) expect(outcome).toMatchObject({ code: Code.INVALID_ARGUMENT });
    }
  });

  test("streams that share a thread do not mix, and silent ones hold nobody up", async () => {
    const one = new ZstdPool({ threads: 1 });
    const compressed = zstdCompressSync(text);
    const silent = Array.from({ length: 200 }, () => one.createDecompressor(text.length));
    for (const stream of silent) for await (const _output of stream.push(compressed.subarray(0, 30)));
    const datas = Array.from({ length: 10 }, (_, i) => Buffer.alloc(700_000 + i, `stream ${i} `));
    const results = await Promise.all(
      datas.map((data) => run(one.createDecompressor(data.length), pieces(zstdCompressSync(data), 40))),
    );
    expect(results.every((result, i) => result.equals(datas[i]!))).toBe(true);
    // And the silent ones go on where they were.
    const last = silent.at(-1)!;
    const rest: Uint8Array[] = [];
    for await (const output of last.push(compressed.subarray(30))) rest.push(output);
    for await (const output of last.finish()) rest.push(output);
    expect(Buffer.concat(rest).length).toBe(text.length);
    for (const stream of silent) stream.close();
    await one.close();
  });

  // One job of the bomb is one slab; the next is made only when it is asked for.
  test("a piece that holds much is worth one slab at a time", async () => {
    const stream = zstd.createDecompressor(100_000_000);
    const sizes: number[] = [];
    for await (const output of stream.push(zstdCompressSync(Buffer.alloc(100_000_000)))) {
      sizes.push(output.length);
      if (sizes.length === 5) break;
    }
    stream.close();
    expect(Math.max(...sizes)).toBeLessThanOrEqual(512 * 1024);
  });

  // Many clients read one frame and stop: Python's zstandard, Rust's async-compression, a loop that ends at its end.
  test("a compressor makes one frame that says its size, whatever the size", async () => {
    for (const size of [0, 1, 524_288, 524_289, text.length]) {
      const compressed = await run(zstd.createCompressor(size), pieces(text.subarray(0, size), 100_000));
      expect(frameSizes(compressed), `${size} bytes`).toEqual([size]);
      expect(zstdDecompressSync(compressed).equals(text.subarray(0, size))).toBe(true);
    }
  });

  // Still one frame: clients that stop after the first would take a busy server's blobs for cut ones.
  test("beyond 64 streams at once a compressor makes one frame of plain blocks, and compresses again when they are closed", async () => {
    const open = Array.from({ length: 64 }, () => zstd.createCompressor(text.length));
    for (const size of [524_289, text.length]) {
      for (const pieceBytes of [7_001, 131_072, 400_000]) {
        const data = text.subarray(0, size);
        const stored = await run(zstd.createCompressor(size), pieces(data, pieceBytes));
        expect(frameSizes(stored)).toEqual([size]);
        expect(stored.length).toBeGreaterThan(size);
        expect(zstdDecompressSync(stored).equals(data)).toBe(true);
        expect((await run(zstd.createDecompressor(size), pieces(stored, 99_999))).equals(data)).toBe(true);
      }
    }
    for (const stream of open) stream.close();
    expect(frameSizes(await run(zstd.createCompressor(text.length), pieces(text, 100_000)))).toEqual([text.length]);
  });

  test("a compressor that is given too few bytes fails instead of ending its frame", async () => {
    await expect(run(zstd.createCompressor(text.length), [text.subarray(0, -1)])).rejects.toThrow(/zstd/);
  });

  test("close() frees a stream that was left in the middle", async () => {
    const stream = zstd.createDecompressor(text.length);
    for await (const _output of stream.push(zstdCompressSync(text).subarray(0, 20))) break;
    stream.close();
    stream.close();
    const reading = async (): Promise<void> => {
      for await (const _output of stream.push(text)) break;
    };
    await expect(reading()).rejects.toThrow(/closed/);
  });
});

/** What the header of each frame says its content has (RFC 8878, 3.1.1); blocks are walked, not decoded. */
function frameSizes(compressed: Buffer): number[] {
  const sizes: number[] = [];
  let at = 0;
  while (at < compressed.length) {
    expect(compressed.readUInt32LE(at)).toBe(0xfd2fb528);
    const descriptor = compressed.readUInt8(at + 4);
    const isSingleSegment = (descriptor & 0x20) !== 0;
    at += isSingleSegment ? 5 : 6;
    const sizeCode = descriptor >> 6;
    if (sizeCode === 0 && isSingleSegment) sizes.push(compressed.readUInt8(at));
    else if (sizeCode === 1) sizes.push(compressed.readUInt16LE(at) + 256);
    else if (sizeCode === 2) sizes.push(compressed.readUInt32LE(at));
    else if (sizeCode === 3) sizes.push(Number(compressed.readBigUInt64LE(at)));
    else sizes.push(Number.NaN);
    at += sizeCode === 0 ? Number(isSingleSegment) : 2 ** sizeCode;
    for (let isLast = false; !isLast;) {
      const header = compressed.readUIntLE(at, 3);
      isLast = (header & 1) === 1;
      at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
    }
    if ((descriptor & 4) !== 0) at += 4;
  }
  return sizes;
}
