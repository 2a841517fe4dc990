// Entries in the key-value store, seen through a store that commits when it is told to.

import { randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { ReadEntry, readGroup } from "../../src/cas/entry-groups.ts";
import { EntryRecords, type NewEntry, type RemovedEntry } from "../../src/cas/entry-records.ts";
import { EntryTable } from "../../src/cas/entry-table.ts";
import { dataKey, GROUP_TABLE } from "../../src/cas/records.ts";
import { makesRoom, type KeyValueOperation } from "../../src/kv/key-value-store.ts";
import { MemoryStore } from "../../src/kv/memory-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

/** Writes wait for commit(); those that `refuses` likes fail then. */
class HeldStore extends MemoryStore {
  readonly writes: (readonly KeyValueOperation[])[] = [];
  refuses: (operations: readonly KeyValueOperation[]) => boolean = () => false;
  isHeld = false;
  #gate = Promise.withResolvers<void>();

  override async write(operations: readonly KeyValueOperation[]): Promise<void> {
    if (this.isHeld) await this.#gate.promise;
    if (this.refuses(operations)) throw new Error("refused");
    this.writes.push(operations);
    await super.write(operations);
  }

  commit(): void {
    this.#gate.resolve();
    this.#gate = Promise.withResolvers();
  }
}

function newEntry(number: number, text = `bytes ${number}`): NewEntry {
  const words = Uint32Array.of(number, 1, 2, 3, 4, 5, 6, 7);
  const value = Buffer.from(text);
  return { kind: 1, words, offset: 0, access: 9, sizeBytes: value.length, value, isFile: false };
}

/** First words of all entries in groups, each of which must be whole and have its bytes. */
function stored(store: MemoryStore): number[] {
  const found: number[] = [];
  const entry = new ReadEntry();
  for (const { key, value } of store.range(GROUP_TABLE)) {
    const isWhole = readGroup(key, value, entry, () => {
      found.push(entry.words[0] ?? -1);
      expect(store.get(dataKey(entry.place))).toHaveLength(entry.sizeBytes + 4);
    });
    expect(isWhole).toBe(true);
  }
  return found;
}

function dataCount(store: MemoryStore): number {
  return [...store.range({ from: Buffer.from("d"), to: Buffer.from("e") })].length;
}

async function addAll(records: EntryRecords, count: number): Promise<RemovedEntry[]> {
  return [...(await records.add(Array.from({ length: count }, (_, index) => newEntry(index))))];
}

describe("entries in the key-value store", () => {
  test("added in one turn share one write, and groups as few as they fit", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    await Promise.all(Array.from({ length: 200 }, (_, index) => records.add([newEntry(index)])));
    expect(store.writes).toHaveLength(1);
    expect([...store.range(GROUP_TABLE)]).toHaveLength(3);
    expect(stored(store)).toEqual([...Array.from({ length: 200 }).keys()]);
  });

  // Each removal writes what the one before has left of the group, which is not there to be read before its commit.
  test("of one group that are removed at once are all gone, and the others stay", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    const placed = await addAll(records, 80);
    store.isHeld = true;
    const removals = placed.slice(0, 60).map((entry) => records.remove([entry]));
    const commits = setInterval(() => store.commit());
    await Promise.all(removals);
    clearInterval(commits);
    expect(stored(store).toSorted((a, b) => a - b)).toEqual([...Array.from({ length: 80 }).keys()].slice(60));
    expect(dataCount(store)).toBe(20);
  });

  test("that are all removed leave nothing but the number of the next place", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    await records.remove(await addAll(records, 300));
    expect([...store.range({})]).toHaveLength(1);
  });

  test("whose removal fails are whole, and go with the next removal, since nobody knows of them any more", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    const placed = await addAll(records, 10);
    store.refuses = () => true;
    await expect(records.remove(placed.slice(0, 5))).rejects.toThrow("refused");
    store.refuses = () => false;
    expect(stored(store)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(dataCount(store)).toBe(10);
    await records.remove(placed.slice(7));
    expect(stored(store)).toEqual([5, 6]);
    expect(dataCount(store)).toBe(2);
  });

  // A full disk lets pass what makes room, and nothing else.
  test("are removed by writes that make room, and added by such that do not", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    const placed = await addAll(records, 90);
    await records.remove(placed.slice(3, 5));
    expect(store.writes.map(makesRoom)).toEqual([false, true]);
  });

  test("that could not be written fail with the reason, and others are written", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    store.refuses = () => true;
    await expect(records.add([newEntry(1)])).rejects.toThrow("refused");
    store.refuses = () => false;
    await records.add([newEntry(2)]);
    await records.drain();
    expect(stored(store)).toEqual([2]);
  });

  test("survive random additions and removals at once", async () => {
    const seed = randomInt(2 ** 31);
    console.log(`seed ${seed}`);
    let state = seed;
    const random = (below: number) => ((state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % below;
    const store = new HeldStore();
    store.isHeld = true;
    const commits = setInterval(() => store.commit());
    const records = new EntryRecords(store);
    const present = new Map<number, RemovedEntry>();
    const worker = async (own: number) => {
      for (let step = 0; step < 60; step++) {
        const numbers = Array.from({ length: 1 + random(120) }, (_, index) => own * 1e6 + step * 1000 + index);
        const placed = await records.add(numbers.map((number) => newEntry(number)));
        for (const [index, number] of numbers.entries()) present.set(number, placed[index] as RemovedEntry);
        const victims = [...present].filter(() => random(3) === 0);
        for (const [number] of victims) present.delete(number);
        await records.remove(victims.map(([, placedAt]) => placedAt));
      }
    };
    await Promise.all([0, 1, 2, 3].map(worker));
    clearInterval(commits);
    expect(stored(store).toSorted((a, b) => a - b)).toEqual([...present.keys()].toSorted((a, b) => a - b));
    expect(dataCount(store)).toBe(present.size);
  });
});

describe("a start after a crash between the write of an entry and the removal of the one it replaced", () => {
  test("keeps the later one, and removes the other", async () => {
    const store = new HeldStore();
    const records = new EntryRecords(store);
    await records.add([newEntry(1, "the old bytes"), newEntry(2)]);
    await records.add([newEntry(1, "the new")]);
    const options = { store, clock: systemClock, logger: silentLogger, metrics: new MetricsRegistry() };
    const table = new EntryTable({ ...options, leaseMs: 0, leaseBudgetBytes: 0 });
    await table.load();
    const slot = table.find(1, newEntry(1).words, 0);
    expect(Buffer.from(table.readInline(slot) ?? []).toString()).toBe("the new");
    await table.drain();
    expect(stored(store)).toEqual([2, 1]);
    expect(dataCount(store)).toBe(2);
  });

  // The number of the next place may be lost with a damaged index file.
  test("puts nothing over the bytes of entries that are there", async () => {
    const store = new HeldStore();
    await addAll(new EntryRecords(store), 5);
    await store.write([{ type: "delete", key: Uint8Array.from([0x6e]) }]);
    const options = { store, clock: systemClock, logger: silentLogger, metrics: new MetricsRegistry() };
    const table = new EntryTable({ ...options, leaseMs: 0, leaseBudgetBytes: 0 });
    const { words } = newEntry(77);
    await table.putInline({ kind: 1, words, offset: 0 }, Buffer.from("more"));
    expect(stored(store)).toEqual([0, 1, 2, 3, 4, 77]);
    expect(dataCount(store)).toBe(6);
  });
});
