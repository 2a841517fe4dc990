// Installs bubblewrap for `npm start`, where that is one command and ours to run: as root on Debian and its children.
//
// Never a reason to fail: without bubblewrap the server says why it does not execute, and the command to mend it.

import { spawnSync } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";

export async function installBubblewrapIfMissing(bwrapPath: string | undefined): Promise<void> {
  if (bwrapPath !== undefined || isOnPath("bwrap")) return;
  if (process.getuid?.() !== 0 || !isDebianLike()) return;
  process.stderr.write(
    "ledge: bubblewrap is missing; it isolates actions. Installing it: apt-get install bubblewrap\n",
  );
  // A fresh container image has no package lists, and one that has them need not download them again.
  if (!aptGet("install") && !(aptGet("update") && aptGet("install"))) {
    process.stderr.write("ledge: could not install bubblewrap; going on without it\n");
  }
}

function aptGet(command: "update" | "install"): boolean {
  const args = command === "update" ? ["update"] : ["install", "--yes", "--no-install-recommends", "bubblewrap"];
  const { status } = spawnSync("apt-get", ["--quiet=2", ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
  return status === 0;
}

function isOnPath(program: string): boolean {
  return [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin", "/bin"].some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function isDebianLike(): boolean {
  try {
    return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync("/etc/os-release", "utf8"));
  } catch {
    return false;
  }
}
