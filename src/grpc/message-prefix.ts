// The five octets before each message: a flag and the length in network order (G-20).

export const PREFIX_BYTES = 5;

/** Fills `prefix` for an uncompressed message. */
export function putMessagePrefix(prefix: Uint8Array, sizeBytes: number): void {
  prefix[0] = 0;
  prefix[1] = sizeBytes >>> 24;
  prefix[2] = sizeBytes >>> 16;
  prefix[3] = sizeBytes >>> 8;
  prefix[4] = sizeBytes;
}

export function messagePrefix(sizeBytes: number): Uint8Array {
  const prefix = new Uint8Array(PREFIX_BYTES);
  putMessagePrefix(prefix, sizeBytes);
  return prefix;
}
