// Keeps the order of last access, and leases, across restarts: what was touched is appended to a log, a batch at a time.
//
// A chunk of the log: u8 0xff, u32 epoch of the leases, then for each entry u8 kind, 32 bytes of hash, u32 access, u16 number
// of its lease or 0. (Without that head and the numbers in older stores.) Later chunks win. When the log holds twice as much
// as there are entries, or leases got new numbers, it is written anew and the old chunks are deleted. Losing the last minute
// of it in a crash costs a slightly worse choice of victims, the leases of that minute, and nothing else.

import type { Clock } from "../base/clock.ts";
import type { KeyValueOperation, KeyValueStore } from "../kv/key-value-store.ts";
import type { Logger } from "../telemetry/log.ts";
import { IndexFlag } from "./blob-index.ts";
import type { EntryTable } from "./entry-table.ts";
import type { IndexSegment } from "./index-segment.ts";
import { NO_LEASE } from "./lease-context.ts";
import { encodeLeases, LEASES_KEY } from "./lease-record.ts";
import { ACCESS_TABLE, accessKey, COUNT_KEY, decodeNumber, encodeNumber, SYNC_MARK_KEY } from "./records.ts";

const SAVE_EVERY_MS = 60_000;
const HEAD = 0xff;
const HEAD_BYTES = 5;
const RECORD_BYTES = 39;
const RECORD_BYTES_WITHOUT_LEASE = 37;
/** 160 KB: a commit of its own, small beside what others write meanwhile. */
const RECORDS_PER_CHUNK = 4096;
const SLACK_RECORDS = 10_000;

export class AccessLog {
  readonly #table: EntryTable;
  readonly #store: KeyValueStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #nextChunk = 1;
  #oldestChunk = 1;
  #records = 0;
  /** Of the numbers in the log. */
  #epoch: number;
  #saving: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;

  constructor(options: { table: EntryTable; store: KeyValueStore; clock: Clock; logger: Logger }) {
    this.#table = options.table;
    this.#store = options.store;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#epoch = options.table.invocations.epoch;
  }

  /** What was asked for since then may not have been on the disk when the server ended; 0 = everything. */
  get syncMark(): number {
    const value = this.#store.get(SYNC_MARK_KEY);
    return value?.length === 6 ? decodeNumber(value) : 0;
  }

  /** Applies the log to the loaded index and begins to save. */
  async start(): Promise<void> {
    let first = true;
    for (const { key, value } of this.#store.range(ACCESS_TABLE)) {
      const number = Buffer.from(key).readUIntBE(1, 6);
      if (first) this.#oldestChunk = number;
      first = false;
      this.#nextChunk = number + 1;
      this.#apply(value);
      await breathe();
    }
    this.#schedule();
  }

  /** Appends what was touched since the last time. */
  save(): Promise<void> {
    this.#saving ??= this.#save().finally(() => (this.#saving = undefined));
    return this.#saving;
  }

  async close(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    // A full disk must not keep the server from stopping; the order is as of the last save then.
    await this.save().catch((error: unknown) =>
      this.#logger.warn("cannot save access times", { reason: String(error) }),
    );
  }

