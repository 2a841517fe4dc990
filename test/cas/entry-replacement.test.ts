// What was replaced must not come back: an old value is off the disk when the put of the new one resolves, so that no
// crash after a later delete can leave the old one as the only one of its name.

import { expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { EntryTable } from "../../src/cas/entry-table.ts";
import type { KeyValueOperation } from "../../src/kv/key-value-store.ts";
import { MemoryStore } from "../../src/kv/memory-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

/** Writes take a while, as on a disk. */
class SlowStore extends MemoryStore {
  override async write(operations: readonly KeyValueOperation[]): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 5));
    await super.write(operations);
  }
}

test("putInline() of a name that is there resolves when the old bytes are gone as well", async () => {
  const store = new SlowStore();
  const options = { store, clock: systemClock, logger: silentLogger, metrics: new MetricsRegistry() };
  const table = new EntryTable({ ...options, leaseMs: 0, leaseBudgetBytes: 0 });
  const name = { kind: 16, words: Uint32Array.of(1, 2, 3, 4, 5, 6, 7, 8), offset: 0 };
  for (const text of ["old", "new", "newest"]) {
    await table.putInline(name, Buffer.from(text));
    expect([...store.range({ from: Buffer.from("d"), to: Buffer.from("e") })]).toHaveLength(1);
    expect([...store.range({ from: Buffer.from("e"), to: Buffer.from("f") })]).toHaveLength(1);
    expect(Buffer.from(table.readInline(table.find(16, name.words, 0)) ?? []).toString()).toBe(text);
  }
});
