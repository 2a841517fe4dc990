// deploy/own-atomic.ts on copies of Node: what it changes, and what it refuses. test/cli/executable.test.ts runs the result.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { freeFromLibatomic } from "../../deploy/own-atomic.ts";

// The library of the other processor's Node is not looked at.
const isForThisProcessor = process.arch === "x64";

function node(): Buffer {
  return readFileSync(process.execPath);
}

test("frees Node from libatomic, once", () => {
  const elf = node();
  const before = Buffer.from(elf);
  expect(freeFromLibatomic(elf)).toBe(isForThisProcessor);
  expect(elf).toHaveLength(before.length);
  const afterOnce = Buffer.from(elf);
  expect(freeFromLibatomic(elf)).toBe(false);
  expect(elf.equals(afterOnce)).toBe(true);
});

test("leaves a program alone that does not need it", () => {
  const elf = readFileSync("/bin/true");
  const before = Buffer.from(elf);
  expect(freeFromLibatomic(elf)).toBe(false);
  expect(elf.equals(before)).toBe(true);
});

test("refuses a Node that calls it for other sizes, and what is no executable", () => {
  expect(() => freeFromLibatomic(Buffer.alloc(100))).toThrow(/not a 64-bit little-endian ELF file/);
  const elf = node();
  const MOV_EDI_8 = Buffer.from("bf08000000", "hex");
  for (let at = elf.indexOf(MOV_EDI_8); at >= 0; at = elf.indexOf(MOV_EDI_8, at + 1)) elf[at + 1] = 4;
  if (isForThisProcessor) expect(() => freeFromLibatomic(elf)).toThrow(/not for 8 octets/);
  else expect(freeFromLibatomic(elf)).toBe(false);
});
