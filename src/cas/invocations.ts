// The table of invocations: who has a lease on blobs, until when, and on how many bytes.
//
// An invocation's lease ends some time after its last call. A blob's slot names one number; a blob that several live
// invocations touched names a number that stands for all of them, so it stays until the last of them ends. Leases are
// granted within a budget: above it the one whose last call is the longest ago is broken, and counted.
//
// What is alive is saved now and then and restored by the next start, numbers included (lease-record.ts).
//
// Invariant: numbers are below 2^16 and in use by slots until renumber(), which gives those alive new ones.

import { randomInt } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import type { Counter, MetricsRegistry } from "../telemetry/metrics.ts";
import { CONNECTION_PREFIX, NO_LEASE } from "./lease-context.ts";

const MAX_NUMBER = 2 ** 16 - 1;
/** Of more alive ones, those noted last keep their lease when numbers are given anew: that must gain something. */
const MAX_ALIVE = 32_768;
/** Answers of join() that are remembered: a build's calls touch the same blobs, in the same few combinations. */
const MAX_JOINED = 65_536;
/** They are forgotten this often in the time of a lease, so that a group names few whose lease has ended. */
const FORGETS_PER_LEASE = 60;
/** Members of a group; of more, those that called last count. */
const MAX_MEMBERS = 8;

export interface InvocationsOptions {
  readonly clock: Clock;
  /** How long a lease lasts after the last call; 0 = no leases. */
  readonly leaseMs: number;
  /** What leased blobs may take on disk, all together. */
  readonly budgetBytes: number;
  /** Replaces the numbers in all slots; called when they are used up. */
  readonly renumber: (numbers: Uint16Array) => void;
  /** What was alive when the last process saved it. */
  readonly saved?: SavedInvocations | undefined;
  readonly metrics: MetricsRegistry;
}

export interface SavedInvocations {
  /** Numbers of another epoch mean nothing. */
  readonly epoch: number;
  /** lastCallMs: by the clock of the wall. */
  readonly invocations: readonly { readonly number: number; readonly key: string; readonly lastCallMs: number }[];
  readonly groups: readonly { readonly number: number; readonly members: readonly number[] }[];
}

interface Invocation {
  /** Undefined for a group. */
  readonly key: string | undefined;
  /** Numbers of single invocations; its own for one. */
  readonly members: readonly number[];
  lastCallMs: number;
  isBroken: boolean;
  /** On disk, of the blobs whose slot has this number. */
  bytes: number;
}

export class Invocations {
  readonly #options: InvocationsOptions;
  readonly #broken: Counter;
  readonly #numbers = new Map<string, number>();
  /** By their members. */
  readonly #groups = new Map<string, number>();
  #table: (Invocation | undefined)[] = [undefined];
  /** What join() answered, by `toucher` and `held`. */
  readonly #joined = new Map<number, Map<number, number>>();
  #joinedCount = 0;
  #joinedSinceMs = 0;
  #epoch = randomInt(2 ** 32);
  readonly #restored = new Set<number>();

