// A list of system calls, laid out as it will lie in the builder's memory (builder-image.ts).
//
//   (number, six arguments, then)…  │ strings and structures, each at a multiple of 8
//   └ PROGRAM_ADDRESS; an argument that is a text or a structure is its absolute address
//
// Invariant: no text contains a NUL byte, so no path can become another one.

import { BuiltIn, PROGRAM_ADDRESS, PROGRAM_BYTES } from "./builder-image.ts";
import { type SystemCallName, systemCallNumber } from "./system-calls.ts";

/** A number, or what lies in memory: a text (ended by 0), the bytes of a structure, or a system call filter. */
export type CallArgument = number | string | Buffer | { readonly filter: Buffer };

export interface SetupCall {
  readonly call: SystemCallName | keyof typeof BuiltIn;
  readonly arguments: readonly CallArgument[];
  /** What a failure means: the end of the setup (the default), nothing, or nothing for that one errno. */
  readonly mayFail?: "always" | number;
  /** Of a clone: the index of the call with which the child goes on. */
  readonly childAt?: number;
  /** For the message of a failure: "mount proc at /proc". */
  readonly purpose: string;
}

const RECORD_WORDS = 8;
const RECORD_BYTES = RECORD_WORDS * 8;
const GO_ON = 1;

/** Returns the bytes to map; undefined when they are too many, or for an architecture without a builder. */
export function encodeSetup(calls: readonly SetupCall[], architecture: string = process.arch): Buffer | undefined {
  const memory = new MemoryLayout(PROGRAM_ADDRESS + calls.length * RECORD_BYTES);
  const records = Buffer.alloc(calls.length * RECORD_BYTES);
  for (const [index, call] of calls.entries()) {
    const number = isBuiltIn(call.call) ? BuiltIn[call.call] : systemCallNumber(call.call, architecture);
    if (number === undefined) return undefined;
    const words = call.arguments.map((argument) => (typeof argument === "number" ? argument : memory.put(argument)));
    writeWord(records, index * RECORD_WORDS, number);
    for (const [i, word] of words.entries()) writeWord(records, index * RECORD_WORDS + 1 + i, word);
    writeWord(records, (index + 1) * RECORD_WORDS - 1, thenOf(call));
  }
  const encoded = Buffer.concat([records, ...memory.chunks]);
  return encoded.length > PROGRAM_BYTES ? undefined : encoded;
}

function isBuiltIn(name: SetupCall["call"]): name is keyof typeof BuiltIn {
  return name in BuiltIn;
}

function thenOf({ mayFail, childAt }: SetupCall): number {
  if (childAt !== undefined) return PROGRAM_ADDRESS + childAt * RECORD_BYTES;
  if (mayFail === undefined) return 0;
  return mayFail === "always" ? GO_ON : -mayFail;
}

/** Two halves: BigInt costs five times as much. */
function writeWord(buffer: Buffer, index: number, word: number): void {
  buffer.writeInt32LE(word | 0, index * 8);
  buffer.writeInt32LE(Math.floor(word / 2 ** 32), index * 8 + 4);
}

class MemoryLayout {
  readonly chunks: Buffer[] = [];
  readonly #known = new Map<string | Buffer, number>();
  #address: number;

  constructor(address: number) {
    this.#address = address;
  }

  /** Returns its address. Equal texts, and the same structure, lie there once. */
  put(content: Exclude<CallArgument, number>): number {
    if (typeof content === "object" && !Buffer.isBuffer(content)) return this.#append(this.#filterHead(content.filter));
    const known = this.#known.get(content);
    if (known !== undefined) return known;
    if (typeof content === "string" && content.includes("\0")) throw new Error("A NUL byte in a path of a sandbox");
    const address = this.#append(typeof content === "string" ? Buffer.from(`${content}\0`, "utf8") : content);
    this.#known.set(content, address);
    return address;
  }

  /** struct sock_fprog: u16 instructions; pointer to them. */
  #filterHead(filter: Buffer): Buffer {
    const head = Buffer.alloc(16);
    head.writeUInt16LE(filter.length / 8, 0);
    writeWord(head, 1, this.put(filter));
    return head;
  }

  #append(bytes: Buffer): number {
    const address = this.#address;
    const paddedBytes = Math.ceil(bytes.length / 8) * 8;
    this.chunks.push(bytes, Buffer.alloc(paddedBytes - bytes.length));
    this.#address += paddedBytes;
    return address;
  }
}
