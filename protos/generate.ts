// Generates src/proto/ from the .proto files of this folder: one codec file per .proto, plus descriptors.ts, plus a
// copy of wire.ts. Run with `node protos/generate.ts`.
//
// Invariant: the output depends on the files of this folder alone, and each file is replaced in one step and only
// when it differs, so any number of processes may generate at once. Parsing and name resolution are schema.ts, the
// text of codecs is codecs.ts, descriptors are descriptors.ts.

import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codecText } from "./codecs.ts";
import { descriptorsText } from "./descriptors.ts";
import { parseSchema } from "./schema.ts";

const sourceFolder = import.meta.dirname;

/** Writes all generated files into `folder`. */
export function generate(folder: string = join(sourceFolder, "..", "src", "proto")): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of generatedFiles()) writeIfChanged(join(folder, name), text);
}

/** Returns what generate() writes, by file name. */
export function generatedFiles(): Map<string, string> {
  const names = readdirSync(sourceFolder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".proto"))
    .sort();
  const schema = parseSchema(names.map((name) => ({ name, text: readFileSync(join(sourceFolder, name), "utf8") })));
  const files = new Map(schema.files.map((file) => [file.outputName, codecText(file, schema)]));
  files.set("descriptors.ts", descriptorsText(schema));
  files.set("wire.ts", readFileSync(join(sourceFolder, "wire.ts"), "utf8"));
  return files;
}

function writeIfChanged(path: string, text: string): void {
  if (readIfPresent(path) === text) return;
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text);
  renameSync(temporary, path);
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // Whatever the reason, writing it anew either helps or says what is wrong.
  }
}

if (import.meta.main) generate();
