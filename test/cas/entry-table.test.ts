// The index in memory beside its records: while it is being read, and when a removal fails.

import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { EntryTable, type EntryName } from "../../src/cas/entry-table.ts";
import { ValueKind } from "../../src/cas/value-store.ts";
import type { KeyValueEntry, KeyValueOperation } from "../../src/kv/key-value-store.ts";
import { MemoryStore } from "../../src/kv/memory-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

const SLICE_MS = 4;

/** Takes longer than a slice of a start for each record, and fails writes that `refuses` likes. */
class SlowStore extends MemoryStore {
  refuses: (operations: readonly KeyValueOperation[]) => boolean = () => false;

  override *range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array }): Iterable<KeyValueEntry> {
    for (const entry of super.range(options)) {
      for (const endMs = performance.now() + SLICE_MS + 1; performance.now() < endMs;);
      yield entry;
    }
  }

  override async write(operations: readonly KeyValueOperation[]): Promise<void> {
    if (this.refuses(operations)) throw new Error("refused");
    await super.write(operations);
  }
}

function open(store: MemoryStore): EntryTable {
  const options = { store, clock: systemClock, logger: silentLogger, metrics: new MetricsRegistry() };
  return new EntryTable({ ...options, leaseMs: 0, leaseBudgetBytes: 0 });
}

function nameOf(number: number, kind: number = ValueKind.ACTION_RESULT): EntryName {
  return { kind, words: Uint32Array.of(number, 1, 2, 3, 4, 5, 6, 7), offset: 0 };
}

function textOf(table: EntryTable, { kind, words, offset }: EntryName): string | undefined {
  const slot = table.find(kind, words, offset);
  return slot < 0 ? undefined : Buffer.from(table.readInline(slot) ?? []).toString();
}

const isRemoval = (operations: readonly KeyValueOperation[]) => operations.some(({ type }) => type === "delete");

/** What a crash leaves that comes after the write of the new bytes and before the removal of the old ones. */
async function storeTwice(name: EntryName): Promise<SlowStore> {
  const store = new SlowStore();
  store.refuses = isRemoval;
  const table = open(store);
  await table.putInline(name, Buffer.from("the old bytes"));
  await table.putInline(name, Buffer.from("the new"));
  await table.drain();
  store.refuses = () => false;
  return store;
}

describe("while the index is being read", () => {
  test("a value that was replaced shortly before a crash is found as the later one", async () => {
    const name = nameOf(1);
    const table = open(await storeTwice(name));
    const loaded = table.load();
    expect(table.index.count).toBe(1);
    expect(textOf(table, name)).toBe("the new");
    await loaded;
    expect(textOf(table, name)).toBe("the new");
  });

  test("an entry that is removed does not come back from what is yet to be read", async () => {
    for (const kind of [1, ValueKind.ACTION_RESULT]) {
      const name = nameOf(1, kind);
      const store = await storeTwice(name);
      const table = open(store);
      const loaded = table.load();
      await table.remove([name]);
      await loaded;
      expect(textOf(table, name)).toBeUndefined();
      expect(textOf(open(store), name)).toBeUndefined();
    }
  });
});

describe("a removal that fails", () => {
  // Else the next start would find the old bytes, long after the new ones were evicted.
  test("of what was replaced is made up for by the next removal", async () => {
    const store = new SlowStore();
    const table = open(store);
    await table.putInline(nameOf(1), Buffer.from("old"));
    store.refuses = isRemoval;
    await table.putInline(nameOf(1), Buffer.from("new"));
    await table.drain();
    store.refuses = () => false;
    await table.remove([nameOf(1)]);
    expect(textOf(open(store), nameOf(1))).toBeUndefined();
  });

  // A record of a file that is gone would have everybody told of a blob that nobody can read.
  test("of a file is made up for when it was stored again and removed", async () => {
    const store = new SlowStore();
    const table = open(store);
    const name = nameOf(1, 1);
    await table.putFile(name, 100_000, Uint32Array.of(7));
    store.refuses = isRemoval;
    await expect(table.remove([name])).rejects.toThrow("refused");
    store.refuses = () => false;
    await table.putFile(name, 100_000, Uint32Array.of(8));
    await table.remove([nameOf(2, 1)]);
    expect(table.readChecksums(name)).toEqual(Uint32Array.of(8));
    await table.remove([name]);
    const next = open(store);
    expect(next.find(1, name.words, 0)).toBe(-1);
    expect(next.index.count).toBe(0);
  });
});

test("a start that cannot remove what a crash left is a start all the same", async () => {
  const store = await storeTwice(nameOf(1));
  store.refuses = isRemoval;
  const table = open(store);
  await table.load();
  expect(table.isLoaded).toBe(true);
  expect(textOf(table, nameOf(1))).toBe("the new");
  // As said above: what is owed goes with the next removal.
  store.refuses = () => false;
  await table.remove([nameOf(1)]);
  expect(textOf(open(store), nameOf(1))).toBeUndefined();
});
