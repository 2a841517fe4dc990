// Deadlines of calls on one timer (G-41, P-31).
//
// A ring of slots, one per tick; an entry sits in the slot of its last tick and is skipped while later turns are due:
//
//   slot:   0   1   2   …   511      one tick = 20 ms, one turn = 10.24 s
//           │   └─ entries whose time comes in this tick of some turn
//           └─ #slot moves one ahead per tick
//
// Adding and removing are O(1) and make no timer; deadlines are met up to one tick late. The interval runs only while
// entries exist, and never keeps the process alive.

const TICK_MS = 20;
const SLOTS = 512;

export interface DeadlineEntry {
  readonly atMs: number;
  readonly onDeadline: () => void;
}

export class DeadlineWheel {
  readonly #slots: Set<DeadlineEntry>[] = Array.from({ length: SLOTS }, () => new Set<DeadlineEntry>());
  #timer: NodeJS.Timeout | undefined;
  #lastTick = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Calls `onDeadline` once, `delayMs` from now or up to a tick later. */
  add(delayMs: number, onDeadline: () => void): DeadlineEntry {
    const entry = { atMs: performance.now() + delayMs, onDeadline };
    if (this.#timer === undefined) {
      this.#lastTick = Math.floor(performance.now() / TICK_MS);
      this.#timer = setInterval(() => this.#turn(), TICK_MS);
      this.#timer.unref();
    }
    this.#slotOf(entry).add(entry);
    this.#size++;
    return entry;
  }

  remove(entry: DeadlineEntry): void {
    if (!this.#slotOf(entry).delete(entry)) return;
    this.#size--;
    if (this.#size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The slot is that of the first tick that starts at or after the deadline. */
  #slotOf(entry: DeadlineEntry): Set<DeadlineEntry> {
    const slot = this.#slots[Math.ceil(entry.atMs / TICK_MS) % SLOTS];
    if (slot === undefined) throw new Error("unreachable: the ring has every slot");
    return slot;
  }

  #turn(): void {
    const nowMs = performance.now();
    const tick = Math.floor(nowMs / TICK_MS);
    // After a stall of more than a turn every slot is visited once.
    const first = Math.max(this.#lastTick + 1, tick - SLOTS + 1);
    this.#lastTick = tick;
    for (let at = first; at <= tick; at++) {
      for (const entry of this.#slots[at % SLOTS] ?? []) {
        if (entry.atMs > nowMs) continue;
        this.remove(entry);
        entry.onDeadline();
      }
    }
  }
}
