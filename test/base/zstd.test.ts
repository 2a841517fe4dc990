// Zstandard whole and in streams, checked against node:zlib called directly.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  compressZstd,
  createZstdCompressor,
  createZstdDecompressor,
  decompressZstd,
  type ZstdStream,
} from "../../src/base/zstd.ts";

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

describe("zstd", () => {
  test("compressZstd() and decompressZstd() give back the bytes, small and large", async () => {
    for (const data of [new Uint8Array(0), text.subarray(0, 1000), text]) {
      const compressed = await compressZstd(data);
      expect(zstdDecompressSync(compressed).equals(data)).toBe(true);
      expect(Buffer.from(await decompressZstd(compressed, data.length)).equals(data)).toBe(true);
    }
  });

  test("decompressZstd() refuses more, fewer and corrupt bytes", async () => {
    const compressed = zstdCompressSync(text);
    await expect(decompressZstd(compressed, text.length - 1)).rejects.toThrow(
      /more than 999999 bytes, expected 999999/,
    );
    await expect(decompressZstd(compressed, text.length + 1)).rejects.toThrow(/holds 1000000 bytes, expected 1000001/);
    await expect(decompressZstd(compressed.subarray(0, -3), text.length)).rejects.toThrow(/middle of a frame/);
    await expect(decompressZstd(Buffer.from("not zstd at all"), 10)).rejects.toThrow(/corrupt zstd stream/);
    await expect(decompressZstd(new Uint8Array(0), 10)).rejects.toThrow(/zstd stream/);
  });

  test("a stream gives back the bytes, whatever the pieces", async () => {
    for (const size of [7, 1000, 65_536, 2_000_000]) {
      const compressed = await run(createZstdCompressor(), pieces(text.subarray(0, size * 300), size));
      const expected = text.subarray(0, size * 300);
      expect(zstdDecompressSync(compressed).equals(expected)).toBe(true);
      expect((await run(createZstdDecompressor(expected.length), pieces(compressed, size))).equals(expected)).toBe(
        true,
      );
    }
  });

  test("a stream of several frames, one of them to be skipped, is their concatenation", async () => {
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    const frames = Buffer.concat([zstdCompressSync("ab"), skippable, zstdCompressSync("cd")]);
    expect((await run(createZstdDecompressor(4), [frames])).toString()).toBe("abcd");
  });

  // A bomb: 100 MB of zeros in a few kilobytes. Only the declared size is ever made.
  test("a stream stops at the declared size", async () => {
    const bomb = zstdCompressSync(Buffer.alloc(100_000_000));
    const stream = createZstdDecompressor(1_000_000);
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
    await expect(run(createZstdDecompressor(text.length), [compressed.subarray(0, -3)])).rejects.toThrow(/middle of/);
    const garbage = Buffer.concat([compressed, Buffer.from("garbage!!")]);
    await expect(run(createZstdDecompressor(text.length), [garbage])).rejects.toThrow(/corrupt zstd stream/);
    await expect(run(createZstdDecompressor(5), [])).rejects.toThrow(/empty/);
  });

  test("close() frees a stream that was left in the middle", async () => {
    const stream = createZstdDecompressor(text.length);
    for await (const _output of stream.push(zstdCompressSync(text).subarray(0, 20))) break;
    stream.close();
    stream.close();
  });
});
