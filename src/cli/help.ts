// The page that --help prints, made from the table of flags.

import { environmentName, type Flag } from "./flag.ts";
import { SANDBOX_FLAGS } from "./sandbox-flags.ts";
import { SERVE_FLAGS } from "./serve-flags.ts";

/** Where the description starts; the longest flag leaves two spaces before it. */
const COLUMN = 33;
const WIDTH = 110;

export function helpText(): string {
  const rows = Object.values(SERVE_FLAGS).map((flag: Flag<unknown>) => flagRow(flag));
  const sandboxRows = Object.values(SANDBOX_FLAGS).map((flag: Flag<unknown>) => flagRow(flag));
  return `ledge: a build cache and sandboxed executor for the Remote Execution API

Usage: ledge [serve] [FLAGS]     run the server
       ledge doctor [FLAGS]      check what this machine offers, and how to mend what it lacks
       ledge sandbox [-- CMD...] run a command, or a shell, in exactly what an action would see
       ledge operations          list what a running server does, and what waits (--target grpc://HOST:PORT)
       ledge stats|fsck|gc       look at, check or shrink (--compact: index too) the store of a stopped server
       ledge conformance --help  judge any server of the Remote Execution API by black-box checks
       ledge bench --help        measure any server of the Remote Execution API
       ledge record|replay       record calls to a server, and replay them against any other (--help)
       ledge --version | --help

${rows.join("\n")}

Beside these, ledge sandbox takes what the action would ask for:
${sandboxRows.join("\n")}

Every flag can be set in the environment: --max-size as ${environmentName(SERVE_FLAGS.maxSize)}; lists take commas (--mount: ";").
`;
}

function flagRow(flag: Flag<unknown>): string {
  const name = `  --${flag.name}${flag.placeholder === undefined ? "" : ` ${flag.placeholder}`}`;
  const repeats = flag.repeatable ? " (repeatable)" : "";
  const fallback = flag.defaultText === undefined ? "" : ` [${flag.defaultText}]`;
  const [first = "", ...rest] = wrap(`${flag.help}${repeats}${fallback}`, WIDTH - COLUMN);
  return [name.padEnd(COLUMN) + first, ...rest.map((line) => " ".repeat(COLUMN) + line)].join("\n");
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** The table of flags in README.md. */
export function flagsMarkdown(): string {
  const rows = Object.values(SERVE_FLAGS).map((flag: Flag<unknown>) => {
    const name = `\`--${flag.name}${flag.placeholder === undefined ? "" : ` ${flag.placeholder}`}\``;
    const repeats = flag.repeatable ? " Repeatable." : "";
    return `| ${name} | ${flag.defaultText ?? "–"} | ${flag.help}.${repeats} |`;
  });
  return ["| flag | default | meaning |", "| --- | --- | --- |", ...rows].join("\n");
}
