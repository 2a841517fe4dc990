// What is measured of an executor: each measure stores what it needs, runs actions and returns numbers.
//
// Question of each: what does a client wait for, or how many actions end in a second, when the action itself does
// nothing. Left out: the time of uploads, which other scenarios measure. Every number is of one round; medians and
// spreads over rounds are executor-command.ts.

import type { ExecutionClient } from "./execution-client.ts";
import { LARGE_OUTPUT, measureOutputs, SMALL_OUTPUTS } from "./output-measures.ts";
import { sampleAction, sampleRoot, type SampleAction, type SampleRoot } from "./sample-actions.ts";

export interface MeasureContext {
  readonly client: ExecutionClient;
  /** Different in every round and for every target, so that nothing is cached. */
  readonly run: string;
  readonly seed: number;
  readonly platform: readonly { readonly name: string; readonly value: string }[];
}

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: "ms" | "/s";
}

export interface MeasureResult {
  readonly figures: readonly Figure[];
  /** Actions that were run, for figures per action. */
  readonly actions: number;
}

export interface Measure {
  readonly name: string;
  readonly help: string;
  run(context: MeasureContext): Promise<MeasureResult>;
}

const EMPTY = sampleRoot(0, { seed: 0 });
/** JIT compilers and caches of the server settle within so many actions. */
const WARM_UP_ACTIONS = 20;

export const MEASURES: readonly Measure[] = [
  {
    name: "one-by-one",
    help: "distinct /bin/true actions one after another, Execute call",
    run: (context) => oneByOne(context, "/bin/true", 200, () => EMPTY),
  },
  {
    name: "in-flight",
    help: "distinct /bin/true actions, 8 in flight",
    run: (context) => inFlight(context, 400, 8),
  },
  {
    name: "files-1000",
    help: "input root of 1,000 files, the same for every action",
    run: async (context) => {
      const root = sampleRoot(1000, { seed: context.seed });
      return oneByOne(context, "1,000 files, unchanged", 30, () => root);
    },
  },
  {
    name: "files-1000-new",
    help: "first use of an input root of 1,000 files",
    run: (context) =>
      oneByOne(context, "1,000 files, first use", 5, (index) => sampleRoot(1000, { seed: context.seed + index + 1 })),
  },
  {
    name: "files-10000",
    help: "input root of 10,000 files, the same for every action",
    run: async (context) => {
      const root = sampleRoot(10_000, { seed: context.seed });
      return oneByOne(context, "10,000 files, unchanged", 8, () => root);
    },
  },
  {
    name: "files-10000-changed",
    help: "input root of 10,000 files, one of them changed for each action",
    run: (context) =>
      oneByOne(context, "10,000 files, one changed", 8, (index) =>
        sampleRoot(10_000, { seed: context.seed, changed: index }),
      ),
  },
  {
    name: "files-50000-read-only",
    help: "input root of 50,000 files marked SubtreeReadOnly, the same for every action",
    run: async (context) => {
      const root = sampleRoot(50_000, { seed: context.seed, readOnly: true });
      return oneByOne(context, "50,000 files, read-only, unchanged", 20, () => root);
    },
  },
  {
    name: "outputs",
    help: "100 outputs of 10 KiB, beside uploading as many bytes",
    run: (context) => measureOutputs(context, SMALL_OUTPUTS),
  },
  {
    name: "output-large",
    help: "one output of 100 MiB, beside uploading as many bytes",
    run: (context) => measureOutputs(context, LARGE_OUTPUT),
  },
  {
    name: "soak",
    help: "10,000 /bin/true actions, 64 in flight (some minutes)",
    run: (context) => inFlight(context, 10_000, 64),
  },
];

/** `rootOf` may return the same root again and again; the first actions are not counted when it does. */
async function oneByOne(
  context: MeasureContext,
  what: string,
  count: number,
  rootOf: (index: number) => SampleRoot,
): Promise<MeasureResult> {
  const { client, run, platform } = context;
  const isSame = rootOf(0) === rootOf(1);
  const warmUp = isSame ? Math.min(WARM_UP_ACTIONS, count) : 1;
  const times: number[] = [];
  let stored: SampleRoot | undefined;
  for (let index = 0; index < warmUp + count; index++) {
    const root = rootOf(index);
    if (root !== stored) await client.store(root.blobs);
    stored = root;
    const action = sampleAction(root, run, {}, platform);
    await client.store(action.blobs);
    const { elapsedMs } = await client.execute(action.digest);
    if (index >= warmUp) times.push(elapsedMs);
  }
  times.sort((a, b) => a - b);
  return {
    figures: [
      { name: `${what}, p50`, value: quantile(times, 0.5), unit: "ms" },
      { name: `${what}, p95`, value: quantile(times, 0.95), unit: "ms" },
    ],
    actions: warmUp + count,
  };
}

async function inFlight(context: MeasureContext, count: number, depth: number): Promise<MeasureResult> {
  const { client, run, platform } = context;
  const actions: SampleAction[] = Array.from({ length: WARM_UP_ACTIONS + count }, () =>
    sampleAction(EMPTY, run, {}, platform),
  );
  await client.store([...EMPTY.blobs, ...actions.flatMap(({ blobs }) => blobs)]);
  await executeAll(client, actions.slice(0, WARM_UP_ACTIONS), depth);
  const begunMs = performance.now();
  await executeAll(client, actions.slice(WARM_UP_ACTIONS), depth);
  const seconds = (performance.now() - begunMs) / 1000;
  return {
    figures: [{ name: `/bin/true, ${depth} in flight`, value: count / seconds, unit: "/s" }],
    actions: actions.length,
  };
}

async function executeAll(client: ExecutionClient, actions: readonly SampleAction[], depth: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let action = actions[next++]; action !== undefined; action = actions[next++]) {
      await client.execute(action.digest);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
