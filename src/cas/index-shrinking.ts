// Makes the index file smaller after --max-size was lowered: evict to the new limit, close, copy, before the real opening.
//
// LMDB's file never shrinks by itself, so it would keep what the old limit let it grow to. Only a file that is beyond its
// share of the limit is touched, and only when the copy fits beside it; what cannot be given back is said. Invariant: the
// store is whole at every moment (index-compaction.ts), and its map is chosen for the new file by whoever opens it next.

import { existsSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { formatBytes } from "../base/units.ts";
import type { Logger } from "../telemetry/log.ts";
import { INLINE_SHARE } from "./budget.ts";
import { compactIndex } from "./index-compaction.ts";

/** Of the file, what the copy must at least give back: entries as counted fill pages less well than these are filled. */
const LEAST_GAIN = 0.1;
/** The copy beside what is in use: pages are not quite full, and other things write meanwhile. */
const COPY_FACTOR = 1.15;
const COPY_MARGIN_BYTES = 4 * 2 ** 20;

export interface ShrinkIndexOptions {
  readonly dataDir: string;
  readonly maxSizeBytes: number;
  readonly logger: Logger;
  /** Opens the store for nobody but this. */
  readonly openAlone: () => Promise<{ evictToLimits(): Promise<number>; close(): Promise<void> }>;
}

/** Resolves when the file is as small as it gets here. What fails is the disk's, and only said: the file serves as it is. */
export async function shrinkIndex({ dataDir, maxSizeBytes, logger, openAlone }: ShrinkIndexOptions): Promise<void> {
  const path = join(dataDir, "index.mdb");
  const beforeBytes = (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  const shareBytes = Math.floor(maxSizeBytes * INLINE_SHARE);
  if (beforeBytes <= shareBytes) return;
  const leave = (reason: string) =>
    logger.warn("the index file stays larger than its share of --max-size", { path, beforeBytes, shareBytes, reason });
  // What a crash left is checked by the server itself, which takes the time for it.
  if (existsSync(join(dataDir, "RUNNING"))) return leave("the last stop was not a clean one");
  const storage = await openAlone();
  let liveBytes: number;
  try {
    liveBytes = await storage.evictToLimits();
  } finally {
    await storage.close();
  }
  if (liveBytes > beforeBytes * (1 - LEAST_GAIN)) return leave(`${formatBytes(liveBytes)} of it are in use`);
  const neededBytes = liveBytes * COPY_FACTOR + COPY_MARGIN_BYTES;
  const { bavail, bsize } = statfsSync(dataDir);
  if (bavail * bsize < neededBytes) {
    const room = `${formatBytes(neededBytes)} to copy what is in use, the disk has ${formatBytes(bavail * bsize)} left`;
    return leave(`it needs ${room}; make room and start again, or run ledge gc --compact`);
  }
  try {
    const { afterBytes } = await compactIndex(dataDir);
    logger.info("made the index file smaller, as --max-size was lowered", {
      path,
      beforeBytes,
      afterBytes,
      shareBytes,
    });
  } catch (error) {
    leave(error instanceof Error ? error.message : String(error));
  }
}
