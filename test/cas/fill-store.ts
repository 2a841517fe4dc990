// Fills a store with blobs that follow from their numbers, for measures of large stores: far faster than by uploads.
//
// Usage: node test/cas/fill-store.ts DATA_DIR SMALL_BLOBS [FILES]. Files are sparse. Nothing was asked for since 2025, so
// all of it may be evicted.

import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import {
  NUMBERED_FILE_BYTES,
  numberedBlob,
  numberedFileHash,
  numberedFileHead,
} from "../../native-free-bench/storage/numbered-blobs.ts";
import { ManualClock } from "../../src/base/clock.ts";
import { checkDataVersion } from "../../src/cas/data-version.ts";
import { EntryTable, type InlineEntry } from "../../src/cas/entry-table.ts";
import { FileStore } from "../../src/cas/file-store.ts";
import { COUNT_KEY, encodeNumber } from "../../src/cas/records.ts";
import { hashHex } from "../../src/compute/hash.ts";
import { hexToWords, WORDS_PER_HASH } from "../../src/digest/digest-batch.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { LmdbStore } from "../../src/kv/lmdb-store.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

const ENTRIES_PER_COMMIT = 5000;
const COMMITS_AT_ONCE = 3;
const fn = DigestFunction.SHA256;

const [dataDir = "", smallBlobs = "0", files = "0"] = process.argv.slice(2);
mkdirSync(dataDir, { recursive: true });
await checkDataVersion(dataDir);
const fileStore = await FileStore.open(dataDir);
const store = LmdbStore.open({ path: join(dataDir, "index.mdb") });
const table = new EntryTable({
  store,
  clock: new ManualClock(Date.UTC(2025, 0, 1)),
  logger: silentLogger,
  metrics: new MetricsRegistry(),
  leaseMs: 0,
  leaseBudgetBytes: 0,
});
await table.load();
await putSmallBlobs(Number(smallBlobs));
await putFiles(Number(files));
await table.drain();
// As the stop of a server does.
await store.write([{ type: "put", key: COUNT_KEY, value: encodeNumber(table.index.count) }]);
await fileStore.close();
await store.close();

async function putSmallBlobs(count: number): Promise<void> {
  const numbers = Array.from({ length: count }).keys();
  const work = async (): Promise<void> => {
    for (let entries = nextEntries(numbers); entries.length > 0; entries = nextEntries(numbers)) {
      await table.putAllInline(entries);
    }
  };
  await Promise.all(Array.from({ length: COMMITS_AT_ONCE }, work));
}

function nextEntries(numbers: Iterator<number>): InlineEntry[] {
  const entries: InlineEntry[] = [];
  while (entries.length < ENTRIES_PER_COMMIT) {
    const { value, done } = numbers.next();
    if (done === true) break;
    const data = new Uint8Array(numberedBlob(value));
    entries.push({ name: nameOf(hashHex(fn, data)), data });
  }
  return entries;
}

async function putFiles(count: number): Promise<void> {
  const zeros = Buffer.alloc(NUMBERED_FILE_BYTES);
  for (let number = 0; number < count; number += 100) {
    const group = Array.from({ length: Math.min(100, count - number) }, (_, index) => number + index);
    await Promise.all(
      group.map((file) => {
        const head = numberedFileHead(file);
        const hash = numberedFileHash(file);
        const path = fileStore.pathOf(fn, hash);
        mkdirSync(dirname(path), { recursive: true });
        const descriptor = openSync(path, "w", 0o444);
        writeSync(descriptor, head);
        ftruncateSync(descriptor, NUMBERED_FILE_BYTES);
        closeSync(descriptor);
        const checksums = Uint32Array.of(crc32(zeros.subarray(head.length), crc32(head)));
        return table.putFile(nameOf(hash), NUMBERED_FILE_BYTES, checksums);
      }),
    );
  }
}

function nameOf(hash: string): InlineEntry["name"] {
  const words = new Uint32Array(WORDS_PER_HASH);
  hexToWords(hash, words, 0);
  return { kind: fn, words, offset: 0 };
}
