// Encodes our responses' field blocks without state: static-table indexes and literals that are never stored (H-20).
//
// So nothing can desynchronise, blocks of constant fields are constant octets, and a peer's table size does not matter
// to us beyond the size update that it wants to see (H-21).

import type { HeaderBlock, HeaderField } from "./header-block.ts";
import { STATIC_TABLE } from "./hpack-static-table.ts";

/** How a name begins a literal, and the static entries that have a value with it. */
interface EncodedName {
  readonly octets: Uint8Array;
  readonly indexes: ReadonlyMap<string, number> | undefined;
}

/** Values that must not get into any table on the way (H-24). */
const SECRET_NAMES = new Set(["authorization", "cookie", "set-cookie", "proxy-authorization"]);

/** Names that are in no table come from our sources, so there are a few; nobody can make us remember more than this. */
const MAX_REMEMBERED_NAMES = 256;

/** An integer below 2^31 takes this many octets at most. */
const MAX_INTEGER_OCTETS = 6;

const encodedNames = new Map<string, EncodedName>();
for (const [row, [name, value]] of STATIC_TABLE.entries()) {
  const known = encodedNames.get(name);
  const indexes = new Map(known?.indexes);
  if (value !== "") indexes.set(value, row + 1);
  const octets = known?.octets ?? literalWithIndex(name, row + 1);
  encodedNames.set(name, { octets, indexes: indexes.size === 0 ? undefined : indexes });
}

/** A dynamic table size update to 0. */
export const EMPTY_TABLE_UPDATE = 0x20;

/** Strings from here on are faster written by Node than octet by octet. */
const LONG_STRING = 24;

/** Blocks are put together here; grows to the longest one. */
let scratch = Buffer.allocUnsafeSlow(8192);

/**
 * The octets of `block`, valid until the next call when `block` is encoded for the first time: the block of a status is
 * used once, and those that are used again are kept from the second time on.
 */
export function encodeBlock(block: HeaderBlock): Uint8Array {
  if (block.encoded !== undefined) return block.encoded;
  const octets = encodeFields(block.fields);
  if (block.usedBefore) block.encoded = Uint8Array.from(octets);
  block.usedBefore = true;
  return octets;
}

/** As octets that are valid until the next call. */
export function encodeFields(fields: readonly HeaderField[]): Uint8Array {
  let at = 0;
  for (const [name, value] of fields) {
    const encoded = encodedNames.get(name) ?? encodeNewName(name);
    const neededBytes = at + encoded.octets.length + MAX_INTEGER_OCTETS + value.length;
    if (neededBytes > scratch.length) grow(neededBytes);
    at = putField(at, encoded, value);
  }
  return scratch.subarray(0, at);
}

function putField(start: number, { octets, indexes }: EncodedName, value: string): number {
  const whole = indexes?.get(value);
  if (whole !== undefined) return putInteger(scratch, start, 0x80, { prefixBits: 7, value: whole });
  scratch.set(octets, start);
  return putString(scratch, start + octets.length, value);
}

function encodeNewName(name: string): EncodedName {
  const target = Buffer.allocUnsafeSlow(1 + MAX_INTEGER_OCTETS + name.length);
  target[0] = firstOctet(name);
  const encoded = { octets: target.subarray(0, putString(target, 1, name)), indexes: undefined };
  if (encodedNames.size < MAX_REMEMBERED_NAMES) encodedNames.set(name, encoded);
  return encoded;
}

function literalWithIndex(name: string, index: number): Uint8Array {
  const target = Buffer.allocUnsafeSlow(MAX_INTEGER_OCTETS);
  return target.subarray(0, putInteger(target, 0, firstOctet(name), { prefixBits: 4, value: index }));
}

/** A literal that is not stored, or must not be. */
function firstOctet(name: string): number {
  return SECRET_NAMES.has(name) ? 0x10 : 0x00;
}

function putString(target: Buffer, start: number, text: string): number {
  const at = putInteger(target, start, 0, { prefixBits: 7, value: text.length });
  if (text.length >= LONG_STRING) return at + target.write(text, at, "latin1");
  for (let index = 0; index < text.length; index++) target[at + index] = text.charCodeAt(index);
  return at + text.length;
}

/** Writes `value` behind the bits of `pattern` (RFC 7541 section 5.1); returns where it ends. */
export function putInteger(
  target: Uint8Array,
  start: number,
  pattern: number,
  { prefixBits, value }: { readonly prefixBits: number; readonly value: number },
): number {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    target[start] = pattern | value;
    return start + 1;
  }
  target[start] = pattern | mask;
  let at = start + 1;
  let rest = value - mask;
  for (; rest >= 0x80; rest >>>= 7) target[at++] = (rest & 0x7f) | 0x80;
  target[at++] = rest;
  return at;
}

function grow(neededBytes: number): void {
  const larger = Buffer.allocUnsafeSlow(2 * neededBytes);
  larger.set(scratch);
  scratch = larger;
}
