// What the launcher is told to become, laid out as it will lie in its memory.
//
//   u64 length │ directory* │ arguments* │ environment* │ path*… 0 │ argument*… 0 │ variable*… 0 │ strings, each ended by 0
//              └ BLOCK_ADDRESS; every * is an absolute address
//
// Invariant: no string contains a NUL byte (findSpecFault refused it), so no string can become two.

import { BLOCK_ADDRESS } from "./launcher-image.ts";

export interface LaunchCommand {
  readonly arguments: readonly string[];
  readonly environment: readonly { readonly name: string; readonly value: string }[];
  /** Absolute, inside the sandbox. */
  readonly workingDirectory: string;
}

/** What programs are looked up in when the action has no PATH, as in glibc. */
const PATH_OF_NOBODY = "/bin:/usr/bin";

/** Returns the bytes the launcher reads: the length, then the block. */
export function encodeLaunchBlock(command: LaunchCommand): Buffer {
  const strings = new StringTable();
  const lists = [
    programCandidates(command).map((path) => strings.add(path)),
    command.arguments.map((argument) => strings.add(argument)),
    command.environment.map(({ name, value }) => strings.add(`${name}=${value}`)),
  ];
  const directory = strings.add(command.workingDirectory);
  const wordCount = 3 + lists.reduce((sum, list) => sum + list.length + 1, 0);
  const stringsAt = BLOCK_ADDRESS + wordCount * 8;
  const [paths = [], argumentOffsets = []] = lists;
  const argumentsAt = BLOCK_ADDRESS + (3 + paths.length + 1) * 8;
  const environmentAt = argumentsAt + (argumentOffsets.length + 1) * 8;
  const words = Buffer.alloc(8 + wordCount * 8);
  let position = 0;
  const put = (word: number) => {
    words.writeUInt32LE(word, position); // every address and length here fits in 32 bits; the other half stays 0
    position += 8;
  };
  put(wordCount * 8 + strings.bytes);
  put(stringsAt + directory);
  put(argumentsAt);
  put(environmentAt);
  for (const list of lists) {
    for (const offset of list) put(stringsAt + offset);
    put(0);
  }
  return Buffer.concat([words, ...strings.chunks]);
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
