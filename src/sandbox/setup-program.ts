// The system calls that make the sandbox which given options of bwrap describe, in the order in which bwrap makes them.
//
// One description for both: bwrap-arguments.ts says what a sandbox is, and this says how it is made without bwrap. Options
// it does not know give no program, and bwrap makes that sandbox. Where it differs from bwrap: sources are opened before
// the root changes (no second look at their paths, no /oldroot), the flags of a mounted tree are set in one call for all
// of it (Linux 5.12), and loopback is switched on by ioctl. test/sandbox/same-sandbox.test.ts compares both from inside.
//
// Life: runner ─spawn─► builder ─clone into new namespaces─► first process (the runner's child) ─► launcher ─► action.
// The builder ends at once. The first process tells its pid, asks to die with the runner before it does anything else,
// finds by the pipe that the runner still lived then, makes the sandbox, starts the launcher and waits for it.

import { BUILDER_FDS } from "./builder-image.ts";
import { LAUNCHER_FDS } from "./launcher-image.ts";
import { MountCalls } from "./setup-mounts.ts";
import type { SetupCall } from "./setup-block.ts";
import type { SlotIdentity } from "./slot-identity.ts";

export interface SetupContext {
  /** Whom the sandbox runs as on the host. Never root: bwrap then also covers parts of /proc. */
  readonly identity: SlotIdentity;
  /** The system call filter; undefined for none. */
  readonly filter: Buffer | undefined;
}

const CLONE_PARENT = 0x8000;
const CLONE_NEWUSER = 0x1000_0000;
const CLONE_NEWNET = 0x4000_0000;
/** NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID. */
const CLONE_NAMESPACES = 0x0002_0000 + 0x0200_0000 + 0x0400_0000 + 0x0800_0000 + CLONE_NEWUSER + 0x2000_0000;
const SIGKILL = 9;
const SIGCHLD = 17;
const EINVAL = 22;
const PR_SET_PDEATHSIG = 1;
const PR_SET_DUMPABLE = 4;
const PR_SET_NAME = 15;
const PR_SET_SECCOMP = 22;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_MODE_FILTER = 2;
const LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;
/** More than any kernel has (41 in Linux 6); what it does not have is passed over. */
const CAPABILITIES = 48;
const AT_FDCWD = -100;
const O_WRONLY = 1;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
const LAST_FD = 0xffff_ffff;
/** The first descriptor that is not handed to the builder; what it opens gets this one and those after it, in order. */
const FIRST_FREE_FD = LAUNCHER_FDS.image + 1;
/** Of the launcher in its pid namespace: the only process that the first one starts. */
const LAUNCHER_PID = 2;
/** Digits of a pid and zeros; one message. */
export const PID_MESSAGE_BYTES = 16;

/** Returns the calls, or undefined when `options` have something that only bwrap can do. */
export function setupProgram(options: readonly string[], context: SetupContext): SetupCall[] | undefined {
  const wanted = parseOptions(options);
  if (wanted === undefined) return undefined;
  const calls: SetupCall[] = [];
  calls.push(
    call("close_range", [FIRST_FREE_FD, LAST_FD, 0], "close inherited descriptors"),
    {
      ...call(
        "clone",
        [CLONE_NAMESPACES + (wanted.ownNetwork ? CLONE_NEWNET : 0) + CLONE_PARENT + SIGCHLD, 0, 0, 0, 0],
        "make namespaces",
      ),
      childAt: 3,
    },
    call("exit_group", [0], "end"),
    ...tellPid(),
    call("prctl", [PR_SET_NAME, "ledge-sandbox"], "take a name"),
    call("prctl", [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0], "renounce new privileges"),
    ...mapIds(context.identity),
    ...(wanted.ownNetwork ? switchLoopbackOn() : []),
    call("umask", [0], "set the umask"),
  );
  const mounts = new MountCalls(FIRST_FREE_FD);
  for (const step of wanted.mounts) if (!mounts.add(step)) return undefined;
  calls.push(
    ...mounts.calls(),
    call("sethostname", [wanted.hostName, wanted.hostName.length], "set the host name"),
    ...mounts.enter(),
    ...becomeInsideUser(wanted, mounts.procFd),
    ...dropCapabilities(),
    call("umask", [0o022], "set the umask"),
    call("setsid", [], "start a session"),
    call("prctl", [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0], "ask to die with the runner"),
    ...(context.filter === undefined ? [] : [installFilter(context.filter)]),
    call("close_range", [FIRST_FREE_FD, LAST_FD, 0], "close descriptors"),
  );
  const first: SetupCall[] = [
    call("close", [BUILDER_FDS.program], "close descriptors"),
    call("close_range", [LAUNCHER_FDS.block, LAST_FD, 0], "close descriptors"),
    call("WaitForChild", [LAUNCHER_PID], "wait"),
  ];
  const launcherAt = calls.length + 1 + first.length;
  calls.push({ ...call("clone", [SIGCHLD, 0, 0, 0, 0], "start the launcher"), childAt: launcherAt }, ...first);
  calls.push(
    call("prctl", [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0], "ask to die with the sandbox"),
    call("close_range", [BUILDER_FDS.program, BUILDER_FDS.status, 0], "close descriptors"),
    call("BecomeLauncher", [], "become the launcher"),
  );
  return calls;
}

interface WantedSandbox {
  readonly ownNetwork: boolean;
  readonly disableUserns: boolean;
  readonly uid: number;
  readonly gid: number;
  readonly hostName: string;
  /** An option that mounts or makes something, with its values; in order. */
  readonly mounts: readonly (readonly string[])[];
}

