// What is in the store: counts and bytes by kind, sizes and ages. For `ledge stats`.

import { TICK_MS } from "./access-clock.ts";
import { IndexFlag } from "./blob-index.ts";
import { diskBytes } from "./records.ts";
import type { StoreCore } from "./store-core.ts";

export interface StorageReport {
  readonly kinds: readonly KindReport[];
  /** Entries by size; `below` in bytes, the last one without a limit. */
  readonly sizes: readonly { readonly below: number; readonly count: number; readonly bytes: number }[];
  /** Entries by time since they were last asked for; `below` in milliseconds. */
  readonly ages: readonly { readonly below: number; readonly count: number; readonly bytes: number }[];
}

export interface KindReport {
  readonly kind: string;
  readonly count: number;
  readonly bytes: number;
  readonly diskBytes: number;
  readonly fileCount: number;
}

const KIND_NAMES: Readonly<Record<number, string>> = {
  1: "SHA256 blobs",
  9: "BLAKE3 blobs",
  16: "action results",
  17: "opaque values",
  18: "chunk lists",
};
const SIZE_LIMITS = [256, 4096, 32_768, 2 ** 20, 2 ** 24, 2 ** 28, Number.POSITIVE_INFINITY];
const AGE_LIMITS_MS = [60_000, 3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000, Number.POSITIVE_INFINITY];

export async function reportStorage(core: StoreCore): Promise<StorageReport> {
  const kinds = new Map<number, { count: number; bytes: number; diskBytes: number; fileCount: number }>();
  const sizes = SIZE_LIMITS.map((below) => ({ below, count: 0, bytes: 0 }));
  const ages = AGE_LIMITS_MS.map((below) => ({ below, count: 0, bytes: 0 }));
  const now = core.table.accessClock.now();
  const { index } = core.table;
  for (let step = 0; step < index.walkLength; step++) {
    index.visit(step, (segment, slot) => {
      const bytes = segment.sizeAt(slot);
      const isFile = (segment.flagsAt(slot) & IndexFlag.FILE) !== 0;
      const kind = kinds.get(segment.kindAt(slot)) ?? { count: 0, bytes: 0, diskBytes: 0, fileCount: 0 };
      kinds.set(segment.kindAt(slot), kind);
      kind.count++;
      kind.bytes += bytes;
      kind.diskBytes += diskBytes(bytes, isFile);
      if (isFile) kind.fileCount++;
      count(sizes, bytes, bytes);
      count(ages, (now - segment.accessAt(slot)) * TICK_MS, bytes);
    });
    await new Promise((resolve) => setImmediate(resolve));
  }
  const named = [...kinds].toSorted(([a], [b]) => a - b);
  return { kinds: named.map(([kind, facts]) => ({ kind: KIND_NAMES[kind] ?? `kind ${kind}`, ...facts })), sizes, ages };
}

function count(buckets: { below: number; count: number; bytes: number }[], value: number, bytes: number): void {
  const bucket = buckets.find(({ below }) => value < below);
  if (bucket === undefined) return;
  bucket.count++;
  bucket.bytes += bytes;
}
