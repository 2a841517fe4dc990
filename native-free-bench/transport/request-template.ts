// A small unary request as octets, with the parts that change from call to call patched in place.
//
// The first request of a connection spells its fields out and inserts them into the dynamic table; later ones refer to
// them by index, as clients do. Fields that change are literals with indexed names, never in the table. So the server
// has to decode, and cannot recognise, each of them. Changing values are hexadecimal digits, which are base64 too.

import { Flag, FRAME_HEADER_BYTES, FrameType } from "../../src/http2/frame.ts";
import { frame } from "../load/raw-frames.ts";

export interface SmallRequest {
  readonly path: string;
  /** The framed message. */
  readonly body: Uint8Array;
  /** Offsets in `body` of 64 hexadecimal digits that change. */
  readonly changingHash?: number | undefined;
  /** Whether grpc-timeout, RequestMetadata and authorization are sent, and change. */
  readonly metadata: boolean;
  /** The status of an answer without a message; without it, an OK one with a message is expected. */
  readonly status?: number | undefined;
}

const CHANGING_NAMES = ["grpc-timeout", "build.bazel.remote.execution.v2.requestmetadata-bin", "authorization"];
/** Digits of each that change; the rest is the same in every call. */
const CHANGING_DIGITS = [7, 160, 40];

const FIRST_DYNAMIC_INDEX = 62;

interface Patch {
  readonly at: number;
  readonly digits: number;
}

export class RequestTemplate {
  /** The first request of a connection, for stream 1. */
  readonly first: Buffer;
  readonly #later: Buffer;
  readonly #streamIdAt: readonly number[];
  readonly #patches: readonly Patch[];
  #state = 0x9e3779b9;

  constructor(request: SmallRequest, authority: string) {
    const stable: [name: string, value: string][] = [
      [":path", request.path],
      [":authority", authority],
      ["te", "trailers"],
      ["content-type", "application/grpc"],
    ];
    const names = request.metadata ? CHANGING_NAMES : [];
    const count = stable.length + names.length;
    const values = names.map((_, index) => changingValue(index));
    const firstBlock = Buffer.concat([
      Buffer.of(0x83, 0x86),
      ...stable.map(([name, value]) => Buffer.concat([Buffer.of(0x40), text(name), text(value)])),
      ...names.map((name, index) => Buffer.concat([Buffer.of(0x40), text(name), text(values[index]!)])),
    ]);
    const laterParts = [
      Buffer.of(0x83, 0x86, ...stable.map((_, index) => 0x80 | (FIRST_DYNAMIC_INDEX + count - 1 - index))),
      ...names.map((_, index) =>
        Buffer.concat([literalName(FIRST_DYNAMIC_INDEX + names.length - 1 - index), text(values[index]!)]),
      ),
    ];
    const laterBlock = Buffer.concat(laterParts);
    this.first = wholeRequest(firstBlock, request.body);
    this.#later = wholeRequest(laterBlock, request.body);
    const bodyAt = FRAME_HEADER_BYTES + laterBlock.length;
    this.#streamIdAt = [5, bodyAt + 5];
    const patches: Patch[] = [];
    let at = FRAME_HEADER_BYTES;
    for (const [index, part] of laterParts.entries()) {
      at += part.length;
      const digits = CHANGING_DIGITS[index - 1];
      // The last digit of a timeout is its unit.
      if (digits !== undefined) patches.push({ at: at - digits - (index === 1 ? 1 : 0), digits });
    }
    const { changingHash } = request;
    if (changingHash !== undefined) patches.push({ at: bodyAt + FRAME_HEADER_BYTES + changingHash, digits: 64 });
    this.#patches = request.metadata || changingHash !== undefined ? patches : [];
  }

  get sizeBytes(): number {
    return this.#later.length;
  }

  /** Writes a later request to `target` at `at`; returns where it ends. */
  write(target: Buffer, at: number, streamId: number): number {
    target.set(this.#later, at);
    for (const offset of this.#streamIdAt) target.writeUInt32BE(streamId, at + offset);
    for (const [index, { at: offset, digits }] of this.#patches.entries()) {
      if (index === 0 && digits < 8) this.#putDecimal(target, at + offset, digits);
      else this.#putHexadecimal(target, at + offset, digits);
    }
    return at + this.#later.length;
  }

  #random(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return state >>> 0;
  }

  /** A timeout of 50 to 60 s in microseconds. */
  #putDecimal(target: Buffer, at: number, digits: number): void {
    let rest = this.#random();
    for (let index = 0; index < digits; index++) {
      target[at + index] = 0x30 + (rest % 10);
      rest = Math.floor(rest / 10);
    }
  }

  /** One random word changes eight digits; the rest of long values moves with the next calls. */
  #putHexadecimal(target: Buffer, at: number, digits: number): void {
    const words = digits > 64 ? 2 : Math.floor(digits / 8);
    for (let word = 0; word < words; word++) {
      let rest = this.#random();
      for (let index = 0; index < 8; index++) {
        const nibble = rest & 15;
        target[at + word * 8 + index] = nibble < 10 ? 0x30 + nibble : 0x57 + nibble;
        rest >>>= 4;
      }
    }
  }
}

function changingValue(index: number): string {
  const digits = "7".repeat(CHANGING_DIGITS[index]!);
  if (index === 0) return `5${digits}u`;
  return index === 1 ? digits : `Bearer ${digits}`;
}

function wholeRequest(headerBlock: Buffer, body: Uint8Array): Buffer {
  return Buffer.concat([
    frame(FrameType.HEADERS, Flag.END_HEADERS, 1, [headerBlock]),
    frame(FrameType.DATA, Flag.END_STREAM, 1, [body]),
  ]);
}

/** A literal without indexing whose name is that of entry `index`, which is above 15. */
function literalName(index: number): Buffer {
  return Buffer.of(0x0f, index - 15);
}

function text(value: string): Buffer {
  const octets = Buffer.from(value, "latin1");
  if (octets.length < 127) return Buffer.concat([Buffer.of(octets.length), octets]);
  return Buffer.concat([Buffer.of(127, octets.length - 127), octets]);
}
