// The Huffman code of HPACK (RFC 7541 appendix B).
//
// The code is canonical, so the lengths below define it: symbols sorted by (length, symbol) get consecutive codes.
// Decoding looks up the next 12 bits, which settle one or two symbols of what occurs in base64, paths and tokens (two at
// a time: a third less time on base64); longer codes are found by comparing with the last code of each length.

/** Bits of the code of each octet 0 to 255, and of EOS. */
// prettier-ignore
const CODE_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];

const EOS = 256;
const MAX_BITS = 30;

/** The code of each symbol, right-aligned. */
const CODES = new Uint32Array(257);
/** Symbols in order of their codes. */
const SORTED = new Uint16Array(257);
/** For each length: the code after its last one, left-aligned to 30 bits; and what maps a code to its place in SORTED. */
const LIMIT = new Uint32Array(MAX_BITS + 1);
const PLACE = new Int32Array(MAX_BITS + 1);
/** For the next 8 bits: symbol << 4 | bits, or 0 when the code is longer. */
const SHORT = new Uint16Array(256);
/** For the next 12 bits: second symbol << 16 | first << 8 | two symbols: 0x80 | bits; 0 when the first is longer than 8. */
const PAIR_BITS = 12;
const PAIRS = new Uint32Array(1 << PAIR_BITS);

buildTables();

function buildTables(): void {
  const symbols = CODE_BITS.map((_, symbol) => symbol).toSorted((a, b) => bitsOf(a) - bitsOf(b) || a - b);
  let code = 0;
  let bits = bitsOf(symbols[0] ?? 0);
  for (const [place, symbol] of symbols.entries()) {
    code *= 2 ** (bitsOf(symbol) - bits);
    bits = bitsOf(symbol);
    CODES[symbol] = code;
    SORTED[place] = symbol;
    PLACE[bits] = place - code;
    code++;
    LIMIT[bits] = code * 2 ** (MAX_BITS - bits);
    if (bits <= 8) SHORT.fill((symbol << 4) | bits, (code - 1) << (8 - bits), code << (8 - bits));
  }
  for (let prefix = 0; prefix < PAIRS.length; prefix++) PAIRS[prefix] = pairAt(prefix);
}

function pairAt(prefix: number): number {
  const first = SHORT[prefix >>> (PAIR_BITS - 8)] ?? 0;
  if (first === 0) return 0;
  const firstBits = first & 0xf;
  const restBits = PAIR_BITS - firstBits;
  const rest = (prefix << firstBits) & ((1 << PAIR_BITS) - 1);
  const second = SHORT[rest >>> (PAIR_BITS - 8)] ?? 0;
  if (second === 0 || (second & 0xf) > restBits) return ((first >>> 4) << 8) | firstBits;
  return ((second >>> 4) << 16) | ((first >>> 4) << 8) | 0x80 | (firstBits + (second & 0xf));
}

function bitsOf(symbol: number): number {
  return CODE_BITS[symbol] ?? 0;
}

/**
 * Decodes octets `start` to `end` into `out`, which has room for 8/5 of them. Returns the number of octets written, or -1
 * when the padding is no prefix of EOS, is longer than 7 bits, or EOS itself occurs (H-4).
 */
export function decodeHuffman(octets: Uint8Array, start: number, end: number, out: Uint8Array): number {
  // `window` holds the next `windowBits` bits, right-aligned; bits above them are garbage.
  let window = 0;
  let windowBits = 0;
  let at = start;
  let written = 0;
  for (;;) {
    while (windowBits < PAIR_BITS && at < end) {
      window = (window << 8) | octets[at++]!;
      windowBits += 8;
    }
    if (windowBits >= PAIR_BITS) {
      const pair = PAIRS[(window >>> (windowBits - PAIR_BITS)) & 0xfff]!;
      if (pair !== 0) {
        out[written++] = pair >>> 8;
        if ((pair & 0x80) !== 0) out[written++] = pair >>> 16;
        windowBits -= pair & 0x7f;
        continue;
      }
    }
    if (windowBits < 8) return finishHuffman(window, windowBits, out, written);
    const short = SHORT[(window >>> (windowBits - 8)) & 0xff]!;
    if (short !== 0) {
      out[written++] = short >>> 4;
      windowBits -= short & 0xf;
      continue;
    }
    // A long code: gather up to 30 bits as a number of their own, since the window may straddle 32 bits.
    let prefix = window & (2 ** windowBits - 1);
    let prefixBits = windowBits;
    let next = at;
    while (prefixBits < MAX_BITS && next < end) {
      prefix = prefix * 256 + octets[next++]!;
      prefixBits += 8;
    }
    const aligned =
      prefixBits >= MAX_BITS
        ? Math.floor(prefix / 2 ** (prefixBits - MAX_BITS))
        : (prefix + 1) * 2 ** (MAX_BITS - prefixBits) - 1;
    let bits = 9;
    while (bits < MAX_BITS && aligned >= LIMIT[bits]!) bits++;
    // What is missing at the end counts as ones: a code that needs it is padding, or an error.
    if (bits > prefixBits) return prefix === 2 ** prefixBits - 1 && prefixBits < 8 ? written : -1;
    const symbol = SORTED[Math.floor(aligned / 2 ** (MAX_BITS - bits)) + PLACE[bits]!]!;
    if (symbol === EOS) return -1;
    out[written++] = symbol;
    let restBits = prefixBits - bits;
    const rest = prefix % 2 ** restBits;
    // Whole octets that were gathered and not used go back.
    while (restBits >= 8 && next > at) {
      next--;
      restBits -= 8;
    }
    at = next;
    window = Math.floor(rest / 2 ** (prefixBits - bits - restBits));
    windowBits = restBits;
  }
}

/** Fewer than 8 bits are left: symbols of 5 to 7 bits, then padding. */
function finishHuffman(window: number, windowBits: number, out: Uint8Array, writtenBefore: number): number {
  let bits = windowBits;
  let written = writtenBefore;
  while (bits > 0) {
    const rest = window & ((1 << bits) - 1);
    if (rest === (1 << bits) - 1) return written;
    const short = SHORT[(rest << (8 - bits)) | ((1 << (8 - bits)) - 1)]!;
    const used = short & 0xf;
    if (short === 0 || used > bits) return -1;
    out[written++] = short >>> 4;
    bits -= used;
  }
  return written;
}

/** Encodes `octets`; for tests and clients, our responses are too short to gain. */
export function encodeHuffman(octets: Uint8Array): Uint8Array {
  const out: number[] = [];
  let window = 0;
  let windowBits = 0;
  for (const octet of octets) {
    for (let bit = bitsOf(octet) - 1; bit >= 0; bit--) {
      window = (window << 1) | ((CODES[octet]! >>> bit) & 1);
      if (++windowBits < 8) continue;
      out.push(window);
      window = 0;
      windowBits = 0;
    }
  }
  if (windowBits > 0) out.push((window << (8 - windowBits)) | ((1 << (8 - windowBits)) - 1));
  return Uint8Array.from(out);
}

/** The code of `symbol` for checks against the published table. */
export function huffmanCode(symbol: number): { readonly code: number; readonly bits: number } {
  return { code: CODES[symbol] ?? 0, bits: bitsOf(symbol) };
}
