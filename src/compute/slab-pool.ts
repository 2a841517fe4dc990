// Slabs for uploads: buffers that are filled on the event loop, hashed and written on a thread, and come back.

/**
 * One slab is one job. At half of it the hop (about 40 µs for both ways) is a tenth of the work; much larger ones make
 * the first byte of an upload wait longer and cost memory while clients are silent.
 */
export const SLAB_BYTES = 512 * 1024;

/** Kept for reuse: enough for 16 busy uploads with two slabs each. More are allocated and dropped. */
const MAX_FREE_SLABS = 32;

export class SlabPool {
  #free: ArrayBuffer[] = [];

  take(): ArrayBuffer {
    return this.#free.pop() ?? new ArrayBuffer(SLAB_BYTES);
  }

  give(slab: ArrayBuffer): void {
    if (slab.byteLength === SLAB_BYTES && this.#free.length < MAX_FREE_SLABS) this.#free.push(slab);
  }
}
