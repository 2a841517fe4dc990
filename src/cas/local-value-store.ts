// Small values of other kinds in the same index as blobs: action results, opaque records.

import { WORDS_PER_HASH } from "../digest/digest-batch.ts";
import { toHex } from "../compute/hash.ts";
import { formatBytes } from "../base/units.ts";
import { Code, StatusError } from "../base/status.ts";
import type { EntryName } from "./entry-table.ts";
import { lockName, type StoreCore } from "./store-core.ts";
import type { ValueKind, ValueStore } from "./value-store.ts";

/** A value is held whole in memory and in one transaction; action results are far smaller. */
const MAX_VALUE_BYTES = 64 * 1024 * 1024;

export class LocalValueStore implements ValueStore {
  readonly #core: StoreCore;

  constructor(core: StoreCore) {
    this.#core = core;
  }

  get(kind: ValueKind, key: Uint8Array): Uint8Array | undefined {
    const { table } = this.#core;
    const name = nameOf(kind, key);
    const slot = table.find(kind, name.words, 0);
    if (slot < 0) return undefined;
    table.touch(slot, table.accessClock.now());
    const data = table.readInline(slot);
    if (data === undefined) void this.#core.dropDamaged(name, "its bytes are not those that were stored");
    return data;
  }

  async put(kind: ValueKind, key: Uint8Array, value: Uint8Array): Promise<void> {
    if (value.length > MAX_VALUE_BYTES) {
      throw new StatusError(
        Code.RESOURCE_EXHAUSTED,
        `Cannot store a value of ${formatBytes(value.length)}: at most ${formatBytes(MAX_VALUE_BYTES)} are accepted`,
      );
    }
    const name = nameOf(kind, key);
    if (!this.#core.hasRoomFor("inline", value.length)) await this.#core.reserve("inline", value.length);
    await this.#core.locks.run(lockName(name), () => this.#core.table.putInline(name, value));
  }

  async delete(kind: ValueKind, key: Uint8Array): Promise<boolean> {
    const name = nameOf(kind, key);
    return this.#core.locks.run(lockName(name), async () => {
      const slot = this.#core.table.find(kind, name.words, 0);
      if (slot < 0) return false;
      const sizeBytes = this.#core.table.index.at.sizeAt(slot);
      await this.#core.removeEntries([{ kind, words: name.words, sizeBytes, isFile: false }]);
      return true;
    });
  }
}

/** `key` is 32 bytes: it takes the place of a hash. */
function nameOf(kind: ValueKind, key: Uint8Array): EntryName {
  if (key.length !== 32) throw new RangeError(`a value's key has 32 bytes, "${toHex(key)}" has ${key.length}`);
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  const words = new Uint32Array(WORDS_PER_HASH);
  for (let word = 0; word < WORDS_PER_HASH; word++) words[word] = view.getUint32(word * 4);
  return { kind, words, offset: 0 };
}
