// The lazy key-value store: the contract, what it answers before the commit, and what a failing disk does to it.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { makesRoom, type KeyValueOperation, type KeyValueStore } from "../../src/kv/key-value-store.ts";
import { LazyStore } from "../../src/kv/lazy-store.ts";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { MemoryStore } from "../../src/kv/memory-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { describeKeyValueStoreContract } from "./key-value-store-contract.ts";

const beforeCommit = async () => undefined;

for (const [name, makeInner] of [
  ["LmdbStore", (directory: string) => LmdbStore.open({ path: join(directory, "index.mdb") })],
  ["MemoryStore", () => new MemoryStore()],
] as const) {
  describeKeyValueStoreContract(`LazyStore on ${name}`, async () => {
    const directory = mkdtempSync(join(tmpdir(), "ledge-lazy-"));
    const store = new LazyStore({ inner: makeInner(directory), beforeCommit, logger: silentLogger });
    return {
      store,
      async close() {
        await store.close();
        rmSync(directory, { recursive: true });
      },
    };
  });
}

/** Commits when it is told to. */
class HeldStore implements KeyValueStore {
  readonly committed = new MemoryStore();
  readonly log: string[] = [];
  failure: Error | undefined;
  refusesPuts = false;
  #gate = Promise.withResolvers<void>();

  get(key: Uint8Array): Uint8Array | undefined {
    return this.committed.get(key);
  }

  borrow(key: Uint8Array) {
    return this.committed.borrow(key);
  }

  async write(operations: readonly KeyValueOperation[]): Promise<void> {
    await this.#gate.promise;
    if (this.failure !== undefined) throw this.failure;
    if (this.refusesPuts && !makesRoom(operations)) throw new Error("full");
    this.log.push(operations.map(({ type, key }) => `${type} ${Buffer.from(key).toString()}`).join(", "));
    await this.committed.write(operations);
  }

  range(options: { readonly from?: Uint8Array; readonly to?: Uint8Array }) {
    return this.committed.range(options);
  }

  async close(): Promise<void> {
    this.log.push("close");
  }

  open(): void {
    this.#gate.resolve();
  }
}

function put(key: string, value = key): KeyValueOperation {
  return { type: "put", key: Buffer.from(key), value: Buffer.from(value) };
}

describe("LazyStore", () => {
  test("answers before the commit, shows what it holds, and commits it in order", async () => {
    const inner = new HeldStore();
    const store = new LazyStore({ inner, beforeCommit, logger: silentLogger });
    await store.write([put("b", "1")]);
    await store.write([put("a"), put("b", "2")]);
    expect(Buffer.from(store.get(Buffer.from("b")) ?? []).toString()).toBe("2");
    expect([...store.range({})].map(({ key }) => Buffer.from(key).toString())).toEqual(["a", "b"]);
    expect(inner.log).toEqual([]);
    inner.open();
    await store.close();
    expect(inner.log).toEqual(["put b, put a, put b", "close"]);
  });

  // What a delete frees is unlinked next: its record must be gone from the disk by then.
  test("a delete waits for its commit", async () => {
    const inner = new HeldStore();
    const store = new LazyStore({ inner, beforeCommit, logger: silentLogger });
    await store.write([put("a")]);
    let isDone = false;
    const deleted = store.write([{ type: "delete", key: Buffer.from("a") }]).then(() => (isDone = true));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isDone).toBe(false);
    expect(store.get(Buffer.from("a"))).toBeUndefined();
    inner.open();
    await deleted;
    expect(inner.committed.get(Buffer.from("a"))).toBeUndefined();
    await store.close();
  });

  test("commits no record before the files that were stored ahead of it are durable", async () => {
    const inner = new HeldStore();
    inner.open();
    const synced = Promise.withResolvers<void>();
    const store = new LazyStore({ inner, beforeCommit: () => synced.promise, logger: silentLogger });
    await store.write([put("a")]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(inner.log).toEqual([]);
    synced.resolve();
    await store.close();
    expect(inner.log).toEqual(["put a", "close"]);
  });

  test("deletes go ahead of puts that find no room, also of what was put before them, and not of what was put after", async () => {
    const inner = new HeldStore();
    await inner.committed.write([put("old"), put("both")]);
    inner.open();
    inner.refusesPuts = true;
    const store = new LazyStore({ inner, beforeCommit, logger: silentLogger });
    await store.write([put("new")]);
    await store.write([put("both")]);
    await store.write([{ type: "delete", key: Buffer.from("old") }]);
    expect(inner.committed.get(Buffer.from("old"))).toBeUndefined();
    await store.write([{ type: "delete", key: Buffer.from("both") }]);
    expect(inner.committed.get(Buffer.from("both"))).toBeUndefined();
    inner.refusesPuts = false;
    await expect.poll(() => inner.log, { timeout: 20_000 }).toEqual(["delete old", "delete both", "put new"]);
    await store.write([put("both")]);
    await store.close();
    expect(inner.committed.get(Buffer.from("both"))).toBeDefined();
  });

  // A part of a value names what was written with the whole of it.
  test("what makes a value smaller goes ahead of puts that find no room, but not of that value itself", async () => {
    const inner = new HeldStore();
    await inner.committed.write([put("group", "old and old")]);
    inner.open();
    inner.refusesPuts = true;
    const store = new LazyStore({ inner, beforeCommit, logger: silentLogger });
    await store.write([put("bytes"), put("fresh", "new and new")]);
    const smaller = (key: string, value: string): KeyValueOperation => {
      return { type: "put", key: Buffer.from(key), value: Buffer.from(value), isSmaller: true };
    };
    const held = store.write([smaller("fresh", "new")]);
    await store.write([smaller("group", "old")]);
    expect(Buffer.from(inner.committed.get(Buffer.from("group")) ?? []).toString()).toBe("old");
    expect(inner.committed.get(Buffer.from("fresh"))).toBeUndefined();
    inner.refusesPuts = false;
    await held;
    expect(inner.committed.get(Buffer.from("bytes"))).toBeDefined();
    expect(Buffer.from(inner.committed.get(Buffer.from("fresh")) ?? []).toString()).toBe("new");
    await store.close();
  });

  test("while the disk takes nothing puts are refused, what was accepted stays, and is committed once it can be", async () => {
    const inner = new HeldStore();
    inner.failure = new Error("full");
    inner.open();
    const store = new LazyStore({ inner, beforeCommit, logger: silentLogger });
    await store.write([put("a")]);
    await expect
      .poll(() => store.write([put("b")]).then(() => "stored", String), { timeout: 20_000 })
      .toContain("full");
    expect(store.get(Buffer.from("a"))).toBeDefined();
    inner.failure = undefined;
    await expect.poll(() => inner.committed.get(Buffer.from("a")), { timeout: 20_000 }).toBeDefined();
    await store.write([put("c")]);
    await store.close();
    expect(inner.committed.get(Buffer.from("c"))).toBeDefined();
  });
});
