// The wire format of protocol buffers, as the generated codecs use it: a Reader, a Writer and size functions.
//
// Invariant: whatever the input bytes are, reading either succeeds or throws ProtoError; it never reads outside the
// enclosing message, and never recurses deeper than MAX_DEPTH. Copied to src/proto/wire.ts by generate.ts.
// Source: protobuf.dev, "Encoding".

import { isUtf8 } from "node:buffer";

/** A generated codec. `M` is a message as decoded; `Init` is what can be encoded, with every field optional. */
export interface MessageType<M, Init> {
  readonly typeName: string;
  /** Returns exactly the serialized message, in memory that belongs to the caller. Lone surrogates become U+FFFD. */
  encode(message: Init): Uint8Array<ArrayBuffer>;
  /** Fields of type bytes are views of `bytes`: they stay valid as long as the caller does not reuse it. */
  decode(bytes: Uint8Array): M;
  /** For generated code. */
  empty(): M;
  /** For generated code: reads fields up to `reader.end` into `message`. */
  merge(message: M, reader: Reader): M;
  /** For generated code: measures, noting lengths in `sizes` in the order in which write() needs them. */
  measure(message: Init, sizes: number[]): number;
  /** For generated code. */
  write(message: Init, writer: Writer): void;
}

/** The bytes are not a message, or the message cannot be encoded. */
export class ProtoError extends Error {
  override readonly name = "ProtoError";
}

/**
 * How deep messages may nest; the customary limit. Trees of directories are flat on the wire, so nothing legitimate
 * comes near it, while the stack takes many times as much.
 */
const MAX_DEPTH = 100;

const TWO_TO_32 = 4294967296;
const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;

// Buffer's own methods work on any Uint8Array; going through them saves the construction of a Buffer per message.
const { utf8Slice, utf8Write } = Buffer.prototype as unknown as {
  utf8Slice: (this: Uint8Array, start: number, end: number) => string;
  utf8Write: (this: Uint8Array, text: string, offset: number, length: number) => number;
};

/** The default of bytes fields, shared: without elements, nothing about it can change. */
export const noBytes: Uint8Array = new Uint8Array(0);