  #schedule(): void {
    this.#cancelTimer = this.#clock.schedule(SAVE_EVERY_MS, () => {
      this.save()
        .catch((error: unknown) => this.#logger.warn("cannot save access times", { reason: String(error) }))
        .finally(() => {
          if (this.#cancelTimer !== undefined) this.#schedule();
        });
    });
  }

  async #save(): Promise<void> {
    if (!this.#table.isLoaded) return;
    const { index, invocations } = this.#table;
    const isAnew = this.#records > 2 * index.count + SLACK_RECORDS || this.#epoch !== invocations.epoch;
    this.#epoch = invocations.epoch;
    // Numbers in the log must be in the record, and the other way round does no harm.
    await this.#saveInvocations();
    const firstOfThis = this.#nextChunk;
    // What is stored from now on may become durable after the mark.
    const mark = this.#table.accessClock.now();
    if (isAnew) this.#records = 0;
    let chunk = new ChunkWriter(this.#epoch);
    // Numbers given anew meanwhile are of the next epoch, and the next save writes all of them.
    const leaseAt = (segment: IndexSegment, slot: number) =>
      this.#epoch === invocations.epoch ? invocations.numberIfLeased(segment.leaseAt(slot)) : NO_LEASE;
    for (let step = 0; step < index.walkLength; step++) {
      index.visit(step, (segment, slot) => {
        const flags = segment.flagsAt(slot);
        if (!isAnew && (flags & IndexFlag.TOUCHED) === 0) return;
        segment.setFlags(slot, flags & ~IndexFlag.TOUCHED);
        segment.readHash(slot, chunk.words);
        chunk.add({ kind: segment.kindAt(slot), access: segment.accessAt(slot), lease: leaseAt(segment, slot) });
      });
      if (chunk.count >= RECORDS_PER_CHUNK) {
        await this.#append(chunk);
        chunk = new ChunkWriter(this.#epoch);
      }
      await breathe();
    }
    if (chunk.count > 0) await this.#append(chunk);
    if (isAnew) await this.#deleteBefore(firstOfThis);
    await this.#saveInvocations();
    await this.#store.write([
      { type: "put", key: SYNC_MARK_KEY, value: encodeNumber(mark) },
      { type: "put", key: COUNT_KEY, value: encodeNumber(index.count) },
    ]);
  }

  async #saveInvocations(): Promise<void> {
    const value = encodeLeases(this.#table.invocations.save());
    await this.#store.write([{ type: "put", key: LEASES_KEY, value }]);
  }

  async #append(chunk: ChunkWriter): Promise<void> {
    this.#records += chunk.count;
    await this.#store.write([{ type: "put", key: accessKey(this.#nextChunk++), value: chunk.bytes() }]);
  }

  async #deleteBefore(end: number): Promise<void> {
    const operations: KeyValueOperation[] = [];
    for (let number = this.#oldestChunk; number < end; number++)
      operations.push({ type: "delete", key: accessKey(number) });
    this.#oldestChunk = end;
    await this.#store.write(operations);
  }

  #apply(value: Uint8Array): void {
    const view = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    const words = new Uint32Array(8);
    const { index, accessClock } = this.#table;
    const hasLeases = view[0] === HEAD;
    const epoch = hasLeases ? view.readUInt32LE(1) : 0;
    const recordBytes = hasLeases ? RECORD_BYTES : RECORD_BYTES_WITHOUT_LEASE;
    for (let at = hasLeases ? HEAD_BYTES : 0; at + recordBytes <= view.length; at += recordBytes) {
      for (let word = 0; word < 8; word++) words[word] = view.readUInt32BE(at + 1 + word * 4);
      const slot = index.find(view.readUInt8(at), words, 0);
      this.#records++;
      if (slot < 0) continue;
      const access = view.readUInt32LE(at + 33);
      if (access < index.at.accessAt(slot)) continue;
      if (hasLeases) this.#table.restoreLease(slot, { epoch, lease: view.readUInt16LE(at + 37) });
      index.at.setAccess(slot, access);
      accessClock.advanceTo(access);
    }
  }
}

class ChunkWriter {
  readonly words = new Uint32Array(8);
  count = 0;
  #buffer = Buffer.allocUnsafe(HEAD_BYTES + 64 * RECORD_BYTES);

  constructor(epoch: number) {
    this.#buffer.writeUInt8(HEAD, 0);
    this.#buffer.writeUInt32LE(epoch, 1);
  }

  /** Adds the hash in `words`. */
  add({ kind, access, lease }: { readonly kind: number; readonly access: number; readonly lease: number }): void {
    const at = HEAD_BYTES + this.count * RECORD_BYTES;
    if (at + RECORD_BYTES > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(this.#buffer.length * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer.writeUInt8(kind, at);
    for (let word = 0; word < 8; word++) this.#buffer.writeUInt32BE(this.words[word] as number, at + 1 + word * 4);
    this.#buffer.writeUInt32LE(access, at + 33);
    this.#buffer.writeUInt16LE(lease, at + 37);
    this.count++;
  }

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, HEAD_BYTES + this.count * RECORD_BYTES);
  }
}

function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
