// Traces of what builds ask a store for, and how often each eviction policy would have had it.
//
// `node native-free-bench/storage/eviction-traces.ts` prints the table of docs/decisions. The traces are models of how builds
// ask, with a fixed seed; they are not recordings. What they leave out: actions, time, uploads that are refused.

import { pathToFileURL } from "node:url";
import { POLICIES } from "./eviction-policies.ts";

export interface Request {
  readonly id: number;
  readonly sizeBytes: number;
}

export const TRACES: Readonly<Record<string, () => Iterable<Request>>> = {
  "one project, edited": () => developer({ builds: 60, branches: 1, nightlyBlobs: 0 }),
  "eight branches, one more often than the next": () => developer({ builds: 80, branches: 8, nightlyBlobs: 0 }),
  "the same, and a rebuild of everything each night": () =>
    developer({ builds: 80, branches: 8, nightlyBlobs: 20_000 }),
  "continuous integration, half of what is stored is never asked for again": () => continuousIntegration(),
};

/** A build asks for all blobs of its branch's tree, of which an edit replaces a few, and what depends on them. */
function* developer(options: {
  readonly builds: number;
  readonly branches: number;
  readonly nightlyBlobs: number;
}): Iterable<Request> {
  const random = randomNumbers(7);
  let nextId = 0;
  const trees = Array.from({ length: options.branches }, (_, branch) =>
    Array.from({ length: 5000 }, (_unused, index) => (branch === 0 || index % 3 === 0 ? nextId++ : index)),
  );
  for (let build = 0; build < options.builds; build++) {
    const tree = trees[Math.floor(options.branches * random() ** 2)] ?? [];
    // Most edits replace little; one in fifty (a header that all include) replaces half.
    const replaced = random() < 0.02 ? 2500 : Math.ceil(60 * random() ** 2);
    for (let index = 0; index < replaced; index++) tree[Math.floor(random() * tree.length)] = nextId++;
    for (const id of tree) yield requestOf(id);
    if (options.nightlyBlobs > 0 && build % 30 === 29) {
      for (let index = 0; index < options.nightlyBlobs; index++) yield requestOf(nextId++);
    }
  }
}

/** Each run asks for the trunk's blobs of its time and stores as many of its own, which its retries ask for at times. */
function* continuousIntegration(): Iterable<Request> {
  const random = randomNumbers(11);
  let nextId = 0;
  const trunk = Array.from({ length: 4000 }, () => nextId++);
  let last: number[] = [];
  for (let run = 0; run < 60; run++) {
    for (let index = 0; index < 40; index++) trunk[Math.floor(random() * trunk.length)] = nextId++;
    for (const id of trunk) if (random() < 0.7) yield requestOf(id);
    const own = Array.from({ length: 2800 }, () => nextId++);
    for (const id of own) yield requestOf(id);
    if (random() < 0.15) for (const id of last) yield requestOf(id);
    last = own;
  }
}

/** Sizes as in a C++ build: most of a few KiB, some of MiB; the same for the same blob. */
function requestOf(id: number): Request {
  const random = randomNumbers(id + 1)();
  return { id, sizeBytes: Math.ceil(500 * 20_000 ** (random ** 2)) };
}

/** mulberry32: small, seeded, good enough to choose by. */
function randomNumbers(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Replayed {
  readonly policy: string;
  /** Of the requests for what was asked for before. */
  readonly missedRequests: number;
  readonly missedBytes: number;
}

/** Distinct blobs of one build, which the sizes of stores are told in. */
const BUILD_BLOBS = 5000;

/** Replays `trace` in a store of so many times the bytes of one build. First requests cannot be had, and do not count. */
export function replay(trace: () => Iterable<Request>, builds: number): Replayed[] {
  const first = new Map<number, number>();
  for (const { id, sizeBytes } of trace()) if (first.set(id, sizeBytes).size === BUILD_BLOBS) break;
  const capacity = builds * [...first.values()].reduce((sum, bytes) => sum + bytes, 0);
  return Object.entries(POLICIES).map(([policy, make]) => {
    const model = make(capacity);
    const seen = new Set<number>();
    const [again, missed] = [new Sum(), new Sum()];
    for (const { id, sizeBytes } of trace()) {
      const isHit = model.request(id, sizeBytes);
      if (seen.has(id)) {
        again.add(sizeBytes);
        if (!isHit) missed.add(sizeBytes);
      } else seen.add(id);
    }
    return { policy, missedRequests: missed.count / again.count, missedBytes: missed.bytes / again.bytes };
  });
}

class Sum {
  count = 0;
  bytes = 0;

  add(bytes: number): void {
    this.count++;
    this.bytes += bytes;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  for (const [name, trace] of Object.entries(TRACES)) {
    process.stdout.write(`\n${name}\n`);
    for (const builds of [0.5, 1.2, 2, 4]) {
      const cells = replay(trace, builds).map(
        ({ policy, missedRequests, missedBytes }) =>
          `${policy} ${(missedRequests * 100).toFixed(2)} % (${(missedBytes * 100).toFixed(2)} %)`,
      );
      process.stdout.write(`  ${builds} builds: ${cells.join(", ")}\n`);
    }
  }
}