export class Reader {
  /** Where the next byte is. */
  pos = 0;
  /** Where the message being read ends. */
  end: number;
  readonly #bytes: Uint8Array;
  readonly #typeName: string;
  #depth = 0;
  // The halves of the last varint that readVarint() read.
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array, typeName: string) {
    this.#bytes = bytes;
    this.#typeName = typeName;
    this.end = bytes.length;
  }

  /** Reads the number and the wire type of the next field, as on the wire. */
  tag(): number {
    const tag = this.uint32();
    if (tag < 8) throw this.error("field number 0");
    return tag;
  }

  uint32(): number {
    const byte = this.pos < this.end ? this.#bytes[this.pos]! : 0x80;
    if (byte < 0x80) {
      this.pos++;
      return byte;
    }
    this.#readVarint();
    return this.#low >>> 0;
  }

  /** Also for enums. Longer varints are cut to 32 bits, as everywhere. */
  int32(): number {
    return this.uint32() | 0;
  }

  /** Beyond ±2^53 the result is rounded, and so is not a safe integer. */
  int64(): number {
    const byte = this.pos < this.end ? this.#bytes[this.pos]! : 0x80;
    if (byte < 0x80) {
      this.pos++;
      return byte;
    }
    this.#readVarint();
    return this.#high * TWO_TO_32 + (this.#low >>> 0);
  }

  /** Beyond 2^53 the result is rounded, and so is not a safe integer. */
  uint64(): number {
    const value = this.int64();
    return value >= 0 ? value : (this.#high >>> 0) * TWO_TO_32 + (this.#low >>> 0);
  }

  bool(): boolean {
    return this.int64() !== 0;
  }

  double(): number {
    return this.#view(8).getFloat64(0, true);
  }

  float(): number {
    return this.#view(4).getFloat32(0, true);
  }

  /** `field` is for the error message. */
  string(field: string): string {
    const length = this.#length();
    if (length === 0) return "";
    const start = this.pos;
    this.pos += length;
    const text = utf8Slice.call(this.#bytes, start, this.pos);
    // Invalid bytes decode to U+FFFD, so only a text that contains one needs the second look. In an ASCII text, the
    // search ends at once.
    if (text.includes("\uFFFD") && !isUtf8(this.#bytes.subarray(start, this.pos))) {
      throw this.error(`field ${JSON.stringify(field)} is not valid UTF-8`);
    }
    return text;
  }

  /** Returns a view. */
  bytes(): Uint8Array {
    const length = this.#length();
    const start = this.pos;
    this.pos += length;
    // Not subarray(): of a Buffer that would be a Buffer, whose slice() does not copy.
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + start, length);
  }

  /** Enters a nested message. Returns what leave() needs. */
  enter(): number {
    if (this.#depth === MAX_DEPTH) throw this.error(`messages nested deeper than ${MAX_DEPTH}`);
    this.#depth++;
    return this.enterPacked();
  }

  leave(outerEnd: number): void {
    this.#depth--;
    this.end = outerEnd;
  }

  /** Enters a list of packed scalars. Returns the `end` to restore after it. */
  enterPacked(): number {
    const length = this.#length();
    const outerEnd = this.end;
    this.end = this.pos + length;
    return outerEnd;
  }

  /** Skips a field that is unknown, or known with another wire type. */
  skip(tag: number): void {
    switch (tag & 7) {
      case 0:
        this.int64();
        return;
      case 1:
        return this.#advance(8);
      case 2:
        return this.#advance(this.#length());
      case 5:
        return this.#advance(4);
      default:
        throw this.error(`field number ${tag >>> 3} has wire type ${tag & 7}`);
    }
  }

  error(what: string): ProtoError {
    return new ProtoError(`Cannot decode ${this.#typeName}: ${what} at byte ${this.pos} of ${this.#bytes.length}`);
  }

  #length(): number {
    const length = this.uint64();
    if (length > this.end - this.pos) throw this.error(`truncated: expected ${length} more bytes`);
    return length;
  }

  #advance(count: number): void {
    if (count > this.end - this.pos) throw this.error(`truncated: expected ${count} more bytes`);
    this.pos += count;
  }

  #view(length: number): DataView {
    const start = this.pos;
    this.#advance(length);
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset + start, length);
  }

  #readVarint(): void {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.pos >= this.end) throw this.error("truncated varint");
      const byte = this.#bytes[this.pos++]!;
      const bits = byte & 0x7f;
      if (shift < 28) {
        low |= bits << shift;
      } else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else {
        high |= bits << (shift - 32);
      }
      if (byte < 0x80) {
        this.#low = low;
        this.#high = high;
        return;
      }
    }
    throw this.error("varint longer than 10 bytes");
  }
}

/** Fills memory of the size that was measured before. */
export class Writer {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #sizes: readonly number[];
  #pos = 0;
  #nextSize = 0;

  constructor(size: number, sizes: readonly number[]) {
    // Large memory need not be zeroed first. Never from Buffer's pool: the caller may transfer it to another thread.
    this.#bytes = size < 4096 ? new Uint8Array(size) : new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
    this.#sizes = sizes;
  }

  finish(): Uint8Array<ArrayBuffer> {
    if (this.#pos !== this.#bytes.length) {
      throw new ProtoError(`Encoded ${this.#pos} bytes, expected ${this.#bytes.length}: changed while encoding?`);
    }
    return this.#bytes;
  }

  /** Also for tags, and for the length of a nested message or list: `writer.uint32(writer.size())`. */
  uint32(value: number): void {
    while (value > 0x7f) {
      this.#bytes[this.#pos++] = (value & 0x7f) | 0x80;
      value >>>= 7;
    }
    this.#bytes[this.#pos++] = value;
  }

  /** Returns the next length that was noted when measuring. */
  size(): number {
    return this.#sizes[this.#nextSize++]!;
  }

  int32(value: number): void {
    if (value >= 0) this.uint32(value);
    else this.#varint64(value, -1);
  }

  int64(value: number): void {
    if (value >= 0 && value < TWO_TO_32) {
      this.uint32(value);
    } else if (Number.isSafeInteger(value)) {
      this.#varint64(value, Math.floor(value / TWO_TO_32));
    } else {
      this.#bigint(BigInt(value), INT64_MIN, INT64_MAX);
    }
  }

