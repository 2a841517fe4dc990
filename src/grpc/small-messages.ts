// Storage for small request messages, cut from a slab: a typed array of its own costs more than the handler's work.
//
// A message keeps its whole slab alive, so slabs are small and large messages do not come here: at worst a call
// that waits for hours pins SLAB_BYTES.

import { allocateMessage } from "./message-reader.ts";

const SLAB_BYTES = 16 * 1024;
const MAX_SMALL_BYTES = 2048;

let slab = new Uint8Array(SLAB_BYTES);
let used = 0;

/** Storage of `sizeBytes` that nobody else writes to; its content is undefined. */
export function allocateSmall(sizeBytes: number): Uint8Array {
  if (sizeBytes > MAX_SMALL_BYTES) return allocateMessage(sizeBytes);
  if (used + sizeBytes > SLAB_BYTES) {
    slab = new Uint8Array(SLAB_BYTES);
    used = 0;
  }
  const start = used;
  // 8-octet steps keep views aligned for whoever reads numbers from them.
  used = (used + sizeBytes + 7) & ~7;
  return slab.subarray(start, start + sizeBytes);
}
