// Buffers that are used again must never be with two owners, and strangers must not come in.

import { expect, test } from "vitest";
import { PieceBuffers } from "../../src/cas/piece-buffers.ts";
import { CHECKSUM_PIECE_BYTES } from "../../src/compute/ingest-protocol.ts";

test("a piece that is given back is handed out again, once", () => {
  const buffers = new PieceBuffers();
  const first = buffers.take(CHECKSUM_PIECE_BYTES);
  buffers.give(first.subarray(10, 20));
  const second = buffers.take(700_000);
  expect(second.buffer).toBe(first.buffer);
  expect(second).toHaveLength(700_000);
  expect(buffers.take(CHECKSUM_PIECE_BYTES).buffer).not.toBe(first.buffer);
});

test("what is no piece is not kept, and pieces only up to a bound", () => {
  const buffers = new PieceBuffers();
  buffers.give(Buffer.alloc(100));
  buffers.give(buffers.take(1000));
  buffers.give(Buffer.alloc(2 * CHECKSUM_PIECE_BYTES));
  expect(buffers.freeCount).toBe(0);
  for (const piece of Array.from({ length: 40 }, () => buffers.take(CHECKSUM_PIECE_BYTES))) buffers.give(piece);
  expect(buffers.freeCount).toBe(16);
});
