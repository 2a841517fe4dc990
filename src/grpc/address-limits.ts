// What one client address may take: connections at once, and TLS handshakes a second (L-16, A-33).
//
// Pure: given the time. Invariant: an address is remembered while it has connections, and for a few seconds after a
// handshake. IPv6 addresses count by their /64, which one machine has whole. Unix and inherited sockets have no address.

/** L-16. Hundreds, since one NAT may stand before a whole office, and clients open several (C-32). */
const DEFAULT_CONNECTIONS = 512;

/** A handshake costs about a millisecond of CPU. The burst lets an office come back after a restart. */
const HANDSHAKES_PER_SECOND = 50;
const HANDSHAKE_BURST = 200;
const REFILL_MS = (1000 * HANDSHAKE_BURST) / HANDSHAKES_PER_SECOND;

/** Addresses remembered; more than there can be connections, so only handshakes of a flood fill it. Then all pass. */
const MAX_ADDRESSES = 65_536;

interface Address {
  connections: number;
  handshakes: number;
  refilledAtMs: number;
}

export interface AddressLimitOptions {
  /** Connections of one address; 0: any number. Absent: 512, and any number from this machine itself. */
  readonly maxConnections: number | undefined;
}

export class AddressLimits {
  readonly #maxConnections: number;
  readonly #exemptsLoopback: boolean;
  readonly #addresses = new Map<string, Address>();

  constructor({ maxConnections }: AddressLimitOptions) {
    this.#maxConnections = maxConnections ?? DEFAULT_CONNECTIONS;
    this.#exemptsLoopback = maxConnections === undefined;
  }

  /** Addresses that are remembered. */
  get size(): number {
    return this.#addresses.size;
  }

  /** Counts a connection of `remoteAddress`; false when it has as many as it may. Each true is owed a `close`. */
  open(remoteAddress: string | undefined, nowMs: number): boolean {
    const address = this.#find(remoteAddress, nowMs);
    if (address === undefined) return true;
    if (address.connections >= this.#maxConnections) return false;
    address.connections++;
    return true;
  }

  /** Counts a TLS handshake; false when there were too many of late. */
  handshake(remoteAddress: string | undefined, nowMs: number): boolean {
    const address = this.#find(remoteAddress, nowMs);
    if (address === undefined) return true;
    const refilled = ((nowMs - address.refilledAtMs) * HANDSHAKES_PER_SECOND) / 1000;
    address.handshakes = Math.min(HANDSHAKE_BURST, address.handshakes + refilled);
    address.refilledAtMs = nowMs;
    if (address.handshakes < 1) return false;
    address.handshakes--;
    return true;
  }

  close(remoteAddress: string | undefined): void {
    const address = this.#addresses.get(keyOf(remoteAddress));
    if (address !== undefined && address.connections > 0) address.connections--;
  }

  /** Forgets addresses without connections whose handshakes are long past. */
  tick(nowMs: number): void {
    for (const [key, { connections, refilledAtMs }] of this.#addresses) {
      if (connections === 0 && nowMs - refilledAtMs >= REFILL_MS) this.#addresses.delete(key);
    }
  }

  #find(remoteAddress: string | undefined, nowMs: number): Address | undefined {
    const key = keyOf(remoteAddress);
    if (key === "" || this.#maxConnections === 0 || (this.#exemptsLoopback && isLoopback(key))) return undefined;
    let address = this.#addresses.get(key);
    if (address === undefined && this.#addresses.size < MAX_ADDRESSES) {
      address = { connections: 0, handshakes: HANDSHAKE_BURST, refilledAtMs: nowMs };
      this.#addresses.set(key, address);
    }
    return address;
  }
}

/** `192.0.2.1`, or the first 64 bits of an IPv6 address; empty without an address. */
function keyOf(remoteAddress: string | undefined): string {
  if (remoteAddress === undefined || !remoteAddress.includes(":")) return remoteAddress ?? "";
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(remoteAddress)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = "", tail] = remoteAddress.split("%", 1)[0]!.split("::");
  const [first, last] = [head, tail ?? ""].map((part) => part.split(":").filter((group) => group !== ""));
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first!.length - last!.length);
  const groups = [...first!, ...Array<string>(zeros).fill("0"), ...last!];
  return groups.slice(0, 4).join(":") === "0:0:0:0" ? groups.join(":") : groups.slice(0, 4).join(":");
}

function isLoopback(key: string): boolean {
  return key.startsWith("127.") || key === "0:0:0:0:0:0:0:1";
}
