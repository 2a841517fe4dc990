// What the launcher is told to become, laid out as it will lie in its memory.
//
//   u64 length │ directory* │ arguments* │ environment* │ limits* │ path*… 0 │ argument*… 0 │ variable*… 0 │
//              └ BLOCK_ADDRESS; every * is an absolute address
//   (resource, soft, hard)… -1 │ strings, each ended by 0
//
// Invariant: no string contains a NUL byte (findSpecFault refused it), so no string can become two.

import { BLOCK_ADDRESS } from "./launcher-image.ts";

export interface LaunchCommand {
  readonly arguments: readonly string[];
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Absolute, inside the sandbox. */
  readonly workingDirectory: string;
  /** Set by the launcher for itself, so they hold for the action and all it starts. */
  readonly limits: readonly ProcessLimit[];
}

export interface ProcessLimit {
  readonly resource: ResourceLimit;
  readonly soft: number;
  /** The action cannot go beyond it. */
  readonly hard: number;
}

/** RLIMIT_… numbers of Linux (x86-64 and arm64 agree on these). */
export const ResourceLimit = { FileSize: 1, Core: 4, Processes: 6, OpenFiles: 7 } as const;
export type ResourceLimit = (typeof ResourceLimit)[keyof typeof ResourceLimit];

/** What programs are looked up in when the action has no PATH, as in glibc. */
const PATH_OF_NOBODY = "/bin:/usr/bin";

const HEAD_WORDS = 4;
const END_OF_LIMITS = -1;

/** Returns the bytes the launcher reads: the length, then the block. */
export function encodeLaunchBlock(command: LaunchCommand): Buffer {
  const strings = new StringTable();
  const paths = programCandidates(command).map((path) => strings.add(path));
  const words = command.arguments.map((argument) => strings.add(argument));
  const variables = command.environment.map(({ name, value }) => strings.add(`${name}=${value}`));
  const directory = strings.add(command.workingDirectory);
  const limits = command.limits.flatMap(({ resource, soft, hard }) => [resource, soft, hard]);
  const addressOf = (index: number) => BLOCK_ADDRESS + index * 8;
  const argumentsAt = HEAD_WORDS + paths.length + 1;
  const environmentAt = argumentsAt + words.length + 1;
  const limitsAt = environmentAt + variables.length + 1;
  const wordCount = limitsAt + limits.length + 1;
  const stringAt = (offset: number) => addressOf(wordCount) + offset;
  const head = [directory].map(stringAt).concat([argumentsAt, environmentAt, limitsAt].map(addressOf));
  const lists = [paths, words, variables].flatMap((offsets) => [...offsets.map(stringAt), 0]);
  const content = [wordCount * 8 + strings.bytes, ...head, ...lists, ...limits, END_OF_LIMITS];
  const encoded = Buffer.alloc(content.length * 8);
  for (const [index, word] of content.entries()) encoded.writeBigInt64LE(BigInt(word), index * 8);
  return Buffer.concat([encoded, ...strings.chunks]);
}

/** The paths to try, as execvp(3) does: a name with a slash is a path, another one is looked up in the action's PATH. */
function programCandidates(command: LaunchCommand): string[] {
  const [program = ""] = command.arguments;
  if (program.includes("/")) return [program];
  const path = command.environment.findLast(({ name }) => name === "PATH")?.value ?? PATH_OF_NOBODY;
  return path.split(":").map((directory) => (directory === "" ? `./${program}` : `${directory}/${program}`));
}

class StringTable {
  readonly chunks: Buffer[] = [];
  bytes = 0;

  /** Returns the offset of `text` among the strings. */
  add(text: string): number {
    const offset = this.bytes;
    const chunk = Buffer.from(`${text}\0`, "utf8");
    this.chunks.push(chunk);
    this.bytes += chunk.length;
    return offset;
  }
}
