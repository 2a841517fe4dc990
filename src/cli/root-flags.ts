// Reads --mount and --root-mode: what of this machine actions see, and what their `/` is.
//
// Both are decisions of the operator; platform properties of an action only choose among what is allowed here.

import type { ConfiguredMount, RootMode } from "../server/config.ts";

/** Parses `ro:SRC[:DST][,if=NAME=VALUE][,optional]`; undefined when it is not of that form. */
export function parseMountFlag(text: string): ConfiguredMount | undefined {
  const [place = "", ...options] = text.split(",");
  const [mode, source = "", destination = source, ...rest] = place.split(":");
  if ((mode !== "ro" && mode !== "rw") || rest.length > 0) return undefined;
  if (![source, destination].every(isPlainAbsolute)) return undefined;
  let condition: ConfiguredMount["condition"];
  let optional = false;
  for (const option of options) {
    const [, name, value] = /^if=([^=]+)=(.*)$/.exec(option) ?? [];
    if (option === "optional") optional = true;
    else if (name !== undefined && value !== undefined && condition === undefined) condition = { name, value };
    else return undefined;
  }
  return { source, destination, writable: mode === "rw", optional, condition };
}

/** Parses `INSTANCE=host|input-root|image:NAME`; the instance may be empty and may contain "=". */
export function parseRootMode(text: string): { readonly instance: string; readonly mode: RootMode } | undefined {
  const separator = text.lastIndexOf("=");
  if (separator < 0) return undefined;
  const instance = text.slice(0, separator);
  const mode = text.slice(separator + 1);
  if (mode === "host" || mode === "input-root") return { instance, mode };
  const image = /^image:(.+)$/.exec(mode)?.[1];
  return image === undefined ? undefined : { instance, mode: { image } };
}

function isPlainAbsolute(path: string): boolean {
  return path.startsWith("/") && !path.split("/").includes("..") && !path.includes("\0");
}
