// The version of the data directory's format, in a file of its own that any version of the program can read.
//
// An absent file means a new directory. A newer version is refused: guessing at its records could destroy them.
// The format itself is described in docs/formats/data-directory.md.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { Code, StatusError } from "../base/status.ts";

export const DATA_FORMAT_VERSION = 1;
const FILE_NAME = "FORMAT";

export async function checkDataVersion(dataDirectory: string): Promise<void> {
  const path = join(dataDirectory, FILE_NAME);
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return writeFileAtomic(path, `${DATA_FORMAT_VERSION}\n`);
  const version = Number(text.trim());
  if (version === DATA_FORMAT_VERSION) return;
  throw new StatusError(
    Code.FAILED_PRECONDITION,
    `The data directory "${dataDirectory}" has format "${text.trim()}", this version of ledge reads ${DATA_FORMAT_VERSION}: ` +
      "run the version that wrote it, or name another directory with --data-dir",
  );
}
