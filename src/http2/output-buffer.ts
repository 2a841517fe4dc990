// Collects what a connection sends until the next flush (P-20).
//
// Small things are written into a slab, large payloads are taken by reference, and both keep their order:
//
//   slab:     [HEADERS DATA-header prefix][          ][DATA-header] …
//   pieces:    └ slice ┘                   └ payload ┘ └ slice ┘
//
// Invariant: a slab goes back to the pool only when its octets have been taken by the kernel (P-21); the driver says so.

const SLAB_BYTES = 64 * 1024;

/** Slabs that wait for reuse, over all connections; flushes are synchronous, so a few do. */
const MAX_POOLED_SLABS = 16;

/** Payloads from this size on are not copied. Measured in the document's section 7.3: equal between 1 and 4 KiB. */
export const BY_REFERENCE_BYTES = 2048;

const pool: Buffer[] = [];

export class OutputBuffer {
  #pieces: Uint8Array[] = [];
  #slab: Buffer | undefined;
  #usedSlabs: Buffer[] = [];
  /** Slab octets from #sliceStart to #at are not in #pieces yet. */
  #sliceStart = 0;
  #at = 0;
  #queuedBytes = 0;
  /** Who wants to know when octets appended before have been taken by the kernel: not handed out yet, and handed out. */
  #waiting: (() => void)[] = [];
  #handedOut: (() => void)[] = [];

  /** Octets that have not been taken. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Returns a slab with room for `sizeBytes` from `offset` on; the caller fills exactly that much. */
  reserve(sizeBytes: number): Buffer {
    if (this.#slab === undefined || this.#at + sizeBytes > this.#slab.length) this.#nextSlab(sizeBytes);
    this.#at += sizeBytes;
    this.#queuedBytes += sizeBytes;
    return this.#slab!;
  }

  /** Where the octets reserved last begin, given how many they are. */
  offsetOf(sizeBytes: number): number {
    return this.#at - sizeBytes;
  }

  /** Appends `octets`: copied when small, else by reference; then they must not change until taken. */
  append(octets: Uint8Array): void {
    const sizeBytes = octets.length;
    if (sizeBytes < BY_REFERENCE_BYTES) {
      const slab = this.reserve(sizeBytes);
      slab.set(octets, this.#at - sizeBytes);
      return;
    }
    this.#closeSlice();
    this.#pieces.push(octets);
    this.#queuedBytes += sizeBytes;
  }

  /** Calls `written` when the kernel has what was appended until now; never, when the connection ends before. */
  onWritten(written: () => void): void {
    this.#waiting.push(written);
  }

  /** Hands out everything in order, to be written at once. */
  take(): readonly Uint8Array[] {
    this.#closeSlice();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#queuedBytes = 0;
    if (this.#slab !== undefined) this.#usedSlabs.push(this.#slab);
    this.#slab = undefined;
    if (this.#waiting.length > 0) this.#handedOut.push(...this.#waiting.splice(0));
    return pieces;
  }

  /** The kernel has all octets ever taken: the slabs of the last `take` can be used again. */
  recycle(): void {
    if (this.#handedOut.length > 0) for (const written of this.#handedOut.splice(0)) written();
    for (const slab of this.#usedSlabs)
      if (pool.length < MAX_POOLED_SLABS && slab.length === SLAB_BYTES) pool.push(slab);
    this.#usedSlabs.length = 0;
  }

  /** The octets of the last `take` are still in use: their slabs are left to the collector. */
  abandon(): void {
    this.#usedSlabs.length = 0;
  }

  #nextSlab(sizeBytes: number): void {
    this.#closeSlice();
    if (this.#slab !== undefined) this.#usedSlabs.push(this.#slab);
    this.#slab =
      sizeBytes > SLAB_BYTES ? Buffer.allocUnsafeSlow(sizeBytes) : (pool.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES));
    this.#sliceStart = 0;
    this.#at = 0;
  }

  #closeSlice(): void {
    if (this.#slab === undefined || this.#at === this.#sliceStart) return;
    this.#pieces.push(this.#slab.subarray(this.#sliceStart, this.#at));
    this.#sliceStart = this.#at;
  }
}
