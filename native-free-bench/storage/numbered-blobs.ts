// Blobs that follow from a number: a store is filled with them once (test/cas/fill-store.ts), and its measures know them.

import { createHash } from "node:crypto";
import { DigestWindows } from "../load/find-missing-scenarios.ts";
import type { Scenario } from "../load/scenario.ts";
import { digestOf, findDigestFunction, type BlobDigest } from "../digest-functions.ts";

const SHA256 = findDigestFunction(1)!;
const SMALL_BYTES = 40;
/** Far more than the caches of a processor hold the slots of, and made in seconds. */
const DRAWN = 500_000;
export const NUMBERED_FILE_BYTES = 2 ** 20;

const small = Buffer.alloc(SMALL_BYTES, "a small blob with a number before it");
const zeros = Buffer.alloc(NUMBERED_FILE_BYTES);

/** The bytes are good until the next call. */
export function numberedBlob(number: number): Buffer {
  small.writeDoubleBE(number, 0);
  return small;
}

export function numberedDigest(number: number): BlobDigest {
  return digestOf(SHA256, numberedBlob(number));
}

/** The first bytes of a file that is zeros behind them: it takes one block of the disk. */
export function numberedFileHead(number: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeDoubleBE(number + 0.5, 0);
  return head;
}

export function numberedFileHash(number: number): string {
  const head = numberedFileHead(number);
  return createHash("sha256").update(head).update(zeros.subarray(head.length)).digest("hex");
}

/** FindMissingBlobs of what a store of so many small blobs has, drawn from all over it. */
export function findNumbered(blobs: number, digestsPerCall: number): Scenario {
  const count = Math.min(blobs, DRAWN);
  const digests = Array.from({ length: count }, (_, index) => numberedDigest(Math.floor((index / count) * blobs)));
  const windows = new DigestWindows(digests, "");
  let start = 0;
  return {
    name: "find-missing",
    question: `How fast is FindMissingBlobs of ${digestsPerCall} among ${blobs}?`,
    unit: "digests",
    prepare: async () => ({
      unitsPerCall: digestsPerCall,
      next: () => {
        if (start + digestsPerCall > count) start = 0;
        start += digestsPerCall;
        return windows.call(start - digestsPerCall, digestsPerCall);
      },
    }),
  };
}
