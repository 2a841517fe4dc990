// Buffers that are used again: the right sizes, and never more of them than is allowed.

import { expect, test } from "vitest";
import { giveLargeBuffer, takeLargeBuffer } from "../../src/base/large-buffers.ts";

const MIB = 1024 * 1024;

test("a buffer that was given back is taken by whoever wants one of about that size", () => {
  const buffer = takeLargeBuffer(MIB + 40);
  expect(buffer.byteLength).toBe(MIB + 64 * 1024);
  giveLargeBuffer(buffer);
  const [other, same] = [takeLargeBuffer(MIB - 64 * 1024), takeLargeBuffer(MIB + 1)];
  expect(same).toBe(buffer);
  expect(other).not.toBe(buffer);
  expect(takeLargeBuffer(MIB + 1)).not.toBe(buffer);
});

test("what would be too much to keep is freed at once", () => {
  const buffers = Array.from({ length: 40 }, () => takeLargeBuffer(MIB));
  for (const buffer of buffers) giveLargeBuffer(buffer);
  const kept = buffers.filter(({ detached }) => !detached);
  expect(kept.length).toBeGreaterThan(0);
  expect(kept.length * MIB).toBeLessThanOrEqual(32 * MIB);
});

test("a buffer of an odd size is not kept", () => {
  const odd = new ArrayBuffer(70_000);
  giveLargeBuffer(odd);
  expect(odd.detached).toBe(true);
});
