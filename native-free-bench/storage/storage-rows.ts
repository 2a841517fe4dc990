// The rows of the storage table: what is measured, in which shape, and how many times the peer's rate is asked for.

import { ActionCache } from "../../src/proto/remote_execution.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import type { FindMissingOptions } from "../load/find-missing-scenarios.ts";
import { prepare } from "../load/prepared-calls.ts";
import { cycle, type ClientShape, type Scenario } from "../load/scenario.ts";
import { SCENARIOS } from "../load/scenarios.ts";

const MIB = 1024 * 1024;
const LARGE_BYTES = 64 * MIB;
const LARGE_MS = 4000;

export interface StorageRow {
  readonly name: string;
  readonly what: string;
  readonly scenario: Scenario;
  readonly shape?: ClientShape;
  readonly findMissing?: FindMissingOptions;
  /** Times the peer's rate. */
  readonly asked: number;
  /** Times the peer's rate per CPU second of the server. */
  readonly askedPerCpu?: number;
  /** Compared with the straight-line program as well. */
  readonly isUpload?: boolean;
}

export interface RowOptions {
  /** In the store while FindMissingBlobs is measured. */
  readonly blobs: number;
  /** Of distinct 64 MiB blobs read in turn. */
  readonly readBytes: number;
}

/** In an order in which rows that need an empty disk or a full store find it so. */
export function storageRows({ blobs, readBytes }: RowOptions): readonly StorageRow[] {
  const findMissing = { digestsPerCall: 1000, hitShare: 1, workingSet: blobs };
  const one = { connections: 1, depth: 1 };
  const eight = { connections: 8, depth: 1 };
  return [
    row("write-64m", "ByteStream.Write 64 MiB, one at a time", { shape: one, asked: 1.5, isUpload: true }),
    row("write-64m", "ByteStream.Write 64 MiB, 8 at once", {
      name: "write-64m-8",
      shape: eight,
      asked: 1.5,
      isUpload: true,
    }),
    row("write-1m", "ByteStream.Write 1 MiB, one at a time", { shape: one, asked: 1 }),
    row("write-1m", "ByteStream.Write 1 MiB, 8 at once", { name: "write-1m-8", shape: eight, asked: 1 }),
    row("batch-update", "BatchUpdateBlobs 100 x 1 KiB", { asked: 10 }),
    row("write-1k", "ByteStream.Write 1 KiB, 256 at once", { shape: { connections: 4, depth: 64 }, asked: 8 }),
    row("ac-update", "UpdateActionResult, 256 at once", { shape: { connections: 4, depth: 64 }, asked: 5 }),
    row("batch-read", "BatchReadBlobs 100 x 1 KiB", { asked: 3.5 }),
    row("read-1k", "ByteStream.Read 1 KiB", { asked: 3 }),
    { name: "ac-hit", what: "GetActionResult, 10 outputs", scenario: ACTION_RESULT_HIT, asked: 2 },
    {
      name: "read-64m",
      what: `ByteStream.Read 64 MiB, ${(readBytes / 2 ** 30).toFixed(1)} GiB of distinct blobs in turn`,
      scenario: readLarge(Math.ceil(readBytes / LARGE_BYTES)),
      asked: 1.7,
    },
    row("fmb", `FindMissingBlobs 1,000 a call, all present, ${blobs} stored`, {
      findMissing,
      asked: 2.5,
      askedPerCpu: 4,
    }),
    row("fmb", "FindMissingBlobs 1,000 a call, all absent, in the same store", {
      name: "fmb-absent",
      findMissing: { ...findMissing, hitShare: 0, workingSet: Math.min(blobs, 200_000) },
      asked: 2.5,
      askedPerCpu: 4,
    }),
  ];
}

function row(
  scenarioName: string,
  what: string,
  options: Omit<StorageRow, "name" | "what" | "scenario"> & { readonly name?: string },
): StorageRow {
  const scenario = SCENARIOS.find(({ name }) => name === scenarioName);
  if (scenario === undefined) throw new Error(`no scenario "${scenarioName}"`);
  return { name: scenarioName, what, scenario, ...options };
}

/** As ac-hit, with as many outputs as a library has; each result names blobs of its own. */
const ACTION_RESULT_HIT: Scenario = {
  name: "ac-hit-10",
  question: "How fast is an action result of ten output files found, all of them there?",
  unit: "calls",
  prepare: async (setup) => {
    const files = Array.from({ length: 2000 }, () => setup.blob(500));
    await setup.store(files);
    const actions = Array.from({ length: 1000 }, () => setup.absent(140));
    for (const [index, action] of actions.entries()) {
      const outputs = Array.from({ length: 10 }, (_, output) => files[(index * 7 + output) % files.length]!);
      await setup.storeResult(action, {
        outputFiles: outputs.map(({ digest }, output) => ({ path: `out/${output}.o`, digest })),
      });
    }
    const calls = actions.map((actionDigest) =>
      prepare(ActionCache.methods.GetActionResult, { instanceName: setup.instanceName, actionDigest }),
    );
    return { unitsPerCall: 1, next: cycle(calls) };
  },
};

function readLarge(count: number): Scenario {
  return {
    name: "read-64m-many",
    question: "How fast are large blobs read when they do not stay in a cache of the processor?",
    unit: "bytes",
    shape: { connections: 2, depth: 1 },
    leastDurationMs: LARGE_MS,
    prepare: async (setup) => {
      const template = setup.blob(LARGE_BYTES).data;
      const calls = [];
      for (let index = 0; index < count; index++) {
        const blob = setup.variantOf(template);
        await setup.store([blob]);
        calls.push({
          ...prepare(ByteStream.methods.Read, { resourceName: setup.readName(blob.digest) }),
          leastBytes: LARGE_BYTES,
        });
      }
      return { unitsPerCall: LARGE_BYTES, next: cycle(calls) };
    },
  };
}
