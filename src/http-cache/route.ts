// From a request target to what it names. Pure: no I/O.
//
//   /{instance}/cas/{hash}   /{instance}/cas/blake3/{hash}   /{instance}/ac/…   {opaque prefix}/{key}   /status   /metrics
//
// Invariant: a path has one meaning. Segments that servers and proxies normalise differently (`.`, `..`, empty ones, an
// encoded slash) are refused, whichever way they are written. Source: wire/http-cache.md 1.

import { DigestFunction, EMPTY_HASH, parseDigest } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { invalidArgument } from "../base/status.ts";

export type Route =
  | { readonly kind: "cas"; readonly fn: DigestFunction; readonly hash: string }
  | { readonly kind: "ac"; readonly instanceName: string; readonly fn: DigestFunction; readonly hash: string }
  /** `isCollection`: the path ended in a slash, or is the prefix itself. */
  | { readonly kind: "opaque"; readonly key: string; readonly path: string; readonly isCollection: boolean }
  | { readonly kind: "status" }
  | { readonly kind: "metrics" };

/** The seam's limit for keys (cas/opaque-store.ts). */
const MAX_KEY_BYTES = 1024;
const FORM = `"/{instance}/cas/{hash}" or "/{instance}/ac/{hash}"`;

/** Throws INVALID_ARGUMENT for a path that names nothing. `opaquePrefixes` begin with a slash and do not end in one. */
export function parseRoute(target: string, opaquePrefixes: readonly string[]): Route {
  const path = pathOf(target);
  const endsInSlash = path.endsWith("/");
  const segments = decodeSegments(path);
  const decoded = `/${segments.join("/")}`;
  const prefix = opaquePrefixes.find((candidate) => decoded === candidate || decoded.startsWith(`${candidate}/`));
  if (prefix !== undefined) {
    const key = decoded.slice(prefix.length + 1);
    if (Buffer.byteLength(key) > MAX_KEY_BYTES) throw invalidArgument(`the key has more than ${MAX_KEY_BYTES} bytes`);
    return { kind: "opaque", key, path: decoded, isCollection: endsInSlash || key === "" };
  }
  if (decoded === "/status" && !endsInSlash) return { kind: "status" };
  if (decoded === "/metrics" && !endsInSlash) return { kind: "metrics" };
  return parseCacheRoute(path, segments);
}

/** The last segment "ac" or "cas" counts: an instance name may contain such words. */
function parseCacheRoute(path: string, segments: readonly string[]): Route {
  const position = Math.max(segments.lastIndexOf("ac"), segments.lastIndexOf("cas"));
  if (position < 0) throw malformed(path, `there is no segment "ac" or "cas"`);
  const rest = segments.slice(position + 1);
  const fn = rest[0] === "blake3" ? DigestFunction.BLAKE3 : DigestFunction.SHA256;
  const hash = fn === DigestFunction.BLAKE3 ? rest[1] : rest[0];
  const expectedLength = fn === DigestFunction.BLAKE3 ? 2 : 1;
  if (hash === undefined || rest.length !== expectedLength || path.endsWith("/")) {
    throw malformed(path, `one hash must follow "${segments[position]}"`);
  }
  // HTTP names carry no size: any will do, except that 0 goes with one hash only.
  parseDigest(fn, { hash, sizeBytes: hash === EMPTY_HASH[fn] ? 0 : 1 }, `path "${clip(path)}"`);
  if (segments[position] === "cas") return { kind: "cas", fn, hash };
  const instanceName = parseInstanceName(segments.slice(0, position).join("/"));
  return { kind: "ac", instanceName, fn, hash };
}

/** Without query, and without scheme and host, which proxies send. */
function pathOf(target: string): string {
  const relative = target.startsWith("/") ? target : target.replace(/^https?:\/\/[^/?#]*/i, "");
  const path = relative.replace(/[?#].*$/s, "");
  if (!path.startsWith("/")) throw malformed(target, "it does not begin with a slash");
  return path;
}

function decodeSegments(path: string): string[] {
  const parts = path.slice(1).split("/");
  if (parts.at(-1) === "") parts.pop(); // one trailing slash is allowed
  return parts.map((part) => {
    const segment = decodeSegment(path, part);
    if (segment === "") throw malformed(path, "it contains an empty segment");
    if (segment === "." || segment === "..") throw malformed(path, `it contains the segment "${segment}"`);
    if (/[/\\\0]/.test(segment)) throw malformed(path, "a segment contains a slash, a backslash or NUL");
    return segment;
  });
}

function decodeSegment(path: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw malformed(path, `"${clip(part)}" is not percent-encoded UTF-8`);
  }
}

function malformed(path: string, what: string): Error {
  return invalidArgument(`path "${clip(path)}": ${what}; expected ${FORM}`);
}

function clip(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 197)}...`;
}
