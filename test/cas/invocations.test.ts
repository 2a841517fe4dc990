// Leases: what an invocation touched stays until its lease ends, within a budget.

import { describe, expect, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { Invocations } from "../../src/cas/invocations.ts";
import { withLease, withLeaseAcrossWaits } from "../../src/cas/lease-context.ts";
import { DigestBatch } from "../../src/digest/digest-batch.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { expectCode, putRandom } from "./blob-store-contract.ts";
import { StorageFixture } from "./storage-fixture.ts";

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

function table(options: { readonly budgetBytes?: number } = {}) {
  const clock = new ManualClock(Date.UTC(2026, 0, 1));
  const metrics = new MetricsRegistry();
  const renumbered: Uint16Array[] = [];
  const invocations = new Invocations({
    clock,
    leaseMs: HOUR_MS,
    budgetBytes: options.budgetBytes ?? 2 ** 40,
    renumber: (numbers) => void renumbered.push(numbers),
    metrics,
  });
  const broken = () => metrics.counter("ledge_leases_broken_total", "").value;
  return { clock, invocations, renumbered, broken };
}

describe("Invocations", () => {
  test("a lease ends an hour after the last call", () => {
    const { clock, invocations } = table();
    const number = invocations.noteCall("a");
    clock.advance(HOUR_MS);
    expect(invocations.isLeased(number)).toBe(true);
    expect(invocations.noteCall("a")).toBe(number);
    clock.advance(HOUR_MS + 1);
    expect(invocations.isLeased(number)).toBe(false);
  });

  test("what two touched is leased until the later one ends, whichever that is", () => {
    for (const later of ["a", "b"]) {
      const { clock, invocations } = table();
      const [a, b] = [invocations.noteCall("a"), invocations.noteCall("b")];
      const both = invocations.join(a, b);
      expect(invocations.join(both, a)).toBe(both);
      expect(invocations.join(a, b)).toBe(both);
      clock.advance(HOUR_MS);
      invocations.noteCall(later);
      clock.advance(HOUR_MS);
      expect([a, b, both].map((number) => invocations.isLeased(number))).toEqual([later === "a", later === "b", true]);
      clock.advance(1);
      expect(invocations.isLeased(both)).toBe(false);
    }
  });

  test("what was answered about a lease that had ended is not answered after it began again", () => {
    const { clock, invocations } = table();
    const a = invocations.noteCall("a");
    clock.advance(HOUR_MS + 1);
    const b = invocations.noteCall("b");
    expect(invocations.join(a, b)).toBe(b);
    invocations.noteCall("a");
    const both = invocations.join(a, b);
    expect(both).not.toBe(b);
    clock.advance(HOUR_MS);
    invocations.noteCall("a");
    clock.advance(HOUR_MS);
    expect(invocations.isLeased(both)).toBe(true);
  });

  test("holds what a naive model holds, for random calls, touches and pauses", () => {
    const { clock, invocations } = table();
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seeded(seed);
    const lastCalls = new Map<string, number>();
    const isAlive = (name: string) => clock.monotonicMs() - (lastCalls.get(name) ?? -Infinity) <= HOUR_MS;
    const slots = Array.from({ length: 20 }, () => ({
      held: 0,
      holders: new Set<string>(),
      touchedBy: new Set<string>(),
    }));
    for (let step = 0; step < 3000; step++) {
      clock.advance(Math.floor(random() * (HOUR_MS / 4)));
      const key = `invocation ${Math.floor(random() * 6)}`;
      const number = invocations.noteCall(key);
      lastCalls.set(key, clock.monotonicMs());
      const slot = slots[Math.floor(random() * slots.length)]!;
      slot.held = slot.held === 0 || slot.held === number ? number : invocations.join(slot.held, number);
      slot.touchedBy.add(key);
      const alive = [...slot.holders].filter((name) => isAlive(name));
      if (!slot.holders.has(key) || alive.length === 0) slot.holders = new Set([...alive, key]);
      for (const { held, holders, touchedBy } of slots) {
        if ([...holders].some((name) => isAlive(name)))
          expect(invocations.isLeased(held), `seed ${seed}, step ${step}`).toBe(true);
        if (![...touchedBy].some((name) => isAlive(name)))
          expect(invocations.isLeased(held), `seed ${seed}, step ${step}`).toBe(false);
      }
    }
  });

  test("above the budget the leases that were used the longest ago are broken, and counted", () => {
    const { clock, invocations, broken } = table({ budgetBytes: 250 });
    const numbers = ["a", "b", "c"].map((key) => {
      clock.advance(1000);
      const number = invocations.noteCall(key);
      invocations.move(0, number, 100);
      return number;
    });
    const leased = invocations.leasedNumbers();
    expect(numbers.map((number) => leased[number])).toEqual([0, 1, 1]);
    expect(broken()).toBe(1);
    // What comes late to a broken lease does not bring it back.
    invocations.noteCall("a");
    expect(invocations.leasedNumbers()[numbers[0] as number]).toBe(0);
    expect(broken()).toBe(1);
  });

  test("numbers do not run out: those of ended invocations are given anew, and live ones keep their blobs", () => {
    const { clock, invocations, renumbered } = table();
    for (let index = 0; index < 40_000; index++) invocations.noteCall(`old ${index}`);
    clock.advance(HOUR_MS + 1);
    const [a, b] = [invocations.noteCall("a"), invocations.noteCall("b")];
    const both = invocations.join(a, b);
    invocations.move(0, both, 10);
    for (let index = 0; renumbered.length === 0; index++) invocations.noteCall(`new ${index % 10}${index}`);
    const numbers = renumbered[0] as Uint16Array;
    expect(numbers[a]).toBe(invocations.noteCall("a"));
    expect(numbers[1]).toBe(0);
    expect(invocations.isLeased(numbers[both] as number)).toBe(true);
    expect(invocations.join(numbers[a] as number, numbers[b] as number)).toBe(numbers[both]);
  });

  test("--lease 0 leases nothing", () => {
    const clock = new ManualClock(0);
    const options = { clock, leaseMs: 0, budgetBytes: 1, renumber: () => undefined, metrics: new MetricsRegistry() };
    expect(new Invocations(options).noteCall("a")).toBe(0);
  });
});

describe("leases in the local store", () => {
  async function open(maxSizeBytes = 20 * MIB) {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    const fixture = await StorageFixture.open({ clock, maxSizeBytes, protectRecentMs: 0, leaseMs: HOUR_MS });
    return { clock, fixture, storage: fixture.storage };
  }

  async function present(fixture: StorageFixture, digests: readonly Digest[]): Promise<boolean[]> {
    const missing = await fixture.storage.blobs.findMissing(DigestBatch.of(DigestFunction.SHA256, digests));
    return digests.map((_, index) => !missing.includes(index));
  }

  test("what an invocation stored or asked for outlives what came later, until its lease ends", async () => {
    const { clock, fixture, storage } = await open();
    await using _ = fixture;
    const asked = await putRandom(storage.blobs, MIB);
    const build = storage.noteCall("build");
    const stored = await withLeaseAcrossWaits(build, () => putRandom(storage.blobs, MIB));
    await withLease(build, () => storage.blobs.findMissing(DigestBatch.of(DigestFunction.SHA256, [asked])));
    for (let index = 0; index < 40; index++) {
      clock.advance(1000);
      await putRandom(storage.blobs, MIB);
    }
    expect(await present(fixture, [asked, stored])).toEqual([true, true]);
    clock.advance(HOUR_MS);
    for (let index = 0; index < 40; index++) {
      clock.advance(1000);
      await putRandom(storage.blobs, MIB);
    }
    expect(await present(fixture, [asked, stored])).toEqual([false, false]);
  });

  // A restart in the middle of a build takes nothing away that the build was told of.
  test("leases outlive a restart, by number and by group, and end when they would have ended", async () => {
    const { clock, fixture, storage } = await open();
    await using _ = fixture;
    const build = storage.noteCall("build");
    const stored = await withLeaseAcrossWaits(build, () => putRandom(storage.blobs, MIB));
    const shared = await withLeaseAcrossWaits(build, () => putRandom(storage.blobs, MIB));
    const other = storage.noteCall("other build");
    await withLease(other, () => storage.blobs.findMissing(DigestBatch.of(DigestFunction.SHA256, [shared])));
    const connection = storage.noteCall("connection 7");
    const ofConnection = await withLeaseAcrossWaits(connection, () => putRandom(storage.blobs, MIB));
    clock.advance(HOUR_MS / 2);

    await fixture.restart();
    await fixture.storage.loaded;

    const { blobs } = fixture.storage;
    const refill = async () => {
      for (let index = 0; index < 40; index++) {
        clock.advance(1000);
        await putRandom(blobs, MIB);
      }
    };
    // Another connection may have the number of the one before.
    expect(fixture.storage.noteCall("connection 7")).not.toBe(connection);
    expect(fixture.storage.noteCall("other build")).toBe(other);
    await refill();
    expect(await present(fixture, [stored, shared, ofConnection])).toEqual([true, true, true]);
    clock.advance(HOUR_MS / 2);
    // The first one ended an hour after its last call; the other called after the restart.
    await refill();
    expect(await present(fixture, [stored, shared, ofConnection])).toEqual([false, true, false]);
  });

  test("leases outlive numbers given anew", () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    const options = { clock, leaseMs: HOUR_MS, budgetBytes: MIB, renumber: () => undefined };
    const before = new Invocations({ ...options, metrics: new MetricsRegistry() });
    const first = before.noteCall("first");
    const { epoch } = before;
    expect(before.wasRestored(epoch, first)).toBe(false);
    const saved = before.save();
    const after = new Invocations({ ...options, saved, metrics: new MetricsRegistry() });
    expect(after.epoch).toBe(epoch);
    expect([after.wasRestored(epoch, first), after.isLeased(first)]).toEqual([true, true]);
    for (let index = 0; index < 70_000; index++) after.noteCall(`build ${index}`);
    expect(after.epoch).not.toBe(epoch);
    expect(after.wasRestored(epoch, first)).toBe(false);
    clock.advance(2 * HOUR_MS);
    expect(after.save()).toMatchObject({ invocations: [], groups: [] });
  });

  test("leases take half of the store and no more: beyond it the oldest one is broken instead of refusing uploads", async () => {
    const { clock, fixture, storage } = await open();
    await using _ = fixture;
    const first: Digest[] = [];
    for (let build = 0; build < 6; build++) {
      clock.advance(1000);
      const lease = storage.noteCall(`build ${build}`);
      for (let index = 0; index < 6; index++) {
        const digest = await withLeaseAcrossWaits(lease, () => putRandom(storage.blobs, MIB));
        if (build === 0) first.push(digest);
      }
    }
    expect(await present(fixture, first)).not.toContain(true);
    expect(fixture.metrics.counter("ledge_leases_broken_total", "").value).toBeGreaterThan(2);
  });

  test("a single lease over half of the store does not keep others from storing", async () => {
    const { clock, fixture, storage } = await open();
    await using _ = fixture;
    const lease = storage.noteCall("greedy");
    for (let index = 0; index < 30; index++) {
      clock.advance(1000);
      await withLeaseAcrossWaits(lease, () => putRandom(storage.blobs, MIB));
    }
    await expectCode(putRandom(storage.blobs, 25 * MIB), Code.RESOURCE_EXHAUSTED);
    await putRandom(storage.blobs, MIB);
  });
});

/** A small generator of numbers from 0 to 1 (mulberry32), so that a failure can be repeated. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