  uint64(value: number): void {
    if (Number.isSafeInteger(value)) this.int64(value);
    else this.#bigint(BigInt(value), 0n, UINT64_MAX);
  }

  bool(value: boolean): void {
    this.#bytes[this.#pos++] = value ? 1 : 0;
  }

  double(value: number): void {
    new DataView(this.#bytes.buffer).setFloat64(this.#pos, value, true);
    this.#pos += 8;
  }

  float(value: number): void {
    new DataView(this.#bytes.buffer).setFloat32(this.#pos, value, true);
    this.#pos += 4;
  }

  string(value: string): void {
    const size = this.size();
    this.uint32(size);
    this.#pos += utf8Write.call(this.#bytes, value, this.#pos, size);
  }

  bytes(value: Uint8Array): void {
    this.uint32(value.length);
    this.#bytes.set(value, this.#pos);
    this.#pos += value.length;
  }

  /** Only the low 32 bits of each half count. */
  #varint64(low: number, high: number): void {
    low >>>= 0;
    high >>>= 0;
    while (high !== 0) {
      this.#bytes[this.#pos++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    this.uint32(low);
  }

  #bigint(value: bigint, min: bigint, max: bigint): void {
    const bits = BigInt.asUintN(64, value < min ? min : value > max ? max : value);
    this.#varint64(Number(bits & 0xffffffffn), Number(bits >> 32n));
  }
}

// Sizes without the tag. Those of strings, messages and lists include the length in front.

export function measureUint32(value: number): number {
  if (value >>> 0 !== value) throw new ProtoError(`Cannot encode ${value} as uint32`);
  return varintSize(value);
}

/** Also for enums. */
export function measureInt32(value: number): number {
  if ((value | 0) !== value) throw new ProtoError(`Cannot encode ${value} as int32`);
  return value < 0 ? 10 : varintSize(value);
}

/** Integers too large for the type are saturated, so that what was decoded can always be echoed. */
export function measureInt64(value: number): number {
  if (!Number.isInteger(value)) throw new ProtoError(`Cannot encode ${value} as int64`);
  if (value < 0) return 10;
  return value >= 2 ** 63 ? 9 : varintSize(value);
}

/** Saturates like measureInt64(), above. */
export function measureUint64(value: number): number {
  if (!Number.isInteger(value) || value < 0) throw new ProtoError(`Cannot encode ${value} as uint64`);
  return value >= 2 ** 63 ? 10 : varintSize(value);
}

export function measureBool(_value: boolean): number {
  return 1;
}

export function measureDouble(_value: number): number {
  return 8;
}

export function measureFloat(_value: number): number {
  return 4;
}

export function measureString(value: string, sizes: number[]): number {
  const size = Buffer.byteLength(value);
  sizes.push(size);
  return varintSize(size) + size;
}

export function measureBytes(value: Uint8Array): number {
  return varintSize(value.length) + value.length;
}

/** Measures a nested message; its length goes in front of what its own fields note. */
export function measureMessage<Init>(
  measure: (message: Init, sizes: number[]) => number,
  message: Init,
  sizes: number[],
): number {
  const index = sizes.push(0) - 1;
  const size = measure(message, sizes);
  sizes[index] = size;
  return varintSize(size) + size;
}

/** Returns `size` with that of the length in front, which is noted. For packed lists. */
export function measurePacked(size: number, sizes: number[]): number {
  sizes.push(size);
  return varintSize(size) + size;
}

/** Of a number from 0 to 2^63. */
export function varintSize(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  let size = 5;
  for (let rest = value / 2 ** 35; rest >= 1; rest /= 128) size++;
  return size;
}

/** Tag and length of a length-delimited field, for messages whose payload follows as a slice of its own. */
export function fieldHeader(tag: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(varintSize(tag) + varintSize(length));
  let pos = 0;
  for (let value of [tag, length]) {
    for (; value > 0x7f; value = Math.floor(value / 128)) bytes[pos++] = (value & 0x7f) | 0x80;
    bytes[pos++] = value;
  }
  return bytes;
}
