// What ledge would like from a machine, one check each: what was found, what a failure costs, how to mend it.
//
// Checks try the real thing where that is possible (a sandbox, a mount, a link) and leave nothing behind.

import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { formatBytes } from "../base/units.ts";
import type { StartedRunner } from "../runner/runner-client.ts";
import type { ServerConfig } from "../server/config.ts";
import { silentLogger } from "../telemetry/log.ts";

export type CheckResult =
  | { readonly ok: true; readonly found: string }
  | { readonly ok: false; readonly found: string; readonly cost: string; readonly remedy: string };

export interface Check {
  readonly name: string;
  readonly check: (config: ServerConfig) => Promise<CheckResult>;
}

/** Below it --max-size or the operating system soon matters more than the cache does. */
const LITTLE_SPACE_BYTES = 5 * 1024 ** 3;
/** A big build keeps 128 clients × 100 connections and a few descriptors per action open. */
const ENOUGH_FILES = 16_384;
const RECOMMENDED_BWRAP = [0, 8, 0] as const;

export const CHECKS: readonly Check[] = [
  { name: "native libraries", check: checkNativeLibraries },
  { name: "data directory", check: checkDataDirectory },
  { name: "free space", check: checkFreeSpace },
  { name: "hard links", check: checkHardLinks },
  { name: "file limit", check: checkFileLimit },
  { name: "bubblewrap", check: checkBubblewrap },
  { name: "user namespaces", check: checkUserNamespaces },
  { name: "sandbox", check: checkSandbox },
  { name: "cgroup v2", check: checkCgroupDelegation },
  { name: "overlayfs", check: checkOverlay },
];

async function checkNativeLibraries(): Promise<CheckResult> {
  const { blake3 } = await import("../compute/blake3.ts");
  const { name } = blake3();
  if (name === "native") return { ok: true, found: "LMDB and BLAKE3 load" };
  return {
    ok: false,
    found: "BLAKE3 runs as WebAssembly: the native library does not load here",
    cost: "hashing with BLAKE3 is eight times slower; SHA-256 is not affected",
    remedy: "glibc 2.28 or newer on x86-64 or arm64, and a cache folder that is not mounted noexec",
  };
}

async function checkDataDirectory({ dataDir }: ServerConfig): Promise<CheckResult> {
  if (dataDir === ":memory:") return { ok: true, found: "in memory" };
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    accessSync(dataDir, constants.R_OK | constants.W_OK | constants.X_OK);
    return { ok: true, found: `${dataDir} can be written` };
  } catch (error) {
    return {
      ok: false,
      found: error instanceof Error ? error.message : String(error),
      cost: "the server does not start",
      remedy: "name another one with --data-dir, or give it to the user who runs ledge",
    };
  }
}

async function checkFreeSpace({ dataDir, maxSizeBytes }: ServerConfig): Promise<CheckResult> {
  if (dataDir === ":memory:") return { ok: true, found: "not needed in memory" };
  const { bavail, bsize } = statfsSync(dataDir);
  const freeBytes = bavail * bsize;
  const found = `${formatBytes(freeBytes)} free, --max-size is ${formatBytes(maxSizeBytes)}`;
  if (freeBytes >= Math.min(maxSizeBytes, LITTLE_SPACE_BYTES)) return { ok: true, found };
  return {
    ok: false,
    found,
    cost: "writes are refused with RESOURCE_EXHAUSTED once the file system is nearly full; reads go on",
    remedy: "free some space, choose a --data-dir on a larger file system, or a smaller --max-size",
  };
}

