// The grpc-timeout header: 1 to 8 digits and a unit (G-40).

const UNIT_MS: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** Node fires a timer with a larger delay after 1 ms. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** Parses `59882144u`; returns milliseconds (at most 2^31-1), or undefined when the text is malformed. */
export function parseTimeoutMs(text: string): number | undefined {
  const unitMs = UNIT_MS[text.charAt(text.length - 1)];
  if (unitMs === undefined || text.length < 2 || text.length > 9) return undefined;
  let amount = 0;
  for (let index = 0; index < text.length - 1; index++) {
    const digit = text.charCodeAt(index) - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    amount = amount * 10 + digit;
  }
  return Math.min(amount * unitMs, MAX_TIMEOUT_MS);
}
