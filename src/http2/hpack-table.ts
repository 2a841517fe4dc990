// The decoder's dynamic table (RFC 7541 section 2.3.2): a ring of slots, newest entry at the head.
//
//   slot:  … │ oldest │ … │ newest │ free …      index 62 = newest, 63 = the one before it
//
// Inserting and evicting are O(1) (H-11). An entry needs at least 32 octets of the table's size, so 128 slots hold
// whatever 4096 octets can. The slots are made on the first insertion: an idle connection costs nothing.

/** Octets that every entry counts beyond its name and value. */
export const ENTRY_OVERHEAD_BYTES = 32;

/** Our SETTINGS_HEADER_TABLE_SIZE is the default and never changes. */
export const MAX_TABLE_BYTES = 4096;

const SLOTS = MAX_TABLE_BYTES / ENTRY_OVERHEAD_BYTES;

export class HpackTable {
  #names: string[] = [];
  #values: string[] = [];
  /** 1 when name and value are valid field content, 0 when not; a property of the octets, so it may be kept (H-8). */
  #valid: Uint8Array = new Uint8Array(0);
  #newest = 0;
  #count = 0;
  #sizeBytes = 0;
  #maxBytes = MAX_TABLE_BYTES;

  get count(): number {
    return this.#count;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** `index` counts from 0, the newest. */
  name(index: number): string {
    return this.#names[(this.#newest + SLOTS - index) % SLOTS]!;
  }

  value(index: number): string {
    return this.#values[(this.#newest + SLOTS - index) % SLOTS]!;
  }

  isValid(index: number): boolean {
    return this.#valid[(this.#newest + SLOTS - index) % SLOTS] === 1;
  }

  /** An entry larger than the table empties it and is not stored. */
  insert(name: string, value: string, valid: boolean): void {
    const entryBytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    while (this.#count > 0 && this.#sizeBytes + entryBytes > this.#maxBytes) this.#evict();
    if (entryBytes > this.#maxBytes) return;
    if (this.#valid.length === 0) {
      this.#names = Array.from({ length: SLOTS }, () => "");
      this.#values = Array.from({ length: SLOTS }, () => "");
      this.#valid = new Uint8Array(SLOTS);
    }
    this.#newest = (this.#newest + 1) % SLOTS;
    this.#names[this.#newest] = name;
    this.#values[this.#newest] = value;
    this.#valid[this.#newest] = valid ? 1 : 0;
    this.#count++;
    this.#sizeBytes += entryBytes;
  }

  resize(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    while (this.#sizeBytes > maxBytes) this.#evict();
  }

  #evict(): void {
    const oldest = (this.#newest + SLOTS - this.#count + 1) % SLOTS;
    this.#sizeBytes -= this.#names[oldest]!.length + this.#values[oldest]!.length + ENTRY_OVERHEAD_BYTES;
    this.#names[oldest] = "";
    this.#values[oldest] = "";
    this.#count--;
  }
}
