// One Digest field of a message being read, as an object or into a batch.

import { isEmptyDigest, parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import type { DigestBatch } from "../digest/digest-batch.ts";
import { addEncodedDigest } from "../digest/encoded-digest.ts";
import { Digest as DigestMessage } from "../proto/remote_execution.ts";
import type { Reader } from "../proto/wire.ts";

/** Reads the Digest that comes next; throws ProtoError or INVALID_ARGUMENT, naming `what`. */
export function readDigest(reader: Reader, fn: DigestFunction, what: string): Digest {
  const outerEnd = reader.enter();
  const message = DigestMessage.merge(DigestMessage.empty(), reader);
  reader.leave(outerEnd);
  return parseDigest(fn, message, what);
}

/** The same, into `batch`, without an object where the layout is the common one. The empty blob is left out. */
export function readDigestInto(
  batch: DigestBatch,
  fn: DigestFunction,
  source: { readonly reader: Reader; readonly bytes: Uint8Array; readonly what: string },
): void {
  const { reader, bytes, what } = source;
  const start = reader.pos;
  const outerEnd = reader.enter();
  const count = batch.count;
  const isAdded = addEncodedDigest(batch, bytes, reader.pos, reader.end);
  if (isAdded && batch.sizesBytes[count] !== 0) {
    reader.pos = reader.end;
    reader.leave(outerEnd);
    return;
  }
  batch.count = count;
  reader.pos = start;
  reader.leave(outerEnd);
  const digest = readDigest(reader, fn, what);
  if (!isEmptyDigest(digest)) batch.add(digest);
}
