// A data directory of format 1 becomes one of today's, whenever that is interrupted.
//
// Nothing writes format 1 any more, so the test makes it from its description in src/cas/entry-migration.ts.

import { randomInt } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { ReadEntry, readGroup } from "../../src/cas/entry-groups.ts";
import { migrateEntries } from "../../src/cas/entry-migration.ts";
import { GROUP_TABLE } from "../../src/cas/records.ts";
import type { Digest } from "../../src/digest/digest.ts";
import type { KeyValueOperation, KeyValueStore } from "../../src/kv/key-value-store.ts";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { MemoryStore } from "../../src/kv/memory-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { putRandom } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const NEXT_PLACE = Uint8Array.from([0x6e]);

/** Writes each entry as format 1 had it, and takes the groups away. */
async function demote(store: KeyValueStore): Promise<number> {
  const operations: KeyValueOperation[] = [];
  const entry = new ReadEntry();
  let count = 0;
  for (const { key, value } of [...store.range(GROUP_TABLE)].map((borrowed) => structuredClone(borrowed))) {
    operations.push({ type: "delete", key });
    readGroup(key, value, entry, () => {
      const isFile = (entry.flags & 1) !== 0;
      const { kind, flags, access, sizeBytes } = entry;
      const place = isFile ? 0 : entry.place;
      operations.push(oldRecord({ kind, words: entry.words.slice(), flags, access, sizeBytes, place }));
      count++;
    });
  }
  await store.write(operations);
  return count;
}

function oldRecord(entry: Omit<ReadEntry, "offset">): KeyValueOperation {
  const key = Buffer.alloc(34);
  key.write("m", "latin1");
  key.writeUInt8(entry.kind, 1);
  for (const [word, value] of entry.words.entries()) key.writeUInt32BE(value, 2 + word * 4);
  const value = Buffer.alloc(22);
  value.writeUInt8(1, 0);
  value.writeUInt8(entry.flags & 1, 1);
  value.writeUInt32LE(entry.access, 2);
  value.writeUIntLE(entry.sizeBytes, 6, 6);
  value.writeUIntLE(entry.place, 12, 6);
  value.writeUInt32LE(crc32(value.subarray(0, 18)), 18);
  return { type: "put", key, value };
}

function readAll(store: KeyValueStore): Map<string, { place: number; sizeBytes: number; flags: number }> {
  const found = new Map<string, { place: number; sizeBytes: number; flags: number }>();
  const entry = new ReadEntry();
  for (const { key, value } of store.range(GROUP_TABLE)) {
    const isWhole = readGroup(key, value, entry, () => {
      const { place, sizeBytes, flags } = entry;
      found.set(`${entry.kind} ${entry.words.join(" ")}`, { place, sizeBytes, flags: flags & 1 });
    });
    expect(isWhole).toBe(true);
  }
  return found;
}

describe("a data directory of format 1", () => {
  test("has everything it had, and is of the format of today afterwards", async () => {
    await using fixture = await StorageFixture.open();
    const digests: Digest[] = [];
    for (const size of [1, 500, 5000, 65_535, 65_536, 200_000]) {
      digests.push(await putRandom(fixture.storage.blobs, size));
    }
    await Promise.all(
      Array.from({ length: 300 }, async () => digests.push(await putRandom(fixture.storage.blobs, 300))),
    );
    await fixture.storage.values.put(16, Buffer.alloc(32, 7), Buffer.from("a value"));
    await fixture.storage.close();
    const store = LmdbStore.open({ path: join(fixture.dataDir, "index.mdb") });
    expect(await demote(store)).toBe(digests.length + 1);
    await store.close();
    writeFileSync(join(fixture.dataDir, "FORMAT"), "1\n");
    await fixture.restart();
    expect(readFileSync(join(fixture.dataDir, "FORMAT"), "utf8")).toBe("2\n");
    // Stored behind what was there, not over it.
    digests.push(await putRandom(fixture.storage.blobs, 300), await putRandom(fixture.storage.blobs, 100_000));
    for (let round = 0; round < 2; round++) {
      for (const digest of digests) expect(await fixture.storage.blobs.get(digest)).toHaveLength(digest.sizeBytes);
      expect(Buffer.from((await fixture.storage.values.get(16, Buffer.alloc(32, 7))) ?? []).toString()).toBe("a value");
      expect(fixture.storage.stats().entryCount).toBe(digests.length + 1);
      await fixture.restart();
      await fixture.storage.loaded;
    }
  });

  test("loses nothing and keeps places, however often its migration is interrupted", async () => {
    const store = new MemoryStore();
    const wanted = new Map<string, { place: number | undefined; sizeBytes: number; flags: number }>();
    const operations: KeyValueOperation[] = [];
    for (let index = 0; index < 20_000; index++) {
      const words = Uint32Array.from({ length: 8 }, () => randomInt(2 ** 32));
      const isFile = index % 5 === 0;
      const entry = { kind: 1, words, flags: isFile ? 1 : 0, access: index, sizeBytes: index, place: index * 3 + 1 };
      operations.push(oldRecord(entry));
      wanted.set(`1 ${words.join(" ")}`, {
        place: isFile ? undefined : entry.place,
        sizeBytes: index,
        flags: entry.flags,
      });
    }
    const next = Buffer.alloc(6);
    next.writeUIntLE(2 ** 20, 0, 6);
    operations.push({ type: "put", key: NEXT_PLACE, value: next });
    await store.write(operations);
    for (let writes = 1; ; writes++) {
      let left = writes;
      const interrupted: KeyValueStore = {
        get: (key) => store.get(key),
        borrow: (key) => store.borrow(key),
        range: (options) => store.range(options),
        close: () => store.close(),
        write: (written) => (left-- > 0 ? store.write(written) : Promise.reject(new Error("killed"))),
      };
      const end = await migrateEntries(interrupted, silentLogger).then(
        () => "done",
        (error: unknown) => (error as Error).message,
      );
      if (end === "done") break;
      expect(end).toBe("killed");
    }
    const found = readAll(store);
    expect(found.size).toBe(wanted.size);
    const places = new Set<number>();
    for (const [name, { place, sizeBytes, flags }] of wanted) {
      const entry = found.get(name);
      expect(entry).toMatchObject({ sizeBytes, flags, ...(place === undefined ? {} : { place }) });
      places.add(entry?.place ?? 0);
    }
    expect(places.size).toBe(wanted.size);
    expect([...store.range({ from: Buffer.from("m"), to: Buffer.from("n") })]).toEqual([]);
    expect(Buffer.from(store.get(NEXT_PLACE) ?? []).readUIntLE(0, 6)).toBeGreaterThan(Math.max(...places));
  });
});
