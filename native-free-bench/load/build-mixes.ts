// Mixed load modelled on what builds do, each with its proportions.
//
// The proportions are a model, not a recording: of a Bazel build, per action one GetActionResult; on a miss
// FindMissingBlobs of about 50 digests, uploads of what is missing, and an UpdateActionResult; on a hit, downloads unless
// built without the bytes. Blob sizes are log-normal with a median of 2 KiB and sigma 2, cut at 8 MiB: most are small,
// and half of the bytes are in the largest two per cent. Replace a model by your own traffic with record and replay.

import { Code } from "../../src/base/status.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { ActionCache, ContentAddressableStorage as Cas } from "../../src/proto/remote_execution.ts";
import type { LoadBlob, LoadSetup } from "./load-setup.ts";
import { prepare, prepareWrite } from "./prepared-calls.ts";
import type { PreparedCall } from "./raw-connection.ts";
import type { Scenario } from "./scenario.ts";

type Part = "ac-hit" | "ac-miss" | "fmb-present" | "fmb-mixed" | "read" | "write" | "ac-update";

/** Calls of each kind out of a hundred. */
type Proportions = Readonly<Partial<Record<Part, number>>>;

export const BUILD_MIXES: readonly Scenario[] = [
  mix("cold-ci", "a build of which nothing is cached", { "ac-miss": 25, "fmb-mixed": 15, write: 40, "ac-update": 20 }),
  mix("incremental", "a developer's build after a small change", {
    "ac-hit": 60,
    "ac-miss": 4,
    "fmb-mixed": 4,
    write: 7,
    "ac-update": 4,
    read: 21,
  }),
  mix("no-op", "a build of which everything is cached", { "ac-hit": 70, "fmb-present": 5, read: 25 }),
  mix("without-the-bytes", "a cached build that downloads nothing", { "ac-hit": 95, "fmb-present": 5 }),
  mix(
    "eight-builds",
    "eight builds at once, half of the actions cached",
    { "ac-hit": 30, "ac-miss": 15, "fmb-mixed": 10, write: 20, "ac-update": 10, read: 15 },
    { connections: 8, depth: 8 },
  ),
];

const MEDIAN_BYTES = 2048;
const SIGMA = 2;
const MAX_BYTES = 8 * 1024 * 1024;

function mix(name: string, what: string, proportions: Proportions, shape?: Scenario["shape"]): Scenario {
  return {
    name,
    question: `How many calls a second does ${what} get?`,
    unit: "calls",
    ...(shape === undefined ? {} : { shape }),
    prepare: async (setup) => {
      const makers = await prepareParts(setup);
      const deck = Object.entries(proportions).flatMap(([part, count]) => new Array<Part>(count).fill(part as Part));
      return { unitsPerCall: 1, next: () => makers[deck[setup.random.below(deck.length)]!]() };
    },
  };
}

async function prepareParts(setup: LoadSetup): Promise<Record<Part, () => PreparedCall>> {
  const { instanceName, random } = setup;
  const blobs = Array.from({ length: 400 }, () => setup.blob(blobSize(setup)));
  await setup.store(blobs);
  const templates = blobs.map(({ data }) => data).filter((data) => data.length >= 16);
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)]!;
  const actions = Array.from({ length: 300 }, () => setup.absent(140));
  for (const action of actions)
    await setup.storeResult(action, { outputFiles: [{ path: "out", digest: pick(blobs).digest }] });
  const someDigests = (count: number, hitShare: number) =>
    Array.from({ length: count }, () => (random.fraction() < hitShare ? pick(blobs).digest : setup.absent(100)));
  return {
    "ac-hit": () => prepare(ActionCache.methods.GetActionResult, { instanceName, actionDigest: pick(actions) }),
    "ac-miss": () => ({
      ...prepare(ActionCache.methods.GetActionResult, { instanceName, actionDigest: setup.absent(140) }),
      accepts: Code.NOT_FOUND,
    }),
    "fmb-present": () => prepare(Cas.methods.FindMissingBlobs, { instanceName, blobDigests: someDigests(200, 1) }),
    "fmb-mixed": () => prepare(Cas.methods.FindMissingBlobs, { instanceName, blobDigests: someDigests(50, 0.9) }),
    read: () => prepare(ByteStream.methods.Read, { resourceName: setup.readName(pick(blobs).digest) }),
    write: () => {
      const blob: LoadBlob = setup.variantOf(pick(templates));
      return prepareWrite(setup.writeName(blob.digest), blob.data);
    },
    "ac-update": () =>
      prepare(ActionCache.methods.UpdateActionResult, {
        instanceName,
        actionDigest: setup.absent(140),
        actionResult: {
          outputFiles: [{ path: "out", digest: pick(blobs).digest }],
          executionMetadata: { worker: "bench" },
        },
      }),
  };
}

function blobSize(setup: LoadSetup): number {
  // Box and Muller's way to a normal number.
  const normal =
    Math.sqrt(-2 * Math.log(1 - setup.random.fraction())) * Math.cos(2 * Math.PI * setup.random.fraction());
  return Math.max(16, Math.min(MAX_BYTES, Math.round(MEDIAN_BYTES * Math.exp(SIGMA * normal))));
}