async function checkHardLinks({ dataDir }: ServerConfig): Promise<CheckResult> {
  if (dataDir === ":memory:") return { ok: true, found: "not used in memory" };
  const folder = mkdtempSync(join(dataDir, "doctor-"));
  try {
    writeFileSync(join(folder, "blob"), "");
    linkSync(join(folder, "blob"), join(folder, "input"));
    return { ok: true, found: "blobs can be linked into build directories" };
  } catch (error) {
    return {
      ok: false,
      found: error instanceof Error ? error.message : String(error),
      cost: "every input file of every action is copied",
      remedy: "put --data-dir on a file system with hard links, such as ext4, xfs or btrfs",
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function checkFileLimit(): Promise<CheckResult> {
  // Node raises the soft limit to the hard one at start, so this is what the server will have.
  const match = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "latin1"));
  const limit = match?.[1] === "unlimited" ? Number.POSITIVE_INFINITY : Number(match?.[1] ?? 0);
  const found = `${limit} open files`;
  if (limit >= ENOUGH_FILES) return { ok: true, found };
  return {
    ok: false,
    found,
    cost: "connections wait when all descriptors are in use",
    remedy: `ulimit -n ${ENOUGH_FILES}, LimitNOFILE=${ENOUGH_FILES} in a systemd unit, --ulimit nofile=${ENOUGH_FILES} for Docker`,
  };
}

async function checkBubblewrap({ bwrapPath }: ServerConfig): Promise<CheckResult> {
  const { stdout, error } = spawnSync(bwrapPath ?? "bwrap", ["--version"], { encoding: "utf8" });
  const version = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(stdout ?? "");
  if (error !== undefined || version === null) {
    const { missingBwrap } = await import("../sandbox/sandbox-remedies.ts");
    const { reason, remedy } = missingBwrap(bwrapPath);
    return { ok: false, found: reason, cost: "no action can be isolated: the server is a cache only", remedy };
  }
  const numbers = version.slice(1).map((part) => Number(part ?? 0));
  if (compareVersions(numbers, RECOMMENDED_BWRAP) >= 0) return { ok: true, found: `version ${version[0]}` };
  return {
    ok: false,
    found: `version ${version[0]}`,
    cost: "actions can make user namespaces of their own, which widens what they can attack in the kernel",
    remedy: `install bubblewrap ${RECOMMENDED_BWRAP.join(".")} or newer and name it with --bwrap-path`,
  };
}

function compareVersions(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < b.length; index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

async function checkUserNamespaces(): Promise<CheckResult> {
  const { status, stderr } = spawnSync("unshare", ["--user", "--map-root-user", "true"], { encoding: "utf8" });
  if (status === 0) return { ok: true, found: "can be made" };
  const { explainProbeFailure } = await import("../sandbox/sandbox-remedies.ts");
  const { reason, remedy } = explainProbeFailure(stderr ?? "unshare is not installed");
  return { ok: false, found: reason, cost: "no action can be isolated: the server is a cache only", remedy };
}

/** The decision the server makes at start, with the same process and the same probe. */
async function checkSandbox(config: ServerConfig): Promise<CheckResult> {
  if (config.sandbox === "none") return { ok: true, found: "not wanted (--sandbox=none)" };
  const parent = config.dataDir === ":memory:" ? tmpdir() : config.dataDir;
  const folder = mkdtempSync(join(parent, "doctor-"));
  // One level below: temporary folders are closed to others, and the user of the actions is one.
  const buildRootPath = join(folder, "exec");
  try {
    const { startRunner } = await import("../runner/runner-client.ts");
    const { bwrapPath } = config;
    const started = await startRunner({ sandbox: "bwrap", bwrapPath, buildRootPath, slots: 1, logger: silentLogger });
    if (started.available) await started.runner.close();
    return describeSandbox(started);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function describeSandbox(started: StartedRunner): CheckResult {
  const cost = "the server is a cache only: GetCapabilities offers no execution";
  if (!started.available) return { ok: false, found: started.reason, cost, remedy: started.remedy };
  const [warning] = started.warnings;
  if (warning === undefined) return { ok: true, found: "a trial action ran fully isolated" };
  return { ok: false, found: "a trial action ran, less isolated than it should be", cost: warning, remedy: "as said" };
}

async function checkCgroupDelegation(): Promise<CheckResult> {
  const cost = "memory and CPU time of actions cannot be limited or measured as a group, only process by process";
  const remedy =
    "run ledge as a systemd service with Delegate=yes (deploy/ledge.service), or give its user a cgroup v2 subtree";
  const path = /^0::(\/.*)$/m.exec(readFileSync("/proc/self/cgroup", "latin1"))?.[1];
  if (path === undefined) return { ok: false, found: "this system uses cgroup v1", cost, remedy };
  const folder = join("/sys/fs/cgroup", path);
  try {
    const controllers = readFileSync(join(folder, "cgroup.controllers"), "latin1").trim().split(" ");
    accessSync(join(folder, "cgroup.subtree_control"), constants.W_OK);
    accessSync(folder, constants.W_OK);
    const missing = ["memory", "pids", "cpu"].filter((name) => !controllers.includes(name));
    if (missing.length === 0) return { ok: true, found: `${path} is ours` };
    return { ok: false, found: `${path} lacks the controllers ${missing.join(", ")}`, cost, remedy };
  } catch {
    return { ok: false, found: `${path} cannot be written by us`, cost, remedy };
  }
}

async function checkOverlay({ dataDir }: ServerConfig): Promise<CheckResult> {
  const parent = dataDir === ":memory:" ? tmpdir() : dataDir;
  const folder = mkdtempSync(join(parent, "doctor-"));
  try {
    for (const name of ["lower", "upper", "work", "merged"]) mkdirSync(join(folder, name));
    const options = `lowerdir=${folder}/lower,upperdir=${folder}/upper,workdir=${folder}/work`;
    const script = `mount -t overlay overlay -o '${options}' '${folder}/merged'`;
    const args = ["--user", "--map-root-user", "--mount", "sh", "-c", script];
    const { status, stderr } = spawnSync("unshare", args, { encoding: "utf8" });
    if (status === 0) return { ok: true, found: `can be mounted in ${dirname(folder)}` };
    return {
      ok: false,
      found: (stderr ?? "unshare is not installed").trim(),
      cost: "none now: input roots are made of hard links and copies; kept for a cheaper way to stage large ones",
      remedy: "Linux 5.11 or newer, and a --data-dir that does not lie in a container's own layer (use a volume)",
    };
  } finally {
    // The kernel makes work/work with mode 0, which only its owner can remove: we are that owner.
    rmSync(folder, { recursive: true, force: true });
  }
}
