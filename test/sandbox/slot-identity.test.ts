// Who actions run as, decided from what the machine says about its users.

import { describe, expect, it } from "vitest";
import { chooseSlotIdentities, identityOfSlot, MAX_SLOTS } from "../../src/sandbox/slot-identity.ts";

const ALL = "         0          0 4294967295";
const PASSWD = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n";
const choose = (overrides: Parameters<typeof chooseSlotIdentities>[1] = {}, key = "key") =>
  chooseSlotIdentities(key, { uid: 0, uidMap: ALL, passwd: PASSWD, ...overrides });

describe("chooseSlotIdentities()", () => {
  it("leaves an ordinary user's actions to that user", () => {
    const identities = choose({ uid: 1000 });
    expect(identities).toEqual({ kind: "own-user" });
    expect(identityOfSlot(identities, 3)).toBeUndefined();
  });

  it("gives every slot a uid of its own, outside all ranges that others give away", () => {
    const identities = choose();
    const uids = [0, 1, MAX_SLOTS - 1].map((slot) => identityOfSlot(identities, slot)?.uid ?? 0);
    expect(new Set(uids).size).toBe(3);
    for (const uid of uids) {
      expect(uid).toBeGreaterThanOrEqual(1_900_000_000);
      expect(uid).toBeLessThan(2 ** 31 - 1);
    }
  });

  it("gives two servers different uids, and one server always the same", () => {
    expect(choose({}, "a")).not.toEqual(choose({}, "b"));
    expect(choose({}, "a")).toEqual(choose({}, "a"));
  });

  it("stays within a narrow user namespace", () => {
    expect(choose({ uidMap: "0 100000 65536" })).toEqual({ kind: "uid-per-slot", uidBase: 50_000 });
  });

  it("refuses when no range is mapped", () => {
    expect(choose({ uidMap: "0 1000 1" })).toMatchObject({
      kind: "refused",
      remedy: expect.stringMatching(/ordinary user.*\/etc\/subuid/),
    });
  });

  it("refuses when somebody has one of the uids, naming both", () => {
    const passwd = `${PASSWD}builder:x:50007:50007::/:/bin/sh\n`;
    expect(choose({ uidMap: "0 100000 65536", passwd })).toMatchObject({
      kind: "refused",
      reason: expect.stringMatching(/uid 50007 belongs to "builder"/),
    });
  });
});
