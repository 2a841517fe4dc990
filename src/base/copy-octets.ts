// Copies octets out of a buffer that will be used again.
//
// Why a function: `slice()` copies for a Uint8Array, but on a Buffer, which is one to the compiler, it shares the memory.
// What arrives from sockets and files is often a Buffer, so `slice()` of octets is forbidden (test/tidy).

/** A Uint8Array of its own with the octets from `start` (default 0) to `end` (default: the end), whatever `octets` is. */
export function copyOctets(octets: Uint8Array, start = 0, end = octets.length): Uint8Array {
  return Uint8Array.prototype.slice.call(octets, start, end);
}
