// The argument list bwrap gets for one process, written through `--args`, so that no length or content of the client's
// strings meets a shell or our own command line.
//
// Invariant: options come from here only; strings of the client appear as values, after findSpecFault() has passed them.
// The action's command, environment and working directory are not among them (launcher-block.ts): they never meet bwrap,
// whose own environment is empty, so LD_PRELOAD of an action cannot run outside the sandbox. Equal lists mean equal
// sandboxes, which is how a spare one is recognized. Source: executor measurements 5.1; bwrap(1) of 0.8 to 0.11.

import { hostViewArguments, imageViewArguments } from "./root-view.ts";
import { inputRootInside, type SandboxView } from "./sandbox-spec.ts";

export const SANDBOX_HOST_NAME = "sandbox";

/** What the probe found to work on this machine. */
export interface SandboxProfile {
  readonly bwrapPath: string;
  readonly bwrapVersion: string;
  /** Actions cannot make user namespaces of their own (bwrap 0.8 and newer). */
  readonly disableUserns: boolean;
  /** "host": /proc cannot be mounted here, so the sandbox shows the outer one. Degraded. */
  readonly proc: "own" | "host";
  /** false: no network namespace could be made, and the operator allowed to go on with the host's. Degraded. */
  readonly ownNetwork: boolean;
}

export interface BwrapFds {
  readonly status: number;
  readonly seccomp?: number | undefined;
}

export interface BwrapContext {
  readonly profile: SandboxProfile;
  /** Host path of a directory from GeneratedEtc. */
  readonly etcPath: string;
  readonly fds: BwrapFds;
  /** How much an action may keep in memory below /tmp, and in /dev/shm, when its own limits do not say. */
  readonly memoryFileBytes: { readonly temporary: number; readonly shared: number };
  /** Host path as the sandbox user can reach it (the runner may see the build directories elsewhere). */
  readonly reachablePath: (hostPath: string) => string;
}

/** The uid and gid inside, which need not be those of the host. */
export function insideIdentity(spec: Pick<SandboxView, "rootMode" | "unixUid" | "unixGid">): {
  uid: number;
  gid: number;
} {
  const standard = spec.rootMode === "input-root" ? 0 : 1000;
  return { uid: spec.unixUid ?? standard, gid: spec.unixGid ?? standard };
}

/** Returns bwrap's options in order; the launcher follows `--` on its real command line. */
export function bwrapArguments(spec: SandboxView, context: BwrapContext): string[] {
  const words = [
    ...namespaceArguments(spec, context.profile),
    ...rootArguments(spec, context),
    ...inputRootArguments(spec, context),
    ...spec.mounts.flatMap((mount) => mountArguments(mount, context)),
  ];
  // Only now: everything above may have needed a mount point in it.
  if (spec.rootMode !== "input-root") words.push("--remount-ro", "/");
  words.push("--chdir", "/");
  if (context.fds.seccomp !== undefined) words.push("--seccomp", String(context.fds.seccomp));
  words.push("--json-status-fd", String(context.fds.status));
  return words;
}

/** Serializes `words` for `--args`. */
export function encodeArguments(words: readonly string[]): Buffer {
  return Buffer.from(words.map((word) => `${word}\0`).join(""), "utf8");
}

function namespaceArguments(spec: SandboxView, profile: SandboxProfile): string[] {
  const { uid, gid } = insideIdentity(spec);
  const words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"];
  if (spec.network === "none" && profile.ownNetwork) words.push("--unshare-net");
  if (profile.disableUserns) words.push("--disable-userns");
  words.push("--die-with-parent", "--new-session", "--cap-drop", "ALL");
  words.push("--uid", String(uid), "--gid", String(gid), "--hostname", SANDBOX_HOST_NAME);
  return words;
}

function rootArguments(spec: SandboxView, context: BwrapContext): string[] {
  const words: string[] = [];
  if (spec.rootMode === "input-root") words.push("--bind", context.reachablePath(spec.inputRootPath), "/");
  else if (spec.rootMode === "host") words.push(...hostViewArguments(context.reachablePath(context.etcPath)));
  else words.push(...imageViewArguments(spec.rootMode.image));
  words.push(...(context.profile.proc === "own" ? ["--proc", "/proc"] : ["--ro-bind", "/proc", "/proc"]));
  words.push(...deviceArguments(spec, context), ...temporaryArguments(spec, context));
  return words;
}

/** bwrap's /dev is a file system in memory that could be filled; what programs write there goes to a bounded /dev/shm. */
function deviceArguments(spec: SandboxView, context: BwrapContext): string[] {
  const sizeBytes = spec.limits.memoryBytes ?? context.memoryFileBytes.shared;
  return ["--dev", "/dev", "--perms", "1777", ...tmpfs(sizeBytes, "/dev/shm"), "--remount-ro", "/dev"];
}

function temporaryArguments(spec: SandboxView, context: BwrapContext): string[] {
  if (spec.temporaryPath !== undefined) return ["--bind", context.reachablePath(spec.temporaryPath), "/tmp"];
  const sizeBytes = spec.limits.diskBytes ?? spec.limits.memoryBytes ?? context.memoryFileBytes.temporary;
  return ["--perms", "1777", ...tmpfs(sizeBytes, "/tmp")];
}

function tmpfs(sizeBytes: number, path: string): string[] {
  return ["--size", String(Math.max(Math.floor(sizeBytes), 4096)), "--tmpfs", path];
}

function inputRootArguments(spec: SandboxView, context: BwrapContext): string[] {
  if (spec.rootMode === "input-root") return [];
  return ["--bind", context.reachablePath(spec.inputRootPath), inputRootInside(spec)];
}

function mountArguments(mount: SandboxView["mounts"][number], context: BwrapContext): string[] {
  const option = `${mount.writable ? "--bind" : "--ro-bind"}${mount.optional ? "-try" : ""}`;
  return [option, context.reachablePath(mount.source), mount.destination];
}
