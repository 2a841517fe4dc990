// What an operator has to do when sandboxes do not work here: bwrap's words in, one reason and one remedy out.
//
// Source: executor measurements, section 7 (messages reproduced with sysctl, seccomp and a masked /proc file, or taken
// from the issues named there).

import { readFileSync } from "node:fs";

export interface Remedy {
  readonly reason: string;
  readonly remedy: string;
}

type Unavailable = Remedy & { readonly available: false };

const INSTALL_COMMANDS: readonly { readonly ids: readonly string[]; readonly command: string }[] = [
  { ids: ["debian", "ubuntu"], command: "apt-get install bubblewrap" },
  { ids: ["fedora", "rhel", "centos"], command: "dnf install bubblewrap" },
  { ids: ["arch"], command: "pacman -S bubblewrap" },
  { ids: ["alpine"], command: "apk add bubblewrap" },
  { ids: ["opensuse", "suse"], command: "zypper install bubblewrap" },
];

const APPARMOR_REMEDY =
  "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap that contains `userns,`; in Docker --security-opt apparmor=unconfined --security-opt seccomp=unconfined";

const FAILURES: readonly { readonly pattern: RegExp; readonly reason: string; readonly remedy: string }[] = [
  {
    // unshare(1), which `ledge doctor` asks, says it in its own words.
    pattern: /No permissions to creat|unshare failed: (Operation not permitted|Permission denied)/i,
    reason: "making user namespaces is forbidden here",
    remedy:
      "sudo sysctl -w kernel.unprivileged_userns_clone=1; in Docker --security-opt seccomp=unconfined (its default filter forbids them)",
  },
  {
    pattern: /nesting depth|max_user_namespaces|ENOSPC|No space left on device/i,
    reason: "the number of user namespaces is limited to none, or we are inside a sandbox that forbids them",
    remedy: "sudo sysctl -w user.max_user_namespaces=15000",
  },
  {
    pattern: /[ug]id[ _]map.*(Permission denied|Operation not permitted)/i,
    reason: "an AppArmor rule keeps user namespaces from getting rights (Ubuntu 23.10 and newer)",
    remedy: APPARMOR_REMEDY,
  },
  {
    pattern: /[ug]id[ _]map.*Invalid argument/i,
    reason: "this user namespace does not map the user of the actions",
    remedy:
      "give the user who starts the container 65,536 ids or more in /etc/subuid and /etc/subgid (sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, with newuidmap of the package uidmap)",
  },
  {
    pattern: /loopback|RTM_NEW/i,
    reason: "a network namespace cannot be set up: AppArmor or seccomp strips the right to",
    remedy: APPARMOR_REMEDY,
  },
  {
    pattern: /mount proc/i,
    reason: "/proc cannot be mounted: this container masks parts of it",
    remedy:
      "Docker --security-opt systempaths=unconfined, podman --security-opt unmask=ALL, Kubernetes procMount: Unmasked",
  },
  {
    pattern: /execvp \/proc\/self\/fd\/\d+: Permission denied/,
    reason: "programs below the data directory cannot be executed: its file system is mounted noexec",
    remedy: "choose a --data-dir on a file system without the mount option noexec",
  },
  {
    pattern: /^spawn (EPERM|EINVAL)/i,
    reason: "root may not change to the users of the actions here",
    remedy: "give the container the capabilities SETUID, SETGID and CHOWN, or run ledge as an ordinary user",
  },
  {
    pattern: /setuid use of bubblewrap/i,
    reason: "bwrap is installed setuid, which it no longer supports",
    remedy: "chmod u-s on the bwrap program",
  },
  {
    pattern:
      /Can't find source path .*Permission denied|Can't (mkdir|bind mount|get type of source).*Permission denied/i,
    reason: "the user of the actions cannot reach the build directories",
    remedy: "choose a --data-dir whose parent directories everybody may enter (mode o+x)",
  },
];

/** `failure` is what bwrap (or the fork) said. */
export function explainProbeFailure(failure: string): Remedy {
  const known = FAILURES.find(({ pattern }) => pattern.test(failure));
  const words = failure.trim();
  if (known === undefined) {
    return {
      reason: `a trial sandbox failed: ${words}`,
      remedy: "run `ledge doctor` for what this machine offers, or use --sandbox=none to run actions unprotected",
    };
  }
  return { reason: `${known.reason} (${words})`, remedy: known.remedy };
}

export function missingBwrap(wanted: string | undefined): Unavailable {
  const reason =
    wanted === undefined
      ? "bubblewrap (the program bwrap) is not installed"
      : `there is no executable program ${JSON.stringify(wanted)}`;
  return { available: false, reason, remedy: installCommand(readOsRelease()) };
}

export function setuidBwrap(path: string): Unavailable {
  return {
    available: false,
    reason: `${path} is setuid root, which bubblewrap no longer supports (CVE-2026-41163)`,
    remedy: `chmod u-s ${path}`,
  };
}

/** The command of this distribution, or those of all when it is unknown. `osRelease` is the text of os-release(5). */
export function installCommand(osRelease: string): string {
  const ids = [...osRelease.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].flatMap((match) =>
    (match[1] ?? "").split(" "),
  );
  const known = INSTALL_COMMANDS.find((entry) => entry.ids.some((id) => ids.includes(id)));
  return known?.command ?? INSTALL_COMMANDS.map(({ command }) => command).join(", or ");
}

function readOsRelease(): string {
  for (const path of ["/etc/os-release", "/usr/lib/os-release"]) {
    try {
      return readFileSync(path, "utf8");
    } catch {
      // the next one, or a system that does not say what it is
    }
  }
  return "";
}
