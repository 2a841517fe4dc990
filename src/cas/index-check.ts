// Walks an index file in a process of its own, because reading a damaged page can end the process that reads it.
//
// `walk` answers whether every record can be reached; `create` whether an empty index works in its place; `salvage` copies
// what is whole into a new file and says how far it came on stdout, so that whoever started it can go on behind the place
// that ended it.

import { writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { StatusError } from "../base/status.ts";
import type { KeyValueOperation } from "../kv/key-value-store.ts";
import { LmdbStore } from "../kv/lmdb-store.ts";
import { decodeLeases } from "./lease-record.ts";
import { IndexFlag } from "./blob-index.ts";
import { ReadEntry, readGroup, withoutPlaces } from "./entry-groups.ts";
import { decodeOldEntry } from "./entry-migration.ts";
import { checksumsKey, dataKey, decodeChecksums, GROUP_TABLE } from "./records.ts";

const OPERATIONS_PER_COMMIT = 2000;
/** A record that nobody reads, in no table. */
const PROBE = { type: "put", key: Uint8Array.from([0x7a]), value: Uint8Array.from([1]) } as const;
/** How often the walk looks at the time and says where it is. */
const REPORT_EVERY = 1000;

/** How the walk ended when it ended by itself; what it said on stderr is the reason. */
export const ExitCode = {
  DAMAGED: 3,
  /** Not the file's fault. */
  NOT_OPENABLE: 4,
} as const;

/** `walk PATH LIMIT_MS`, `create PATH` or `salvage PATH NEW_PATH FROM_HEX`; returns the exit code. */
export async function runIndexCheck(args: readonly string[]): Promise<number> {
  const [command, path = "", third = "", from = ""] = args;
  try {
    if (command === "walk") return await walk(path, Number(third));
    if (command === "create") return await create(path);
    if (command === "salvage") return await salvage(path, third, Buffer.from(from, "hex"));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof StatusError ? ExitCode.NOT_OPENABLE : ExitCode.DAMAGED;
  }
  process.stderr.write(`ledge check-index: unknown command ${JSON.stringify(command)}\n`);
  return 2;
}

async function create(path: string): Promise<number> {
  const store = LmdbStore.open({ path });
  await store.write([PROBE]);
  await store.close();
  return 0;
}

async function walk(path: string, limitMs: number): Promise<number> {
  const store = LmdbStore.open({ path });
  const endMs = performance.now() + limitMs;
  let count = 0;
  // The small tables first: they are read by every start, and the limit may end the walk in the large one.
  for (const [begin, end] of [
    ["e", "z"],
    ["a", "d"],
    ["d", "e"],
  ] as const) {
    for (const _key of store.keys({ from: Buffer.from(begin), to: Buffer.from(end) })) {
      if (++count % REPORT_EVERY === 0 && performance.now() > endMs) return 0;
    }
  }
  // A page of nonsense may read as an empty one.
  if (count !== store.entryCount) throw new Error(`${count} of ${store.entryCount} records can be reached`);
  // Only a commit reads the list of free pages.
  await store.write([PROBE]);
  await store.write([{ type: "delete", key: PROBE.key }]);
  await store.close();
  return 0;
}

async function salvage(path: string, newPath: string, from: Uint8Array): Promise<number> {
  const old = LmdbStore.open({ path });
  const young = LmdbStore.open({ path: newPath });
  let operations: KeyValueOperation[] = [];
  let lost = 0;
  const flush = async (lastKey: Uint8Array) => {
    await young.write(operations);
    operations = [];
    writeSync(1, `${Buffer.from(lastKey).toString("hex")} ${lost}\n`);
  };
  for (const entry of old.range({ from: from.length === 0 ? Uint8Array.from([0]) : from })) {
    const key = new Uint8Array(entry.key);
    const value = new Uint8Array(entry.value);
    if (isWhole(key, value)) operations.push({ type: "put", key, value });
    else lost++;
    if (operations.length >= OPERATIONS_PER_COMMIT) await flush(key);
  }
  await flush(Uint8Array.from([0xff]));
  await dropEntriesWithoutBytes(young);
  await young.close();
  return 0;
}

function isWhole(key: Uint8Array, value: Uint8Array): boolean {
  switch (key[0]) {
    case 0x65:
      return readGroup(key, value, new ReadEntry(), () => undefined);
    case 0x6d:
      return decodeOldEntry(key, value) !== undefined;
    case 0x64:
      return (
        key.length === 7 && value.length >= 4 && Buffer.from(value.buffer).readUInt32LE(0) === crc32(value.subarray(4))
      );
    case 0x63:
      return key.length === 34 && decodeChecksums(value) !== undefined;
    case 0x61:
      return key.length === 7;
    case 0x6c:
      return key.length === 1 && decodeLeases(value) !== undefined;
    case 0x69:
    case 0x6e:
      return key.length === 1 && value.length === 6;
    case 0x72:
      // Without it the next start would take files that lost their records for leftovers.
      return key.length === 1;
    default:
      return false;
  }
}

/** An entry is kept only when its bytes or its checksums were. */
async function dropEntriesWithoutBytes(store: LmdbStore): Promise<void> {
  const operations: KeyValueOperation[] = [];
  const entry = new ReadEntry();
  for (const borrowed of store.range(GROUP_TABLE)) {
    const key = new Uint8Array(borrowed.key);
    const value = new Uint8Array(borrowed.value);
    const gone = new Set<number>();
    readGroup(key, value, entry, () => {
      const isFile = (entry.flags & IndexFlag.FILE) !== 0;
      const bytesKey = isFile ? checksumsKey(entry.kind, entry.words, 0) : dataKey(entry.place);
      if (store.get(bytesKey) === undefined) gone.add(entry.place);
    });
    if (gone.size === 0) continue;
    const left = withoutPlaces(value, Buffer.from(key).readUIntBE(1, 6), gone);
    if (left === undefined || left.length === 0) operations.push({ type: "delete", key });
    else operations.push({ type: "put", key, value: left });
  }
  await store.write(operations);
}