/** How many values follow each option that is understood here. */
const MOUNT_OPTIONS: Readonly<Record<string, number>> = {
  "--ro-bind": 2,
  "--bind": 2,
  "--symlink": 2,
  "--dir": 1,
  "--proc": 1,
  "--dev": 1,
  "--tmpfs": 1,
  "--remount-ro": 1,
  "--perms": 1,
  "--size": 1,
};
const VALUE_OPTIONS = ["--uid", "--gid", "--hostname", "--cap-drop", "--chdir", "--seccomp", "--json-status-fd"];
/** Without one of these a sandbox would be another one than ours. */
const NEEDED_SWITCHES = [
  "--unshare-user",
  "--unshare-pid",
  "--unshare-ipc",
  "--unshare-uts",
  "--unshare-cgroup-try",
  "--die-with-parent",
  "--new-session",
];

function parseOptions(options: readonly string[]): WantedSandbox | undefined {
  const mounts: string[][] = [];
  const switches = new Set<string>();
  const values = new Map<string, string>();
  for (let at = 0; at < options.length;) {
    const option = options[at++] ?? "";
    const valueCount = MOUNT_OPTIONS[option];
    if (valueCount !== undefined) {
      mounts.push([option, ...options.slice(at, at + valueCount)]);
      at += valueCount;
    } else if (VALUE_OPTIONS.includes(option)) values.set(option, options[at++] ?? "");
    else if (NEEDED_SWITCHES.includes(option) || option === "--unshare-net" || option === "--disable-userns") {
      switches.add(option);
    } else return undefined;
  }
  if (NEEDED_SWITCHES.some((name) => !switches.has(name))) return undefined;
  if (values.get("--cap-drop") !== "ALL" || values.get("--chdir") !== "/") return undefined;
  return {
    ownNetwork: switches.has("--unshare-net"),
    disableUserns: switches.has("--disable-userns"),
    uid: Number(values.get("--uid")),
    gid: Number(values.get("--gid")),
    hostName: values.get("--hostname") ?? "",
    mounts,
  };
}

/** Nobody reads the pipe any more when the runner has died before its death could be asked for: then this ends here. */
function tellPid(): SetupCall[] {
  const message = Buffer.alloc(PID_MESSAGE_BYTES);
  return [
    call("prctl", [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0], "ask to die with the runner"),
    call("readlinkat", [AT_FDCWD, "/proc/self", message, PID_MESSAGE_BYTES - 1], "read /proc/self"),
    call("write", [BUILDER_FDS.status, message, PID_MESSAGE_BYTES], "tell the runner"),
  ];
}

/** As root of a namespace of its own, which is only what the mounts need; the action's is made below it. */
function mapIds({ uid, gid }: SlotIdentity): SetupCall[] {
  return [
    ...writeFile(AT_FDCWD, "/proc/self/uid_map", `0 ${uid} 1\n`, FIRST_FREE_FD),
    ...writeFile(AT_FDCWD, "/proc/self/setgroups", "deny\n", FIRST_FREE_FD),
    ...writeFile(AT_FDCWD, "/proc/self/gid_map", `0 ${gid} 1\n`, FIRST_FREE_FD),
  ];
}

/** The kernel gives it its addresses. */
function switchLoopbackOn(): SetupCall[] {
  const request = Buffer.alloc(40); // struct ifreq: a name of 16 bytes, flags
  request.write("lo", 0);
  request.writeUInt16LE(IFF_UP, 16);
  return [
    call("socket", [AF_INET, SOCK_DGRAM, 0], "make a socket"),
    call("ioctl", [FIRST_FREE_FD, SIOCSIFFLAGS, request], "switch the loopback interface on"),
    call("close", [FIRST_FREE_FD], "close a socket"),
  ];
}

/** No process of the action may make user namespaces: the only one that is still allowed is the one made here. */
function becomeInsideUser({ uid, gid, disableUserns }: WantedSandbox, procFd: number): SetupCall[] {
  const next = procFd + 1;
  return [
    call("close_range", [next, LAST_FD, 0], "close descriptors"),
    ...(disableUserns ? writeFile(procFd, "sys/user/max_user_namespaces", "1", next) : []),
    call("unshare", [CLONE_NEWUSER], "make the action's user namespace"),
    ...writeFile(procFd, "self/uid_map", `${uid} 0 1\n`, next),
    ...writeFile(procFd, "self/gid_map", `${gid} 0 1\n`, next),
  ];
}

function dropCapabilities(): SetupCall[] {
  const header = Buffer.alloc(8); // struct __user_cap_header_struct: version, pid (0: this one)
  header.writeUInt32LE(LINUX_CAPABILITY_VERSION_3, 0);
  const bounding = Array.from({ length: CAPABILITIES }, (_, capability) => ({
    ...call("prctl", [PR_CAPBSET_DROP, capability, 0, 0, 0], "drop a capability"),
    mayFail: EINVAL,
  }));
  return [
    ...bounding,
    call("capset", [header, Buffer.alloc(24)], "drop all capabilities"),
    call("prctl", [PR_SET_DUMPABLE, 1, 0, 0, 0], "allow debuggers"),
  ];
}

function installFilter(filter: Buffer): SetupCall {
  return call("prctl", [PR_SET_SECCOMP, SECCOMP_MODE_FILTER, { filter }, 0, 0], "install the system call filter");
}

function writeFile(directoryFd: number, path: string, content: string, fd: number): SetupCall[] {
  return [
    call("openat", [directoryFd, path, O_WRONLY, 0], `open ${path}`),
    call("write", [fd, content, content.length], `write ${path}`),
    call("close", [fd], `close ${path}`),
  ];
}

function call(name: SetupCall["call"], words: SetupCall["arguments"], purpose: string): SetupCall {
  return { call: name, arguments: words, purpose };
}
