// The version of the data directory's format, in a file of its own that any version of the program can read.
//
// An absent file means a new directory. A newer version is refused: guessing at its records could destroy them.
// An older one becomes this one while the store is opened. The format itself is described in docs/formats/data-directory.md.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { Code, StatusError } from "../base/status.ts";

export const DATA_FORMAT_VERSION = 2;
/** Formats that a start brings to this one; see entry-migration.ts. */
const OLDER_VERSIONS: readonly number[] = [1];
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
  // Before anything is changed, so that a version which knows only the older one refuses what is half done.
  if (OLDER_VERSIONS.includes(version)) return writeFileAtomic(path, `${DATA_FORMAT_VERSION}\n`);
  throw new StatusError(
    Code.FAILED_PRECONDITION,
    `The data directory "${dataDirectory}" has format "${text.trim()}", this version of ledge reads ${DATA_FORMAT_VERSION}: ` +
      "run the version that wrote it, or name another directory with --data-dir",
  );
}
