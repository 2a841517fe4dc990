// What request headers mean for a cache: encodings, ranges, conditions, sizes. Pure: no I/O.
//
// Source: RFC 9110 (12.5.3 Accept-Encoding, 14 ranges, 13 conditions); wire/http-cache.md 4.

import type { IncomingHttpHeaders } from "node:http";
import { invalidArgument } from "../base/status.ts";

/** True when the client takes zstd: `zstd`, `zstd;q=0.5`, `*`; `zstd;q=0` is a refusal. */
export function acceptsZstd(header: string | undefined): boolean {
  if (header === undefined) return false;
  let wildcard = false;
  for (const item of header.split(",")) {
    const [coding = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith("q="));
    const weight = q === undefined ? 1 : Number(q.slice(2));
    const isAccepted = weight > 0 && weight <= 1;
    if (coding === "zstd") return isAccepted;
    if (coding === "*") wildcard = isAccepted;
  }
  return wildcard;
}

export interface ByteRange {
  readonly start: number;
  /** Inclusive, as in the header. */
  readonly end: number;
}

/**
 * The part that a `Range` header asks for; undefined when it asks for everything, for several parts, or for something
 * that is not understood (which is to be ignored); "unsatisfiable" when no byte of it exists.
 */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | "unsatisfiable" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
  if (match === null) return undefined;
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return undefined;
  if (first === "") {
    const suffixBytes = Number(last);
    if (suffixBytes === 0 || sizeBytes === 0) return "unsatisfiable";
    return { start: Math.max(0, sizeBytes - suffixBytes), end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === "" ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (last !== "" && Number(last) < start) return undefined; // invalid, so ignored
  if (start >= sizeBytes) return "unsatisfiable";
  return { start, end };
}

/** True when `If-None-Match` names the tag of the present content. */
export function matchesETag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false;
  return header.split(",").some((item) => ["*", tag, `W/${tag}`].includes(item.trim()));
}

export type BodyEncoding = "identity" | "zstd";

export function bodyEncoding(headers: IncomingHttpHeaders): BodyEncoding {
  const encoding = (headers["content-encoding"] ?? "identity").trim().toLowerCase();
  if (encoding === "identity" || encoding === "zstd") return encoding;
  throw invalidArgument(`Content-Encoding "${encoding}" is not supported: send identity or zstd`);
}

/**
 * Bytes of the content itself, decompressed: `X-Digest-SizeBytes`, else `Content-Length`. Undefined when neither says.
 * Throws INVALID_ARGUMENT when they contradict each other or are not numbers.
 */
export function declaredSize(headers: IncomingHttpHeaders, encoding: BodyEncoding): number | undefined {
  const digestSize = parseSize("X-Digest-SizeBytes", headers["x-digest-sizebytes"]);
  const contentLength = parseSize("Content-Length", headers["content-length"]);
  if (encoding === "zstd") {
    if (digestSize === undefined) {
      throw invalidArgument("Content-Encoding zstd needs the header X-Digest-SizeBytes with the uncompressed size");
    }
    return digestSize;
  }
  if (digestSize !== undefined && contentLength !== undefined && digestSize !== contentLength) {
    throw invalidArgument(`X-Digest-SizeBytes says ${digestSize} bytes, Content-Length ${contentLength}`);
  }
  return digestSize ?? contentLength;
}

function parseSize(name: string, header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const size = typeof header === "string" && /^\d{1,16}$/.test(header) ? Number(header) : NaN;
  if (!Number.isSafeInteger(size))
    throw invalidArgument(`${name} "${String(header)}" is not a decimal number of bytes`);
  return size;
}
