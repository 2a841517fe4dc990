// Large buffers that are filled again and again: those of upload messages that end in memory.
//
// Why: fresh memory is a page fault for every 4 KiB. Filling 1 MiB of it took 350 to 700 µs, filling it again 37 µs, and
// SHA-256 of it 770 µs. Invariant: a buffer is given back by its only owner, once; what is in it is nobody's any more.
// Bounded: above MAX_KEPT_BYTES memory is freed at once, not left to the collector.

/** Half of a blob of 64 MiB: what an upload of the in-memory store evicts is what the next one fills. */
const MAX_KEPT_BYTES = 32 * 1024 * 1024;
const MAX_KEPT = 128;

/** Sizes are rounded up to this, so that messages of about the same size share buffers. Pages nobody touches cost nothing. */
const STEP_BYTES = 64 * 1024;

const kept: ArrayBuffer[] = [];
let keptBytes = 0;

/** A buffer of at least `sizeBytes`, not much more, with anything in it. */
export function takeLargeBuffer(sizeBytes: number): ArrayBuffer {
  const wantedBytes = Math.ceil(sizeBytes / STEP_BYTES) * STEP_BYTES;
  // The one given back last is still in the processor's cache.
  for (let index = kept.length - 1; index >= 0; index--) {
    const buffer = kept[index]!;
    if (buffer.byteLength !== wantedBytes) continue;
    const last = kept.pop()!;
    if (last !== buffer) kept[index] = last;
    keptBytes -= wantedBytes;
    return buffer;
  }
  return Buffer.allocUnsafeSlow(wantedBytes).buffer as ArrayBuffer;
}

/** Gives `buffer` up, wherever it comes from. */
export function giveLargeBuffer(buffer: ArrayBuffer): void {
  const { byteLength } = buffer;
  const fits = byteLength > 0 && byteLength % STEP_BYTES === 0;
  if (!fits || keptBytes + byteLength > MAX_KEPT_BYTES || kept.length >= MAX_KEPT) {
    buffer.transfer(0);
    return;
  }
  kept.push(buffer);
  keptBytes += byteLength;
}