  constructor(options: InvocationsOptions) {
    this.#options = options;
    this.#broken = options.metrics.counter(
      "ledge_leases_broken_total",
      "Invocations whose blobs may be evicted before their lease ended, because leased blobs were above their budget",
    );
    if (options.saved !== undefined && options.leaseMs > 0) this.#restore(options.saved);
    options.metrics.gauge("ledge_leases", "Invocations with a lease on blobs", () => this.#countAlive());
    options.metrics.gauge("ledge_leased_bytes", "Bytes on disk that are leased", () => this.#leasedBytes());
  }

  /** Notes a call and returns the number for what it touches. */
  noteCall(key: string): number {
    const { clock, leaseMs } = this.#options;
    if (leaseMs === 0) return NO_LEASE;
    const nowMs = clock.monotonicMs();
    const number = this.#numbers.get(key);
    const known = number === undefined ? undefined : this.#table[number];
    if (number === undefined || known === undefined) return this.#add({ key, lastCallMs: nowMs });
    const hasEnded = nowMs - known.lastCallMs > leaseMs;
    if (hasEnded || nowMs - this.#joinedSinceMs > leaseMs / FORGETS_PER_LEASE) this.#forgetJoined(nowMs);
    // A lease that ended and begins again is a new one.
    if (hasEnded) known.isBroken = false;
    known.lastCallMs = nowMs;
    return number;
  }

  /** The number for a blob that has `held` and is touched by `toucher`. */
  join(held: number, toucher: number): number {
    let byHeld = this.#joined.get(toucher);
    const known = byHeld?.get(held);
    if (known !== undefined) return known;
    const joined = this.#join(held, toucher);
    if (this.#joinedCount >= MAX_JOINED) {
      this.#forgetJoined(this.#joinedSinceMs);
      byHeld = undefined;
    }
    if (byHeld === undefined) this.#joined.set(toucher, (byHeld = new Map()));
    byHeld.set(held, joined);
    this.#joinedCount++;
    return joined;
  }

  #forgetJoined(nowMs: number): void {
    this.#joined.clear();
    this.#joinedCount = 0;
    this.#joinedSinceMs = nowMs;
  }

  #join(held: number, toucher: number): number {
    const now = this.#table[toucher];
    const before = this.#table[held];
    if (now === undefined || before === undefined || !this.isLeased(held)) return toucher;
    if (before.members.includes(toucher)) return held;
    const others = before.members.filter((member) => this.isLeased(member));
    const latest = others.toSorted((a, b) => this.#lastCallMs(b) - this.#lastCallMs(a)).slice(0, MAX_MEMBERS - 1);
    return this.#group([...latest, toucher].toSorted((a, b) => a - b)) ?? toucher;
  }

  /** Accounts for a blob of so many bytes on disk whose slot changes from one number to the other. */
  move(from: number, to: number, bytes: number): void {
    const [source, target] = [this.#table[from], this.#table[to]];
    if (source !== undefined) source.bytes -= bytes;
    if (target !== undefined) target.bytes += bytes;
  }

  /** Changes when all numbers do. */
  get epoch(): number {
    return this.#epoch;
  }

  /** True when `number` of `epoch`, as the last process saved it, still names what it named then. */
  wasRestored(epoch: number, number: number): boolean {
    return epoch === this.#epoch && this.#restored.has(number);
  }

  /** What is alive now. */
  save(): SavedInvocations {
    const { clock } = this.#options;
    const behindMs = clock.nowMs() - clock.monotonicMs();
    const invocations = [];
    const groups = [];
    for (const [number, invocation] of this.#table.entries()) {
      if (invocation === undefined || !this.isLeased(number)) continue;
      const { key, members, lastCallMs } = invocation;
      if (key === undefined) groups.push({ number, members });
      else invocations.push({ number, key, lastCallMs: Math.round(lastCallMs + behindMs) });
    }
    return { epoch: this.#epoch, invocations, groups };
  }

  /** `number` while it is leased; an end is for good, since a lease that begins again is noted with new touches. */
  numberIfLeased(number: number): number {
    return this.isLeased(number) ? number : NO_LEASE;
  }

  isLeased(number: number): boolean {
    const invocation = this.#table[number];
    if (invocation === undefined) return false;
    if (invocation.key === undefined) return invocation.members.some((member) => this.isLeased(member));
    const { clock, leaseMs } = this.#options;
    return !invocation.isBroken && clock.monotonicMs() - invocation.lastCallMs <= leaseMs;
  }

  /** Which numbers are leased, by number; breaks leases above the budget first. For a walk over many slots. */
  leasedNumbers(): Uint8Array {
    this.#keepBudget();
    return Uint8Array.from(this.#table, (_, number) => (this.isLeased(number) ? 1 : 0));
  }

  /** Numbers stay, because the blobs of before name them; those between are nobody's. */
  #restore({ epoch, invocations, groups }: SavedInvocations): void {
    const { clock } = this.#options;
    this.#epoch = epoch;
    for (const { number, key, lastCallMs } of invocations) {
      // A clock that was set back must not make a lease last for ever.
      const ageMs = Math.max(0, clock.nowMs() - lastCallMs);
      this.#setRestored(number, {
        key: key.startsWith(CONNECTION_PREFIX) ? `ended ${key}` : key,
        members: [number],
        lastCallMs: clock.monotonicMs() - ageMs,
      });
      if (!key.startsWith(CONNECTION_PREFIX)) this.#numbers.set(key, number);
    }
    for (const { number, members } of groups) {
      this.#setRestored(number, { key: undefined, members, lastCallMs: 0 });
      this.#groups.set(members.join(), number);
    }
  }

  #setRestored(number: number, facts: Pick<Invocation, "key" | "members" | "lastCallMs">): void {
    while (this.#table.length <= number) this.#table.push(undefined);
    this.#table[number] = { ...facts, isBroken: false, bytes: 0 };
    this.#restored.add(number);
  }

  #keepBudget(): void {
    const { budgetBytes } = this.#options;
    if (this.#leasedBytes() <= budgetBytes) return;
    const alive = [...this.#table.keys()].filter((number) => this.#isSingle(number) && this.isLeased(number));
    this.#forgetJoined(this.#joinedSinceMs);
    const oldestFirst = alive.toSorted((a, b) => this.#lastCallMs(a) - this.#lastCallMs(b));
    // One by one, and by eighths of what was broken already when they are many: each look at the sum walks the table.
    for (let done = 0; done < oldestFirst.length && this.#leasedBytes() > budgetBytes;) {
      for (const end = Math.min(oldestFirst.length, done + 1 + (done >>> 3)); done < end; done++) {
        (this.#table[oldestFirst[done] as number] as Invocation).isBroken = true;
        this.#broken.add();
      }
    }
  }

  #leasedBytes(): number {
    let bytes = 0;
    for (const [number, invocation] of this.#table.entries()) {
      if (invocation !== undefined && invocation.bytes > 0 && this.isLeased(number)) bytes += invocation.bytes;
    }
    return bytes;
  }

  #countAlive(): number {
    let count = 0;
    for (const number of this.#numbers.values()) if (this.isLeased(number)) count++;
    return count;
  }

  #lastCallMs(number: number): number {
    return this.#table[number]?.lastCallMs ?? 0;
  }

  #isSingle(number: number): boolean {
    return this.#table[number]?.key !== undefined;
  }

  #group(members: readonly number[]): number | undefined {
    const name = members.join();
    const known = this.#groups.get(name);
    if (known !== undefined) return known;
    // Renumbering here would change the numbers that the caller holds; a later call makes room.
    if (this.#table.length > MAX_NUMBER) return undefined;
    const number = this.#table.push({ key: undefined, members, lastCallMs: 0, isBroken: false, bytes: 0 }) - 1;
    this.#groups.set(name, number);
    return number;
  }

  #add({ key, lastCallMs }: { readonly key: string; readonly lastCallMs: number }): number {
    if (this.#table.length > MAX_NUMBER) this.#renumber();
    const number = this.#table.length;
    this.#table.push({ key, members: [number], lastCallMs, isBroken: false, bytes: 0 });
    this.#numbers.set(key, number);
    return number;
  }

  /** Forgets what has ended. Numbers of open streams that outlive this may name another invocation: a lease too many. */
  #renumber(): void {
    this.#forgetJoined(this.#joinedSinceMs);
    const old = this.#table;
    const numbers = new Uint16Array(old.length);
    const alive = [...old.keys()].filter((number) => this.isLeased(number));
    const singles = alive.filter((number) => this.#isSingle(number)).slice(-MAX_ALIVE);
    for (const [index, number] of singles.entries()) numbers[number] = index + 1;
    this.#epoch = randomInt(2 ** 32);
    this.#numbers.clear();
    this.#groups.clear();
    this.#table = [undefined];
    for (const number of singles) {
      const invocation = old[number] as Invocation;
      this.#numbers.set(invocation.key as string, this.#table.length);
      this.#table.push({ ...invocation, members: [this.#table.length] });
    }
    for (const number of alive.filter((candidate) => old[candidate]?.key === undefined)) {
      const { members, bytes } = old[number] as Invocation;
      const kept = members.map((member) => numbers[member] as number).filter((member) => member !== NO_LEASE);
      const target = kept.length === 1 ? (kept[0] as number) : (this.#group(kept) ?? (kept[0] as number));
      numbers[number] = target;
      (this.#table[target] as Invocation).bytes += bytes;
    }
    this.#options.renumber(numbers);
  }
}
