// Slabs for uploads: buffers that are filled on the event loop, hashed and written on a thread, and come back.

/**
 * One slab is one job. At half of it the hop (about 40 µs for both ways) is a tenth of the work; much larger ones make
 * the first byte of an upload wait longer and cost memory while clients are silent.
 */
export const SLAB_BYTES = 512 * 1024;

/** Kept for reuse: enough for 16 busy uploads with two slabs each. More are allocated and dropped. */
const MAX_FREE_SLABS = 32;

/**
 * Slabs being filled, 64 MiB in all. Beyond it the upload that began to fill its slab first sends it away as it is, so
 * that a hundred thousand silent uploads hold a few slabs and not one each.
 */
export const MAX_HELD_SLABS = 128;

/** Somebody with a slab that is not full yet. */
export interface SlabHolder {
  /** Sends the slab to its thread now; calls `letGo`. */
  flush(): void;
}

export class SlabPool {
  #free: ArrayBuffer[] = [];
  /** In the order in which they took their slab. */
  readonly #holders = new Set<SlabHolder>();

  get heldSlabs(): number {
    return this.#holders.size;
  }

  take(holder: SlabHolder): ArrayBuffer {
    if (this.#holders.size >= MAX_HELD_SLABS)
      for (const oldest of this.#holders) return this.#takeAfter(oldest, holder);
    this.#holders.add(holder);
    return this.#free.pop() ?? (Buffer.allocUnsafeSlow(SLAB_BYTES).buffer as ArrayBuffer);
  }

  /** The holder's slab is full, on its way, or dropped. */
  letGo(holder: SlabHolder): void {
    this.#holders.delete(holder);
  }

  /** A slab came back. */
  give(slab: ArrayBuffer): void {
    if (slab.byteLength === SLAB_BYTES && this.#free.length < MAX_FREE_SLABS) this.#free.push(slab);
  }

  #takeAfter(oldest: SlabHolder, holder: SlabHolder): ArrayBuffer {
    oldest.flush();
    this.#holders.delete(oldest);
    return this.take(holder);
  }
}
