// What a start on a difficult machine says: every failure has a reason and a remedy, and the ladder concedes one at a time.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SandboxProfile } from "../../src/sandbox/bwrap-arguments.ts";
import { probeSandboxProfile } from "../../src/sandbox/probe.ts";
import { explainProbeFailure, installCommand } from "../../src/sandbox/sandbox-remedies.ts";

let directory: string;
let bwrapPath: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "ledge-probe-test-"));
  bwrapPath = join(directory, "bwrap");
  writeFileSync(bwrapPath, "#!/bin/sh\necho bubblewrap 0.7.3\n", { mode: 0o755 });
});
afterAll(() => rmSync(directory, { recursive: true }));

/** A machine that fails with these words as long as the profile asks for what it lacks. */
function machine(lacks: readonly { when: (profile: SandboxProfile) => boolean; words: string }[]) {
  return async (profile: SandboxProfile) => lacks.find(({ when }) => when(profile))?.words;
}

const probe = (tryProfile: (profile: SandboxProfile) => Promise<string | undefined>, allowSharedNetwork = false) =>
  probeSandboxProfile({ bwrapPath, allowSharedNetwork, tryProfile });

describe("probeSandboxProfile()", () => {
  it("takes everything where everything works", async () => {
    expect(await probe(machine([]))).toEqual({
      available: true,
      warnings: [],
      profile: { bwrapPath, bwrapVersion: "0.7.3", disableUserns: true, proc: "own", ownNetwork: true },
    });
  });

  it("concedes what an old bwrap and a container lack, with a warning for each", async () => {
    const result = await probe(
      machine([
        { when: ({ disableUserns }) => disableUserns, words: "bwrap: Unknown option --disable-userns" },
        {
          when: ({ proc }) => proc === "own",
          words: "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
        },
      ]),
    );
    expect(result).toMatchObject({
      available: true,
      profile: { disableUserns: false, proc: "host", ownNetwork: true },
    });
    expect(result.available && result.warnings).toHaveLength(2);
    expect(result.available && result.warnings.join()).toContain("systempaths=unconfined");
  });

  it("shares the network only when that was allowed", async () => {
    const words = "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted";
    const difficult = machine([{ when: ({ ownNetwork }) => ownNetwork, words }]);
    expect(await probe(difficult)).toMatchObject({ available: false, remedy: expect.stringContaining("apparmor") });
    expect(await probe(difficult, true)).toMatchObject({ available: true, profile: { ownNetwork: false } });
  });

  it("names the program that is missing and the command that installs it", async () => {
    const missing = join(directory, "nowhere");
    const tryProfile = async () => undefined;
    expect(await probeSandboxProfile({ bwrapPath: missing, allowSharedNetwork: false, tryProfile })).toMatchObject({
      available: false,
      reason: expect.stringContaining(missing),
      remedy: expect.stringContaining("install"),
    });
  });

  it("refuses a setuid bwrap without running it", async () => {
    const setuid = join(directory, "setuid-bwrap");
    writeFileSync(setuid, "#!/bin/sh\n", { mode: 0o755 });
    chmodSync(setuid, 0o4755);
    const tryProfile = async () => undefined;
    expect(await probeSandboxProfile({ bwrapPath: setuid, allowSharedNetwork: false, tryProfile })).toMatchObject({
      available: false,
      remedy: `chmod u-s ${setuid}`,
    });
  });
});

describe("explainProbeFailure()", () => {
  it.each([
    ["bwrap: No permissions to create a new namespace, likely because...", "kernel.unprivileged_userns_clone=1"],
    ["bwrap: No permissions to creating new namespace", "seccomp=unconfined"],
    [
      "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
      "user.max_user_namespaces",
    ],
    ["bwrap: setting up uid map: Permission denied", "kernel.apparmor_restrict_unprivileged_userns=0"],
    ["unshare: unshare failed: Operation not permitted", "kernel.unprivileged_userns_clone=1"],
    ["unshare: unshare failed: No space left on device", "user.max_user_namespaces"],
    ["unshare: write failed /proc/self/uid_map: Operation not permitted", "apparmor_restrict_unprivileged_userns=0"],
    ["bwrap: setting up gid map: Permission denied", "kernel.apparmor_restrict_unprivileged_userns=0"],
    ["bwrap: setting up uid map: Invalid argument", "/etc/subuid"],
    ["bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor profile"],
    ["bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "unmask=ALL"],
    ["bwrap: setuid use of bubblewrap is not supported in this build", "chmod u-s"],
    ["bwrap: Can't find source path /data/x: Permission denied", "--data-dir"],
    ["bwrap: execvp /proc/self/fd/7: Permission denied", "noexec"],
    ["spawn EPERM", "SETUID"],
  ])("has a remedy for %s", (words, remedy) => {
    const explained = explainProbeFailure(words);
    expect(explained.remedy).toContain(remedy);
    expect(explained.reason).toContain(words);
  });

  it("quotes what it does not know", () => {
    expect(explainProbeFailure("bwrap: the moon is full").reason).toContain("the moon is full");
  });
});

describe("installCommand()", () => {
  it.each([
    ['ID=debian\nVERSION_ID="12"\n', "apt-get install bubblewrap"],
    ['NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt-get install bubblewrap"],
    ["ID=fedora\n", "dnf install bubblewrap"],
    ['ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install bubblewrap"],
    ["ID=arch\n", "pacman -S bubblewrap"],
    ["ID=alpine\n", "apk add bubblewrap"],
  ])("knows the distribution of %j", (osRelease, command) => expect(installCommand(osRelease)).toBe(command));

  it("gives all of them when it knows none", () => {
    expect(installCommand("")).toMatch(/apt-get.*dnf.*pacman.*apk/);
  });
});
