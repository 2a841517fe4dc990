// FindMissingBlobs: digests per call, the share that is found, the set they are drawn from, what calls have in common.
//
// Invariant: the digests of the whole set are encoded once, in random order; a call is a window of that order, so it
// costs the generator nothing to make. Consecutive windows share `overlap` of their digests, and the set repeats.

import { ContentAddressableStorage as Cas, FindMissingBlobsRequest } from "../../src/proto/remote_execution.ts";
import type { BlobDigest } from "../digest-functions.ts";
import type { LoadSetup } from "./load-setup.ts";
import type { PreparedCall } from "./raw-connection.ts";
import type { Scenario } from "./scenario.ts";

/** What the command line may say instead of the scenario. */
export interface FindMissingOptions {
  readonly digestsPerCall?: number;
  readonly hitShare?: number;
  readonly workingSet?: number;
  readonly overlap?: number;
}

/** Digests that calls draw from: larger than any cache of a core. */
const WORKING_SET = 20_000;
/** Blobs that are made, and stored, at a time. */
const STORED_AT_ONCE = 5000;
const BLOB_BYTES = 40;

export const FIND_MISSING_SCENARIOS: readonly Scenario[] = [
  findMissing("fmb", "1,000 digests a call, all present", { perCall: 1000, hits: 1 }),
  findMissing("fmb-half", "1,000 digests a call, half of them present", { perCall: 1000, hits: 0.5 }),
  findMissing("fmb-small", "ten digests a call, all present", { perCall: 10, hits: 1 }),
];

function findMissing(name: string, what: string, { perCall, hits }: { perCall: number; hits: number }): Scenario {
  return {
    name,
    question: `How fast is FindMissingBlobs with ${what}?`,
    unit: "digests",
    prepare: async (setup) => {
      const { digestsPerCall = perCall, hitShare = hits, workingSet = WORKING_SET, overlap = 0 } = setup.findMissing;
      const setSize = Math.max(workingSet, digestsPerCall);
      const digests = shuffled(await makeDigests(setup, setSize, hitShare), setup);
      const stride = Math.max(1, Math.round(digestsPerCall * (1 - overlap)));
      const windows = new DigestWindows(digests, setup.instanceName);
      let start = 0;
      const next = (): PreparedCall => {
        if (start + digestsPerCall > setSize) start = 0;
        const call = windows.call(start, digestsPerCall);
        start += stride;
        return call;
      };
      return { unitsPerCall: digestsPerCall, next };
    },
  };
}

async function makeDigests(setup: LoadSetup, setSize: number, hitShare: number): Promise<BlobDigest[]> {
  const present = Math.round(setSize * hitShare);
  const digests: BlobDigest[] = [];
  while (digests.length < present) {
    const blobs = Array.from({ length: Math.min(STORED_AT_ONCE, present - digests.length) }, () =>
      setup.blob(BLOB_BYTES),
    );
    await setup.store(blobs);
    for (const { digest } of blobs) digests.push(digest);
  }
  while (digests.length < setSize) digests.push(setup.absent(BLOB_BYTES));
  return digests;
}

function shuffled(items: BlobDigest[], setup: LoadSetup): BlobDigest[] {
  for (let index = items.length - 1; index > 0; index--) {
    const other = setup.random.below(index + 1);
    [items[index], items[other]] = [items[other]!, items[index]!];
  }
  return items;
}

/** The encoded digests of the set, one after the other: a repeated field may be cut between any two. */
export class DigestWindows {
  readonly #encoded: Buffer;
  /** Where each digest begins, and where the last ends. */
  readonly #offsets: Float64Array;
  readonly #instance: Uint8Array;

  constructor(digests: readonly BlobDigest[], instanceName: string) {
    const parts = digests.map((digest) => FindMissingBlobsRequest.encode({ blobDigests: [digest] }));
    this.#encoded = Buffer.concat(parts);
    this.#offsets = new Float64Array(parts.length + 1);
    for (const [index, { length }] of parts.entries()) this.#offsets[index + 1] = this.#offsets[index]! + length;
    this.#instance = FindMissingBlobsRequest.encode({ instanceName });
  }

  call(start: number, count: number): PreparedCall {
    const digests = this.#encoded.subarray(this.#offsets[start]!, this.#offsets[start + count]!);
    const head = Buffer.alloc(5 + this.#instance.length);
    head.writeUInt32BE(this.#instance.length + digests.length, 1);
    head.set(this.#instance, 5);
    return { path: Cas.methods.FindMissingBlobs.path, body: [head, digests] };
  }
}
