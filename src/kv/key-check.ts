// What every key-value store accepts as a key.

/** LMDB's own limit for pages of 4 KiB is larger; this one is that of the format, whatever stores it. */
export const MAX_KEY_BYTES = 511;

export function assertKey(key: Uint8Array): void {
  if (key.length === 0 || key.length > MAX_KEY_BYTES) {
    throw new RangeError(`a key has 1 to ${MAX_KEY_BYTES} bytes, this one has ${key.length}`);
  }
}
