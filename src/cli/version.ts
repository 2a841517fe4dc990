// What `ledge --version` says: version, commit and Node.
//
// The executable carries the facts of its build; from source they are read from package.json and git.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { embeddedBuildInfo, type BuildInfo } from "../base/self.ts";

/** `ledge 0.1.0 (commit 1a2b3c4d5e6f, Node v26.10.0)`. */
export function versionText(): string {
  const { version, commit } = buildInfo();
  return `ledge ${version} (commit ${commit ?? "unknown"}, Node ${process.version})`;
}

export function buildInfo(): BuildInfo {
  return embeddedBuildInfo() ?? readBuildInfo();
}

/** Reads version and commit from the source tree. */
export function readBuildInfo(): BuildInfo {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { version: string };
  return { version: manifest.version, commit: readCommit(root) };
}

function readCommit(root: string): string | undefined {
  try {
    const git = (...args: string[]): string =>
      execFileSync("git", ["-C", root, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    const dirty = git("status", "--porcelain", "--untracked-files=no") !== "";
    return git("rev-parse", "--short=12", "HEAD") + (dirty ? "-dirty" : "");
  } catch {
    return undefined; // an archive without history, or no git: the version alone has to do
  }
}
