// Takes a regular file of our own (an output of an action) into the store: read when small, moved or copied when large.
//
// A file is moved when nobody else has it (one name, same file system, ours to own) and copied otherwise: another name or
// another owner could change the bytes after they were hashed.

import { constants } from "node:fs";
import { chmod, chown, lstat, open, rename, stat } from "node:fs/promises";
import { Code, StatusError } from "../base/status.ts";
import { hashHex } from "../compute/hash.ts";
import type { IngestResult } from "../compute/ingest-protocol.ts";
import type { DigestFunction } from "../digest/digest.ts";
import { INLINE_LIMIT_BYTES } from "./inline-limit.ts";
import type { Received } from "./intake.ts";
import type { StoreCore } from "./store-core.ts";

export interface TakenFile {
  readonly received: Received;
  /** Removes what is left of it in the store's temporary folder; must be called. */
  readonly discard: () => Promise<void>;
}

/** Throws NOT_FOUND when there is no such file, INVALID_ARGUMENT when it is not a regular one. */
export async function takeFile(core: StoreCore, path: string, fn: DigestFunction): Promise<TakenFile> {
  const source = await core.files
    .run(() => lstat(path))
    .catch((error: unknown): never => {
      throw new StatusError(Code.NOT_FOUND, `Cannot store file "${path}": ${messageOf(error)}`, { cause: error });
    });
  if (!source.isFile()) {
    throw new StatusError(Code.INVALID_ARGUMENT, `Cannot store "${path}": it is not a regular file`);
  }
  if (source.size < INLINE_LIMIT_BYTES) {
    await core.reserve("inline", source.size);
    const data = await core.files.run(() => readSmallFile(path));
    return { received: { hash: hashHex(fn, data), sizeBytes: data.length, data }, discard: async () => undefined };
  }
  await core.reserve("file", source.size);
  const temporaryPath = core.files.newTemporaryPath();
  const discard = () => core.files.discard(temporaryPath);
  try {
    const result = await moveOrCopy({ core, path, temporaryPath, fn, links: source.nlink });
    return { received: { ...result, path: temporaryPath }, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}

async function readSmallFile(path: string): Promise<Uint8Array> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** The hash of the file, which is at `temporaryPath` now, read-only. */
async function moveOrCopy(options: {
  readonly core: StoreCore;
  readonly path: string;
  readonly temporaryPath: string;
  readonly fn: DigestFunction;
  readonly links: number;
}): Promise<IngestResult> {
  const { core, path, temporaryPath, fn, links } = options;
  if (links === 1 && (await moveIfOurs(core, path, temporaryPath))) return core.ingest.hashFile(fn, temporaryPath);
  return core.ingest.hashFile(fn, path, temporaryPath);
}

/** False, with the file where it was, when it cannot be moved, has another name, or cannot be made ours. */
async function moveIfOurs(core: StoreCore, path: string, temporaryPath: string): Promise<boolean> {
  const { files } = core;
  const moved = await files
    .run(() => rename(path, temporaryPath))
    .then(
      () => true,
      () => false, // another file system, or not our directory: it will be copied
    );
  if (!moved) return false;
  const { nlink, uid } = await files.run(() => stat(temporaryPath));
  if (nlink === 1 && (await own(core, temporaryPath, uid))) {
    await files.run(() => chmod(temporaryPath, 0o444));
    return true;
  }
  await files.run(() => rename(temporaryPath, path));
  return false;
}

/** The owner of a file may make it writable again: a build user must not own what the store keeps. */
async function own(core: StoreCore, path: string, uid: number): Promise<boolean> {
  const [ourUid, ourGid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  if (uid === ourUid) return true;
  return core.files
    .run(() => chown(path, ourUid, ourGid))
    .then(
      () => true,
      () => false,
    );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
