// Paths a client names: the working directory and the outputs, resolved lexically inside the input root.
//
// Invariant: a resolved path is a list of plain names, so joining it to the input root cannot leave the root. Symlinks
// are not looked at here; who walks the path on disk does not follow them. Source: wire/reapi.md 5.2.

import { invalidArgument } from "../base/status.ts";

/** An output as requested (echoed in the result) and where it is: names below the input root, [] is the root itself. */
export interface OutputPath {
  readonly requested: string;
  readonly names: readonly string[];
}

/** ext4, XFS and btrfs all refuse longer names with an error that says nothing about which one it was. */
export const MAX_NAME_BYTES = 255;

/**
 * Of a path relative to the input root. The kernel takes 4,095 bytes a call; the rest is for the place the root has on
 * the host and in the sandbox.
 */
export const MAX_PATH_BYTES = 3800;

/** Returns the names of the working directory, relative to the input root. Throws INVALID_ARGUMENT. */
export function parseWorkingDirectory(path: string): string[] {
  return resolve([], path, "working_directory");
}

/** Resolves an output against the working directory. Throws INVALID_ARGUMENT for anything outside the input root. */
export function parseOutputPath(workingDirectory: readonly string[], path: string, field: string): OutputPath {
  return { requested: path, names: resolve(workingDirectory, path, field) };
}

function resolve(base: readonly string[], path: string, field: string): string[] {
  assertPlainText(path, field);
  if (path.startsWith("/")) {
    throw invalidArgument(`${field} ${JSON.stringify(path)} is absolute: expected a path relative to the input root`);
  }
  const names = [...base];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      if (names.length === 0) {
        throw invalidArgument(`${field} ${JSON.stringify(path)} leads outside the input root`);
      }
      names.pop();
      continue;
    }
    assertNameLength(name, field);
    names.push(name);
  }
  assertPathLength(names.join("/"), field);
  return names;
}

export function assertPlainText(text: string, field: string): void {
  if (text.includes("\0")) throw invalidArgument(`${field} ${JSON.stringify(text)} contains a NUL character`);
}

export function assertNameLength(name: string, field: string): void {
  if (name.length <= MAX_NAME_BYTES / 3) return; // at most 3 UTF-8 bytes per UTF-16 code unit
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_NAME_BYTES) {
    throw invalidArgument(
      `${field}: the name ${JSON.stringify(clip(name))} has ${bytes} bytes, at most ${MAX_NAME_BYTES} are possible`,
    );
  }
}

export function assertPathLength(path: string, field: string): void {
  if (path.length <= MAX_PATH_BYTES / 3) return;
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES) {
    const depth = path.split("/").length;
    throw invalidArgument(
      `${field}: the path ${JSON.stringify(clip(path))} has ${bytes} bytes at depth ${depth}, ` +
        `at most ${MAX_PATH_BYTES} are possible`,
    );
  }
}

/** Client text in messages: enough to recognize it, not enough to fill a log. */
export function clip(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}
