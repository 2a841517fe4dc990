// The models of eviction policies that the comparison of docs/decisions rests on.

import { describe, expect, test } from "vitest";
import { POLICIES } from "../../../native-free-bench/storage/eviction-policies.ts";
import { replay, TRACES, type Request } from "../../../native-free-bench/storage/eviction-traces.ts";

function numbered(ids: readonly number[]): Request[] {
  return ids.map((id) => ({ id, sizeBytes: 10 + (id % 7) }));
}

/** Ids that repeat in no order, the same each time. */
function mixed(count: number, below: number): number[] {
  return Array.from({ length: count }, (_, index) => (Math.imul(index + 1, 0x9e3779b1) >>> 7) % below);
}

describe.each(Object.entries(POLICIES))("%s", (_name, make) => {
  test("has nothing that was never asked for, and everything when all of it fits", () => {
    const policy = make(1_000_000);
    const seen = new Set<number>();
    let early = 0;
    for (const { id, sizeBytes } of numbered(mixed(5000, 300))) {
      const isHit = policy.request(id, sizeBytes);
      if (isHit) expect(seen.has(id)).toBe(true);
      else if (seen.has(id)) early++;
      seen.add(id);
    }
    expect(early).toBe(0);
  });

  // What cannot fit cannot be had: a round over twice the capacity hits at most about half of the time.
  test("keeps no more than fits", () => {
    const ids = Array.from({ length: 100 }, (_, index) => index);
    const policy = make(ids.length * 5);
    let hits = 0;
    for (let round = 0; round < 50; round++) {
      for (const id of ids) if (policy.request(id, 10)) hits++;
    }
    expect(hits).toBeLessThanOrEqual(50 * 52);
  });
});

test("LRU agrees with a list that is sorted by last use", () => {
  const policy = POLICIES["LRU"]?.(400);
  let list: Request[] = [];
  for (const request of numbered(mixed(5000, 80))) {
    const isHit = list.some(({ id }) => id === request.id);
    list = [...list.filter(({ id }) => id !== request.id), request];
    while (list.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) > 400) list = list.slice(1);
    expect(policy?.request(request.id, request.sizeBytes)).toBe(isHit);
  }
});

test("traces are the same each time", () => {
  for (const trace of Object.values(TRACES)) {
    const take = () => {
      const requests: Request[] = [];
      for (const request of trace()) if (requests.push(request) === 10_000) break;
      return requests;
    };
    expect(take()).toEqual(take());
  }
});

test("replay() counts only what was asked for before", () => {
  const outcome = replay(() => numbered([1, 2, 3, 1, 2, 3]), 2);
  expect(outcome.map(({ missedRequests }) => missedRequests)).toEqual(Object.keys(POLICIES).map(() => 0));
});
