// What a store of many blobs costs: memory for each, the time of a start, the rate of FindMissingBlobs beside a smaller one.
//
// `node native-free-bench/storage/large-store.ts DIR=COUNT…`, data directories that test/cas/fill-store.ts filled with so
// many small blobs. Starts are measured with the index file in the page cache, without it, and after kill -9, until
// FindMissingBlobs is right about 1,000 stored and 1,000 absent digests; memory is RssAnon beside an empty server's.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assertNodeVersion } from "../../src/base/node-version.ts";
import { ContentAddressableStorage as Cas, FindMissingBlobsResponse } from "../../src/proto/remote_execution.ts";
import { Arguments, describeFlags, UsageError, withUsageErrors, type FlagTable } from "../arguments.ts";
import { PreparedScenario, type MeasurementOptions } from "../load/measurement.ts";
import { prepare } from "../load/prepared-calls.ts";
import { median } from "../load/statistics.ts";
import { RandomData } from "../random-data.ts";
import { findNumbered, numberedDigest } from "./numbered-blobs.ts";
import { StoredServer } from "./stored-server.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const LEDGE = `${process.execPath} ${join(ROOT, "src", "main.ts")}`;
const SERVE = "serve --listen 127.0.0.1:{port} --data-dir {dir} --slots 0 --max-size 40GiB --log-level error";
const ASKED = 1000;
/** What a start leaves behind is collected by then. */
const SETTLE_MS = 3000;

const FLAGS: FlagTable = {
  ledge: { kind: "text", value: "COMMAND", help: "the program (default: from source)" },
  runs: { kind: "text", value: "N", help: "starts of each kind, and runs of FindMissingBlobs (default: 3)" },
  duration: { kind: "text", value: "DURATION", help: "of a run of FindMissingBlobs (default: 2s)" },
  help: { kind: "switch", help: "print this" },
};

interface Store {
  readonly count: number;
  readonly dir: string;
  readonly server: StoredServer;
}

async function main(argv: readonly string[]): Promise<number> {
  const args = new Arguments(argv, FLAGS);
  if (args.has("help")) {
    process.stdout.write(`Usage: large-store.ts [FLAGS] DIR=COUNT…\n\n${describeFlags(FLAGS)}\n`);
    return 0;
  }
  const command = `${args.text("ledge") ?? LEDGE} ${SERVE}`.split(/\s+/);
  const runs = Math.floor(args.number("runs", 3, { min: 1, max: 100 }));
  const emptyBytes = await measureEmpty(command);
  process.stdout.write(`empty: RssAnon ${(emptyBytes / 2 ** 20).toFixed(0)} MiB\n`);
  const stores: Store[] = [];
  try {
    for (const text of args.positionals) {
      const [, dir = "", count = ""] = /^(.*)=(\d+)$/.exec(text) ?? [];
      if (count === "") throw new UsageError(`"${text}" is not DIR=COUNT`);
      const server = await StoredServer.start({ name: dir, command, dir });
      const store = { count: Number(count), dir, server };
      stores.push(store);
      await measureStarts(store, runs);
      await sleep(SETTLE_MS);
      const perBlob = (server.anonymousBytes - emptyBytes) / store.count;
      process.stdout.write(`  memory: ${perBlob.toFixed(1)} bytes a blob\n`);
    }
    await measureFindMissing(stores, { runs, durationMs: args.durationMs("duration", 2000) });
  } finally {
    for (const { server } of stores) await server.stop();
  }
  return 0;
}

async function measureEmpty(command: readonly string[]): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "ledge-empty-"));
  const server = await StoredServer.start({ name: "empty", command, dir });
  try {
    await sleep(SETTLE_MS);
    return server.anonymousBytes;
  } finally {
    await server.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function measureStarts({ server, count, dir }: Store, runs: number): Promise<void> {
  const random = new RandomData(count);
  const stored = Array.from({ length: ASKED }, () => numberedDigest(random.below(count)));
  const absent = Array.from({ length: ASKED }, () => ({ hash: random.bytes(32).toString("hex"), sizeBytes: 40 }));
  const question = prepare(Cas.methods.FindMissingBlobs, { blobDigests: [...stored, ...absent] });
  const hashes = new Set(absent.map(({ hash }) => hash));
  const isRight = (body: Buffer): boolean => {
    const { missingBlobDigests } = FindMissingBlobsResponse.decode(body.subarray(5));
    return missingBlobDigests.length === hashes.size && missingBlobDigests.every(({ hash }) => hashes.has(hash));
  };
  process.stdout.write(`${count} blobs\n`);
  for (const [name, before] of [
    ["warm", () => server.stop()],
    ["cold", () => server.stop().then(() => forget(join(dir, "index.mdb")))],
    ["after kill -9", () => server.kill()],
  ] as const) {
    const times: number[] = [];
    for (let run = 0; run < runs; run++) {
      await before();
      times.push(await server.start(question, isRight));
    }
    const range = `${Math.min(...times).toFixed(0)} to ${Math.max(...times).toFixed(0)}`;
    process.stdout.write(`  start, ${name}: ${median(times).toFixed(0)} ms (${range})\n`);
  }
}

/** Takes the file out of the page cache. */
function forget(path: string): void {
  const { status } = spawnSync("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"]);
  if (status !== 0) throw new Error(`dd of ${path} ended with ${status}`);
}

async function measureFindMissing(
  stores: readonly Store[],
  { runs, durationMs }: { readonly runs: number; readonly durationMs: number },
): Promise<void> {
  const options: MeasurementOptions = {
    client: "raw",
    connections: 4,
    depth: 16,
    ratePerSecond: undefined,
    warmUpMs: 500,
    durationMs,
    seed: 1,
    instanceName: "",
    compressibleShare: 0.5,
    platform: new Map(),
    findMissing: {},
  };
  const rates = new Map<Store, number[]>(stores.map((store) => [store, []]));
  const sessions = new Map<Store, PreparedScenario>();
  for (const store of stores) {
    sessions.set(store, await PreparedScenario.create(findNumbered(store.count, ASKED), store.server.target, options));
  }
  for (let run = 0; run < runs; run++) {
    for (const store of stores) {
      const { calls, unitsPerCall, durationMs: tookMs } = await sessions.get(store)!.run({ pid: store.server.pid });
      rates.get(store)!.push((calls * unitsPerCall * 1000) / tookMs);
    }
  }
  const [first] = stores;
  for (const store of stores) {
    const all = rates.get(store)!;
    const range = `${Math.min(...all).toFixed(0)} to ${Math.max(...all).toFixed(0)}`;
    const ratio = first === undefined ? 1 : median(all) / median(rates.get(first)!);
    process.stdout.write(
      `FindMissingBlobs of ${ASKED}, ${store.count} stored: ${median(all).toFixed(0)} digests/s (${range}), ${ratio.toFixed(2)} of the first\n`,
    );
  }
}

assertNodeVersion();
process.exitCode = await withUsageErrors("large store", () => main(process.argv.slice(2)));
