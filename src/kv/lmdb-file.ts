// Looks at an LMDB file before the package does, because a failed open ends the process: the package (3.5.6) frees the
// environment twice when mdb_env_open() returns an error.
//
// Invariant: what passes assertOpenable() opens. What cannot be opened here (permission, full disk) is told apart from a
// file that is damaged, since only the latter may be replaced by a new one.
//
// Pages 0 and 1 each hold a header; the one with the higher transaction number counts. Of each: u16 flags at 18 (8 = a
// header), u32 magic at 24, u32 version at 28, u32 page size at 48, u64 transaction at 152.

import { accessSync, closeSync, constants, fstatSync, openSync, readSync, statfsSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { Code, StatusError } from "../base/status.ts";
import { formatBytes } from "../base/units.ts";

/** The file is there and is no whole LMDB file; whoever sees it may put it aside and make a new one. */
export class DamagedIndexError extends Error {}

const HEADER_BYTES = 192;
const MAGIC = 0xbeefc0de;
const VERSION = 2;
const HEADER_PAGE_FLAG = 0x08;
/** What a new file and its lock file take, and the first commit. */
const NEW_FILE_BYTES = 256 * 1024;

/** Throws DamagedIndexError when the file is damaged, and a StatusError when it is not the file's fault. */
export function assertOpenable(path: string): void {
  const file = openForWriting(path);
  try {
    if (fstatSync(file).size === 0) assertRoomForNewFile(path);
    else assertHeaders(path, file);
  } finally {
    closeSync(file);
  }
  assertLockFile(path);
}

/**
 * Makes a damaged header anew from the other one, so that the pages behind it can be read; what they hold is as of the
 * commit before the last one at worst. False when neither is whole.
 */
export function mendHeaders(path: string): boolean {
  const file = openSync(path, "r+");
  try {
    const headers = readHeaders(file);
    const whole = headers.find(({ damage }) => damage === undefined);
    if (whole === undefined) return false;
    for (const [page, { damage, offset }] of headers.entries()) {
      if (damage === undefined) continue;
      const copy = Buffer.from(whole.bytes);
      copy.writeBigUInt64LE(BigInt(page), 0);
      writeSync(file, copy, 0, copy.length, offset);
    }
    return true;
  } finally {
    closeSync(file);
  }
}

interface Header {
  readonly bytes: Buffer;
  readonly offset: number;
  readonly damage: string | undefined;
}

function assertHeaders(path: string, file: number): void {
  for (const [page, { damage }] of readHeaders(file).entries()) {
    if (damage !== undefined) throw new DamagedIndexError(`page ${page} of "${path}" ${damage}`);
  }
}

function readHeaders(file: number): Header[] {
  const first = readHeader(file, 0);
  const fallback = 4096;
  const second = readHeader(file, first.damage === undefined ? first.bytes.readUInt32LE(48) : fallback);
  return [first, second];
}

function readHeader(file: number, offset: number): Header {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const length = readSync(file, bytes, 0, HEADER_BYTES, offset);
  return { bytes, offset, damage: length < HEADER_BYTES ? "is cut off" : findDamage(bytes) };
}

function findDamage(header: Buffer): string | undefined {
  const [magic, version, pageBytes] = [header.readUInt32LE(24), header.readUInt32LE(28), header.readUInt32LE(48)];
  if (magic !== MAGIC) return `does not begin as LMDB's do (0x${magic.toString(16)}, expected 0x${MAGIC.toString(16)})`;
  if ((header.readUInt16LE(18) & HEADER_PAGE_FLAG) === 0) return "is not marked as a header";
  if ((version & 0xffff) !== VERSION) return `has format ${version & 0xffff}, expected ${VERSION}`;
  const isPageSize = pageBytes >= 512 && pageBytes <= 65_536 && (pageBytes & (pageBytes - 1)) === 0;
  return isPageSize ? undefined : `names ${pageBytes} as its page size`;
}

/** Makes the file when it is absent; LMDB takes an empty one for a new one. */
function openForWriting(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  } catch (error) {
    throw cannotOpen(path, error);
  }
}

function assertLockFile(path: string): void {
  const lockPath = `${path}-lock`;
  try {
    closeSync(openSync(lockPath, constants.O_RDWR | constants.O_CREAT, 0o644));
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw cannotOpen(lockPath, error);
  }
}

function assertRoomForNewFile(path: string): void {
  const { bavail, bsize } = statfsSync(dirname(path));
  if (bavail * bsize >= NEW_FILE_BYTES) return;
  throw new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `Cannot make the index "${path}": the disk has ${formatBytes(bavail * bsize)} left, expected ${formatBytes(NEW_FILE_BYTES)} or more`,
  );
}

function cannotOpen(path: string, error: unknown): StatusError {
  const { code = "", message } = error as NodeJS.ErrnoException;
  const hint = HINTS[code] ?? "";
  return new StatusError(Code.FAILED_PRECONDITION, `Cannot open the index: ${message}${hint}`, { cause: error });
}

const HINTS: Readonly<Record<string, string>> = {
  EACCES: "; give it to the user that runs ledge, or name another directory with --data-dir",
  EPERM: "; give it to the user that runs ledge, or name another directory with --data-dir",
  EROFS: "; mount the file system for writing, or name another directory with --data-dir",
  ENOSPC: "; make room on the disk, or name another directory with --data-dir",
  EDQUOT: "; make room on the disk, or name another directory with --data-dir",
  EMFILE: "; raise the limit of open files (ulimit -n)",
};
