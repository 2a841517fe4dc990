// Encodes our responses' field blocks without state: static-table indexes and literals that are never stored (H-20).
//
// So nothing can desynchronise, blocks of constant fields are constant octets, and a peer's table size does not matter
// to us beyond the size update that it wants to see (H-21).

import type { HeaderBlock, HeaderField } from "./header-block.ts";
import { STATIC_TABLE } from "./hpack-static-table.ts";

/** `name` and `name value` → index. */
const INDEXES = new Map<string, number>();
for (const [row, [name, value]] of STATIC_TABLE.entries()) {
  if (!INDEXES.has(name)) INDEXES.set(name, row + 1);
  if (value !== "") INDEXES.set(`${name} ${value}`, row + 1);
}

/** Values that must not get into any table on the way (H-24). */
const SECRET_NAMES = new Set(["authorization", "cookie", "set-cookie", "proxy-authorization"]);

/** A dynamic table size update to 0. */
export const EMPTY_TABLE_UPDATE = 0x20;

const encodedBlocks = new WeakMap<HeaderBlock, Uint8Array>();

/** The octets of `block`; computed once for a block that is used again. */
export function encodeBlock(block: HeaderBlock): Uint8Array {
  let octets = encodedBlocks.get(block);
  if (octets === undefined) {
    octets = encodeFields(block.fields);
    encodedBlocks.set(block, octets);
  }
  return octets;
}

export function encodeFields(fields: readonly HeaderField[]): Uint8Array {
  const out: number[] = [];
  for (const [name, value] of fields) encodeField(out, name, value);
  return Uint8Array.from(out);
}

function encodeField(out: number[], name: string, value: string): void {
  const whole = INDEXES.get(`${name} ${value}`);
  if (whole !== undefined && value !== "") return pushInteger(out, 0x80, 7, whole);
  const firstOctet = SECRET_NAMES.has(name) ? 0x10 : 0x00;
  const nameIndex = INDEXES.get(name);
  if (nameIndex !== undefined) pushInteger(out, firstOctet, 4, nameIndex);
  else {
    out.push(firstOctet);
    pushString(out, name);
  }
  pushString(out, value);
}

function pushString(out: number[], text: string): void {
  pushInteger(out, 0, 7, text.length);
  for (let at = 0; at < text.length; at++) out.push(text.charCodeAt(at) & 0xff);
}

export function pushInteger(out: number[], firstOctet: number, prefixBits: number, value: number): void {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    out.push(firstOctet | value);
    return;
  }
  out.push(firstOctet | mask);
  let rest = value - mask;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  out.push(rest);
}
