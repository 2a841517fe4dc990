// Extracts the files that the single executable carries (native add-ons, worker threads) to a folder of their own.
//
// Invariant: the folder is named by the content of all assets, belongs to us alone (0700, our uid, no symbolic link),
// and every file in it appeared by rename, whole. So versions never mix, and many starts at once are harmless.
// The candidates are tried in order: $XDG_CACHE_HOME, ~/.cache, the data directory, $TMPDIR; the next one is taken when
// a folder cannot be written or an add-on cannot be opened from it (noexec, read-only, full).

import { randomUUID } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { isAbsolute, join } from "node:path";
import { getAsset, getRawAsset } from "node:sea";
import { isMainThread } from "node:worker_threads";
import { removeStaleFolders } from "./stale-assets.ts";

/** The asset that lists the others; written by build.ts. */
interface Manifest {
  /** Names the folder: a hash over all assets. */
  readonly contentHash: string;
  /** File names, each an asset of the same name. */
  readonly files: readonly string[];
  /** The add-on whose dlopen decides whether a folder will do. */
  readonly probe: string;
}

let directory: string | undefined;
let fallbackDataDir: string | undefined;
const openedAddons = new Map<string, unknown>();

/** Names a further place to extract to when the cache folders of the user will not do. Call it before the first use. */
export function allowAssetsBelow(dataDir: string): void {
  fallbackDataDir = dataDir;
}

/**
 * The folder with the extracted files; extracts them on the first call, and again when somebody removed the folder since:
 * a thread may start days after the process. Only in the executable.
 */
export function assetDirectory(): string {
  // A worker thread was started from a file in that folder; it must not choose another one.
  if (!isMainThread) return import.meta.dirname;
  if (directory === undefined || !existsSync(directory)) directory = extractAssets();
  return directory;
}

/** Opens the extracted add-on `fileName`, once per thread. */
export function openAddon(fileName: string): unknown {
  const opened = openedAddons.get(fileName);
  if (opened !== undefined) return opened;
  const exports = dlopen(join(assetDirectory(), fileName));
  openedAddons.set(fileName, exports);
  return exports;
}

function extractAssets(): string {
  const manifest = JSON.parse(getAsset("manifest.json", "utf8")) as Manifest;
  const refusals: string[] = [];
  for (const parent of candidateParents()) {
    try {
      return extractTo(parent, manifest);
    } catch (error) {
      refusals.push(`  ${parent}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(
    `Cannot extract the native libraries of ledge; tried\n${refusals.join("\n")}\n` +
      "Set XDG_CACHE_HOME or TMPDIR to a folder that is writable and not mounted noexec",
  );
}

function candidateParents(): string[] {
  const candidates: string[] = [];
  const xdg = process.env["XDG_CACHE_HOME"];
  if (xdg !== undefined && isAbsolute(xdg)) candidates.push(join(xdg, "ledge-runtime"));
  // homedir() asks the password file when HOME is unset, and throws when that has no entry either.
  try {
    if (isAbsolute(homedir())) candidates.push(join(homedir(), ".cache", "ledge-runtime"));
  } catch {
    // No home at all is a reason to look further, not to fail.
  }
  if (fallbackDataDir !== undefined) candidates.push(join(fallbackDataDir, "runtime"));
  // The uid keeps two users of one /tmp apart.
  candidates.push(join(tmpdir(), `ledge-runtime-${process.getuid?.() ?? 0}`));
  return candidates;
}

function extractTo(parent: string, manifest: Manifest): string {
  makePrivateFolder(parent);
  const folder = join(parent, manifest.contentHash);
  makePrivateFolder(folder);
  for (const name of manifest.files) extractFile(folder, name);
  // Opening it a second time, from a new file, would load it twice.
  if (!openedAddons.has(manifest.probe)) openedAddons.set(manifest.probe, dlopen(join(folder, manifest.probe)));
  removeStaleFolders(parent, manifest.contentHash, Date.now());
  return folder;
}

function makePrivateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const stat = lstatSync(path);
  if (!stat.isDirectory()) throw new Error("it is not a directory");
  // What lies here is executed: a folder that others can write to would let them choose what.
  if (stat.uid !== process.getuid?.()) throw new Error(`it belongs to uid ${stat.uid}`);
  if ((stat.mode & 0o022) !== 0) throw new Error("others can write to it");
}

function extractFile(folder: string, name: string): void {
  const bytes = new Uint8Array(getRawAsset(name));
  const path = join(folder, name);
  // Same name in a folder named by content: the size tells a file that an unclean stop truncated.
  if (statSync(path, { throwIfNoEntry: false })?.size === bytes.byteLength) return;
  const temporaryPath = join(folder, `${name}.${randomUUID()}.tmp`);
  try {
    writeFileSync(temporaryPath, bytes, { mode: 0o600, flag: "wx" });
    renameSync(temporaryPath, path);
  } catch (error) {
    try {
      unlinkSync(temporaryPath);
    } catch {
      // The first error is the one that matters.
    }
    throw error;
  }
}

function dlopen(path: string): unknown {
  const module = { exports: {} };
  process.dlopen(module, path);
  return module.exports;
}
