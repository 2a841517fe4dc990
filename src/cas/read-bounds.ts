// Where a read begins and ends inside a blob.

import { Code, StatusError } from "../base/status.ts";
import { formatDigest, type Digest } from "../digest/digest.ts";
import type { ReadOptions } from "./blob-store.ts";

export interface ReadBounds {
  readonly beginBytes: number;
  readonly endBytes: number;
}

/** Throws OUT_OF_RANGE for an offset that is negative or beyond the end; a limit beyond the end is cut. */
export function readBounds(name: string, sizeBytes: number, options: ReadOptions): ReadBounds {
  const beginBytes = options.offsetBytes ?? 0;
  const limitBytes = options.limitBytes ?? 0;
  if (beginBytes < 0 || beginBytes > sizeBytes) {
    throw new StatusError(
      Code.OUT_OF_RANGE,
      `Cannot read blob "${name}" from offset ${beginBytes}: it has ${sizeBytes} bytes`,
    );
  }
  if (limitBytes < 0) {
    throw new StatusError(Code.INVALID_ARGUMENT, `Cannot read blob "${name}": read limit ${limitBytes} is negative`);
  }
  return { beginBytes, endBytes: limitBytes === 0 ? sizeBytes : Math.min(sizeBytes, beginBytes + limitBytes) };
}

export function blobNotFound(digest: Digest): StatusError {
  return new StatusError(Code.NOT_FOUND, `Blob "${formatDigest(digest)}" is not in the store`);
}

export function tooManyBytes(digest: Digest, receivedBytes: number): StatusError {
  return new StatusError(
    Code.INVALID_ARGUMENT,
    `Cannot write blob "${formatDigest(digest)}": received ${receivedBytes} bytes, expected ${digest.sizeBytes}`,
  );
}
