// The address space for LMDB's map: enough for --max-size, never more than the process may have.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { chooseMapSize } from "../../src/kv/map-size.ts";

const GIB = 2 ** 30;
const UNLIMITED = { freeBytes: Number.POSITIVE_INFINITY };

function withFile<T>(sizeBytes: number, use: (path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "ledge-map-"));
  const path = join(folder, "index.mdb");
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  try {
    return use(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("chooseMapSize()", () => {
  test("holds what --max-size lets in, and what the file holds already after --max-size was lowered", () => {
    const of = (fileBytes: number, maxStoredBytes: number | undefined) =>
      withFile(fileBytes, (path) => chooseMapSize({ path, maxStoredBytes }, UNLIMITED));
    expect(of(0, 100 * GIB)).toBe(200 * GIB);
    expect(of(0, 20 * 2 ** 20)).toBe(GIB);
    expect(of(10 * GIB, GIB)).toBe(20 * GIB);
    expect(of(0, undefined)).toBe(2 ** 40);
    // `ledge stats` names no limit: a map larger than what the processor can address would fail.
    expect(of(0, Number.MAX_SAFE_INTEGER)).toBe(2 ** 45);
  });

  test("takes what a limit of address space leaves beside the threads", () => {
    const size = withFile(0, (path) =>
      chooseMapSize({ path, maxStoredBytes: 100 * GIB, reservedBytes: 2 * GIB }, { freeBytes: 3 * GIB }),
    );
    expect(size).toBe(GIB);
  });

  test("says what is missing and what to do when the file does not fit into the limit", () => {
    const open = () =>
      withFile(4 * GIB, (path) =>
        chooseMapSize({ path, maxStoredBytes: GIB, reservedBytes: 0 }, { freeBytes: 3 * GIB }),
      );
    expect(open).toThrow(/address space is 1\.1 GiB too low.*ulimit -v/);
  });
});
