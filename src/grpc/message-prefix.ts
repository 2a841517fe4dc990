// The five octets before each response message: not compressed, length in network order (G-20).

export function messagePrefix(sizeBytes: number): Uint8Array {
  const prefix = new Uint8Array(5);
  prefix[1] = sizeBytes >>> 24;
  prefix[2] = sizeBytes >>> 16;
  prefix[3] = sizeBytes >>> 8;
  prefix[4] = sizeBytes;
  return prefix;
}
