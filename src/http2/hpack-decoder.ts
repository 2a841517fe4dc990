// Decodes field blocks (RFC 7541).
//
// Invariants: the table after a block is a pure function of the octets, whatever becomes of the request (H-8); cost is
// linear in the octets (H-9); a length is compared with the octets that are there before anything is made of it (H-3).
// Strings are latin1 (H-13). What the fields mean is request-fields.ts.

import { ErrorCode } from "./error-code.ts";
import { ConnectionError } from "./frame.ts";
import { HpackTable, MAX_TABLE_BYTES } from "./hpack-table.ts";
import { STATIC_ENTRIES, STATIC_NAMES, STATIC_VALUES } from "./hpack-static-table.ts";
import { decodeHuffman } from "./huffman.ts";

export interface FieldSink {
  /** `valid` = both name and value are legal octets (F-52). */
  onField(name: string, value: string, valid: boolean): void;
}

/** Node's own method behind toString("latin1"), without its checks; undocumented but as old as Buffer. */
interface Latin1Octets extends Buffer {
  latin1Slice(start: number, end: number): string;
}

const MAX_INTEGER = 2 ** 28;
const MAX_CONTINUATION_OCTETS = 5;
const MAX_SIZE_UPDATES = 2;

/** 1 for octets that a field name may have: token characters without upper case; ":" is allowed first only. */
const NAME_OCTETS = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") NAME_OCTETS[character.charCodeAt(0)] = 1;

/** Huffman output; grows to 8/5 of the longest string met, at most of a 64 KiB block. Shared: decoding never waits. */
let scratch = Buffer.allocUnsafeSlow(8192);

export class HpackDecoder {
  readonly table = new HpackTable();
  #octets: Buffer = scratch;
  #at = 0;
  #end = 0;
  /** Whether the string read last is legal as a name or value, as asked. */
  #legal = true;

  /** Decodes one whole block and reports its fields in order. Throws a ConnectionError(COMPRESSION_ERROR). */
  decode(octets: Uint8Array, start: number, end: number, sink: FieldSink): void {
    this.#octets = octets instanceof Buffer ? octets : Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength);
    this.#at = start;
    this.#end = end;
    let sizeUpdates = 0;
    let fields = 0;
    while (this.#at < this.#end) {
      const first = this.#octets[this.#at]!;
      if (first >= 0x80) this.#indexedField(sink);
      else if (first >= 0x40) this.#literal(6, true, sink);
      else if (first >= 0x20) {
        // H-5: only before the first field, at most twice.
        if (fields > 0 || ++sizeUpdates > MAX_SIZE_UPDATES) fail("table size update out of place");
        this.#sizeUpdate();
        continue;
      } else this.#literal(4, false, sink);
      fields++;
    }
  }

  #indexedField(sink: FieldSink): void {
    const index = this.#integer(7);
    if (index === 0) fail("index 0");
    if (index <= STATIC_ENTRIES) return sink.onField(STATIC_NAMES[index]!, STATIC_VALUES[index]!, true);
    const dynamic = this.#dynamicIndex(index);
    sink.onField(this.table.name(dynamic), this.table.value(dynamic), this.table.isValid(dynamic));
  }

  #literal(prefixBits: number, store: boolean, sink: FieldSink): void {
    const index = this.#integer(prefixBits);
    let name: string;
    let valid = true;
    if (index === 0) {
      name = this.#string(true);
      valid = this.#legal;
    } else if (index <= STATIC_ENTRIES) name = STATIC_NAMES[index]!;
    else {
      // The string survives the eviction that its own insertion may cause (H-7).
      name = this.table.name(this.#dynamicIndex(index));
      if (!isLegalName(name)) valid = false;
    }
    const value = this.#string(false);
    valid &&= this.#legal;
    if (store) this.table.insert(name, value, valid);
    sink.onField(name, value, valid);
  }

  #sizeUpdate(): void {
    const maxBytes = this.#integer(5);
    if (maxBytes > MAX_TABLE_BYTES) fail("table size above our SETTINGS_HEADER_TABLE_SIZE");
    this.table.resize(maxBytes);
  }

  #dynamicIndex(index: number): number {
    const dynamic = index - STATIC_ENTRIES - 1;
    if (dynamic >= this.table.count) fail(`index ${index} is beyond the table`);
    return dynamic;
  }

  #integer(prefixBits: number): number {
    if (this.#at >= this.#end) fail("truncated field");
    const mask = (1 << prefixBits) - 1;
    const first = this.#octets[this.#at++]! & mask;
    return first < mask ? first : this.#longInteger(first);
  }

  #longInteger(first: number): number {
    let value = first;
    let unit = 1;
    for (let count = 0; count < MAX_CONTINUATION_OCTETS; count++) {
      if (this.#at >= this.#end) fail("truncated integer");
      const octet = this.#octets[this.#at++]!;
      value += (octet & 0x7f) * unit;
      unit *= 128;
      if (octet < 0x80) {
        if (value > MAX_INTEGER) break;
        return value;
      }
    }
    return fail("integer too large");
  }

  #string(isName: boolean): string {
    const huffman = this.#at < this.#end && this.#octets[this.#at]! >= 0x80;
    const length = this.#integer(7);
    const start = this.#at;
    if (length > this.#end - start) fail("string longer than its block");
    this.#at = start + length;
    if (!huffman) return this.#text(this.#octets, start, start + length, isName);
    if (scratch.length < length * 2) scratch = Buffer.allocUnsafeSlow(length * 2);
    const written = decodeHuffman(this.#octets, start, start + length, scratch);
    if (written < 0) fail("bad Huffman code");
    return this.#text(scratch, 0, written, isName);
  }

  #text(octets: Buffer, start: number, end: number, isName: boolean): string {
    this.#legal = isName ? hasLegalNameOctets(octets, start, end) : hasLegalValueOctets(octets, start, end);
    return (octets as Latin1Octets).latin1Slice(start, end);
  }
}

function hasLegalNameOctets(octets: Uint8Array, start: number, end: number): boolean {
  if (start === end) return false;
  let at = octets[start] === 0x3a ? start + 1 : start;
  if (at === end) return false;
  while (at < end) if (NAME_OCTETS[octets[at++]!] === 0) return false;
  return true;
}

/** No NUL, CR, LF; no space or tab at either end (F-52). */
function hasLegalValueOctets(octets: Uint8Array, start: number, end: number): boolean {
  if (start === end) return true;
  if (isBlank(octets[start]!) || isBlank(octets[end - 1]!)) return false;
  for (let at = start; at < end; at++) {
    const octet = octets[at]!;
    if (octet <= 0x0d && (octet === 0 || octet === 0x0a || octet === 0x0d)) return false;
  }
  return true;
}

function isBlank(octet: number): boolean {
  return octet === 0x20 || octet === 0x09;
}

function isLegalName(name: string): boolean {
  const start = name.charCodeAt(0) === 0x3a ? 1 : 0;
  if (start === name.length) return false;
  for (let at = start; at < name.length; at++) if (NAME_OCTETS[name.charCodeAt(at)] !== 1) return false;
  return true;
}

function fail(message: string): never {
  throw new ConnectionError(ErrorCode.COMPRESSION_ERROR, message);
}
