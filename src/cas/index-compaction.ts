// Copies the index into a file without free pages, for a store that is stopped: LMDB's own file never shrinks.
//
// Invariant: the copy is whole and on the disk before it takes the place of the file, so a kill leaves one or the other.

import { statSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory } from "../base/atomic-file.ts";
import { Code, StatusError } from "../base/status.ts";
import { runIndexChild } from "./index-recovery.ts";

export interface CompactionResult {
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

/** Throws RESOURCE_EXHAUSTED, with everything as it was, when the copy does not fit beside the file. */
export async function compactIndex(dataDir: string): Promise<CompactionResult> {
  const path = join(dataDir, "index.mdb");
  const copy = join(dataDir, "tmp", "index.mdb");
  const beforeBytes = bytesOnDisk(path);
  const removeCopy = async () => {
    for (const name of [copy, `${copy}-lock`]) await rm(name, { force: true });
  };
  await removeCopy();
  const { exitCode, said } = await runIndexChild(["salvage", path, copy, ""]);
  if (exitCode !== 0) {
    await removeCopy();
    throw new StatusError(
      Code.RESOURCE_EXHAUSTED,
      `Cannot compact the index: ${said || `its copy ended with exit code ${exitCode}`}; the copy needs as much room as is in use`,
    );
  }
  await rename(copy, path);
  for (const name of [`${copy}-lock`, `${path}-lock`]) await rm(name, { force: true });
  await syncDirectory(dataDir);
  return { beforeBytes, afterBytes: bytesOnDisk(path) };
}

function bytesOnDisk(path: string): number {
  return statSync(path).blocks * 512;
}
