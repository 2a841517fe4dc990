// The limit of address space, and the words for one that is too low.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { assertAddressSpace, readAddressSpace } from "../../src/base/address-space.ts";

const GIB = 2 ** 30;
const UNLIMITED = { limitBytes: Number.POSITIVE_INFINITY, freeBytes: Number.POSITIVE_INFINITY };

test("readAddressSpace() reads the limit and what is taken of it", () => {
  const folder = mkdtempSync(join(tmpdir(), "ledge-map-"));
  try {
    const limits = (value: string) =>
      `Limit                     Soft Limit           Hard Limit           Units     \nMax address space         ${value}           unlimited            bytes     \n`;
    writeFileSync(join(folder, "status"), "Name:\tledge\nVmSize:\t 1048576 kB\n");
    writeFileSync(join(folder, "limits"), limits(String(3 * GIB)));
    expect(readAddressSpace(folder)).toEqual({ limitBytes: 3 * GIB, freeBytes: 2 * GIB });
    writeFileSync(join(folder, "limits"), limits("unlimited"));
    expect(readAddressSpace(folder)).toEqual(UNLIMITED);
    expect(readAddressSpace(join(folder, "absent"))).toEqual(UNLIMITED);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("assertAddressSpace() says how much is expected and how to get it", () => {
  assertAddressSpace(UNLIMITED);
  expect(() => assertAddressSpace({ limitBytes: 2 * GIB, freeBytes: GIB })).toThrow(
    /address space is too low: 2 GiB, expected .* or more for \d+ threads; raise it \(ulimit -v/,
  );
});
