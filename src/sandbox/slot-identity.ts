// Which unprivileged user of the host an action runs as.
//
// As root every slot has a uid of its own that nobody else has, not even a slot of another server on this machine, so an
// action can neither change the files it was given (root owns them) nor touch another slot. As an ordinary user there is
// only one uid, and other means protect the files.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export interface SlotIdentity {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The first uid of the slots. Outside the ranges others give away: systemd's dynamic users (61184 to 65519), subuid
 * (100000 and up), systemd-nspawn (524288 to 1879048191).
 */
const PREFERRED_UID_BASE = 1_900_000_000;

/** Each server takes MAX_SLOTS uids somewhere in 92 million, by its build root: two of them meet once in 90,000 times. */
const SERVER_RANGES = 90_000;

/** For user namespaces that map only 65536 ids, as rootless containers do. */
const NARROW_UID_BASE = 50_000;

/** More slots than any machine has cores; the passwd check covers this range. */
export const MAX_SLOTS = 1024;

export type SlotIdentities =
  | { readonly kind: "own-user" }
  | { readonly kind: "uid-per-slot"; readonly uidBase: number }
  | { readonly kind: "refused"; readonly reason: string; readonly remedy: string };

/** Decides once, at start, how slots get their users. `ownerKey` tells this server from others on the machine. */
export function chooseSlotIdentities(
  ownerKey: string,
  options: { readonly uid?: number; readonly uidMap?: string; readonly passwd?: string } = {},
): SlotIdentities {
  const uid = options.uid ?? process.getuid?.() ?? 0;
  if (uid !== 0) return { kind: "own-user" };
  const uidMap = options.uidMap ?? readOr("/proc/self/uid_map", "0 0 4294967295");
  const passwd = options.passwd ?? readOr("/etc/passwd", "");
  const range = createHash("sha256").update(ownerKey).digest().readUInt32LE(0) % SERVER_RANGES;
  const preferred = PREFERRED_UID_BASE + range * MAX_SLOTS;
  const uidBase = [preferred, NARROW_UID_BASE].find((base) => isMapped(uidMap, base));
  if (uidBase === undefined) {
    return {
      kind: "refused",
      reason: `this user namespace maps neither the uids from ${preferred} nor those from ${NARROW_UID_BASE}, so actions cannot be given a user of their own`,
      remedy: `run ledge as an ordinary user instead of root, or give the user who starts the container 65,536 ids or more in /etc/subuid and /etc/subgid (sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, with newuidmap of the package uidmap) and start it anew`,
    };
  }
  const taken = takenUid(passwd, uidBase);
  if (taken !== undefined) {
    return {
      kind: "refused",
      reason: `uid ${taken.uid} belongs to "${taken.name}" in /etc/passwd, but the uids from ${uidBase} are reserved for actions`,
      remedy: `give "${taken.name}" another uid (usermod --uid), or run ledge as an ordinary user`,
    };
  }
  return { kind: "uid-per-slot", uidBase };
}

/** The user of `slot`, undefined when actions run as the server's own. */
export function identityOfSlot(identities: SlotIdentities, slot: number): SlotIdentity | undefined {
  if (identities.kind !== "uid-per-slot") return undefined;
  return { uid: identities.uidBase + slot, gid: identities.uidBase + slot };
}

function isMapped(uidMap: string, base: number): boolean {
  return uidMap.split("\n").some((line) => {
    const [inside = Number.NaN, , count = 0] = line.trim().split(/\s+/).map(Number);
    return base >= inside && base + MAX_SLOTS <= inside + count;
  });
}

function takenUid(passwd: string, base: number): { name: string; uid: number } | undefined {
  for (const line of passwd.split("\n")) {
    const [name = "", , uidText = ""] = line.split(":");
    const uid = Number(uidText);
    if (uidText !== "" && uid >= base && uid < base + MAX_SLOTS) return { name, uid };
  }
  return undefined;
}

function readOr(path: string, fallback: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return fallback; // no /proc or no passwd: the checks that need them pass
  }
}
