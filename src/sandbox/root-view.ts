// What lies at `/` of a sandbox: the host's tools, an unpacked image, or the input root itself.
//
// Invariant: an allow-list. Never /home, /root, /run, /var or /sys of the host: sockets in /run work through read-only
// mounts, and the rest says who and where we are. The root directory itself is ours, empty and in the end read-only.

import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/** Top-level directories of the host that hold tools. On merged-/usr systems most are symbolic links into /usr. */
const HOST_DIRECTORIES = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"];

/** Made by us in every sandbox, whatever an image has there. */
const OWN_DIRECTORIES = new Set(["proc", "dev", "sys", "tmp", "run"]);

/** The top level of a host changes with its distribution; looking costs 0.2 ms, which is too much for every action. */
const LOOK_AGAIN_MS = 2000;
let hostView: { readonly words: readonly string[]; readonly lookedAtMs: number } | undefined;

/** bwrap arguments that show the host's tools read-only and `etcPath` as /etc. */
export function hostViewArguments(etcPath: string): string[] {
  const nowMs = performance.now();
  if (hostView === undefined || nowMs - hostView.lookedAtMs > LOOK_AGAIN_MS) {
    hostView = { words: HOST_DIRECTORIES.flatMap((path) => showEntry(path, path)), lookedAtMs: nowMs };
  }
  const words = [...hostView.words];
  // /var/tmp is promised by the file system standard; both names of the temporary directory are the same one here.
  words.push("--ro-bind", etcPath, "/etc", "--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp");
  return words;
}

/**
 * bwrap arguments that show the top level of an image one entry at a time, because the input root needs a mount point and
 * the image is read-only. Throws when `imagePath` cannot be read.
 */
export function imageViewArguments(imagePath: string): string[] {
  const words: string[] = [];
  for (const name of readdirSync(imagePath)) {
    if (!OWN_DIRECTORIES.has(name)) words.push(...showEntry(join(imagePath, name), `/${name}`));
  }
  words.push("--dir", "/run");
  return words;
}

function showEntry(source: string, destination: string): string[] {
  const stats = lstatSync(source, { throwIfNoEntry: false });
  if (stats === undefined) return [];
  if (stats.isSymbolicLink()) return ["--symlink", readlinkSync(source), destination];
  // An empty directory (/opt, /srv, /mnt of most systems) is not worth a mount.
  if (stats.isDirectory() && isEmptyDirectory(source)) return ["--dir", destination];
  return ["--ro-bind", source, destination];
}

function isEmptyDirectory(path: string): boolean {
  try {
    return readdirSync(path).length === 0;
  } catch {
    return true; // unreadable for us, unreadable for the action
  }
}
