// ByteStream resource names: which blob, in which encoding, of which upload.
//
//   read    [instance "/"] ("blobs/" | "compressed-blobs/zstd/") ["blake3/"] hash "/" size
//   write   [instance "/"] "uploads/" uuid "/" (the same) ["/" anything]
//
// Invariant: what parses here has a validated instance name and digest. The upload's uuid is opaque: old tools send
// other strings. Source: remote_execution.proto, comment of ContentAddressableStorage.

import { invalidArgument } from "../base/status.ts";
import { DigestFunction, formatDigest, functionName, parseDigest, type Digest } from "./digest.ts";
import { parseInstanceName } from "./instance-name.ts";

export type BlobEncoding = "identity" | "zstd";

export interface ReadName {
  readonly instanceName: string;
  readonly encoding: BlobEncoding;
  readonly digest: Digest;
}

export interface WriteName extends ReadName {
  readonly uuid: string;
}

const READ_FORM = `"{instance}/blobs/{hash}/{size}" or "{instance}/compressed-blobs/zstd/{hash}/{size}"`;
const WRITE_FORM = `"{instance}/uploads/{uuid}/blobs/{hash}/{size}" or "{instance}/uploads/{uuid}/compressed-blobs/zstd/{hash}/{size}"`;

/** Longer names are refused before they are taken apart; the table of partial uploads is keyed by names. */
const MAX_NAME_LENGTH = 4096;

export function parseReadName(name: string): ReadName {
  const segments = split(name, READ_FORM);
  const start = segments.findIndex((segment) => segment === "blobs" || segment === "compressed-blobs");
  if (start < 0) throw malformed(name, `no segment "blobs" or "compressed-blobs"`, READ_FORM);
  const blob = parseBlob(name, segments, start, READ_FORM);
  if (blob.end !== segments.length) throw malformed(name, "segments after the size", READ_FORM);
  return { instanceName: instanceOf(segments, start), encoding: blob.encoding, digest: blob.digest };
}

export function parseWriteName(name: string): WriteName {
  const segments = split(name, WRITE_FORM);
  const start = segments.indexOf("uploads");
  if (start < 0) throw malformed(name, `no segment "uploads"`, WRITE_FORM);
  const uuid = segments[start + 1];
  if (uuid === undefined || uuid === "") throw malformed(name, 'no upload id after "uploads"', WRITE_FORM);
  const kind = segments[start + 2];
  if (kind !== "blobs" && kind !== "compressed-blobs") {
    throw malformed(name, `"${kind ?? ""}" where "blobs" or "compressed-blobs" was expected`, WRITE_FORM);
  }
  const { encoding, digest } = parseBlob(name, segments, start + 2, WRITE_FORM);
  return { instanceName: instanceOf(segments, start), encoding, digest, uuid };
}

/** The name under which `digest` is read, without an instance name. */
export function formatReadName(digest: Digest, encoding: BlobEncoding = "identity"): string {
  return `${encoding === "identity" ? "blobs" : "compressed-blobs/zstd"}/${formatDigest(digest)}`;
}

function split(name: string, form: string): string[] {
  if (name === "") throw invalidArgument(`resource_name is empty, expected ${form}`);
  if (name.length > MAX_NAME_LENGTH) {
    throw invalidArgument(`resource_name has ${name.length} characters, at most ${MAX_NAME_LENGTH} are allowed`);
  }
  return name.split("/");
}

function instanceOf(segments: readonly string[], end: number): string {
  // One empty segment in front is a leading "/", which the empty instance name must not have.
  if (end === 1 && segments[0] === "") throw invalidArgument(`resource_name "${segments.join("/")}" begins with "/"`);
  return parseInstanceName(segments.slice(0, end).join("/"));
}

/** Parses from the segment "blobs" or "compressed-blobs" on; `end` is the position after the size. */
function parseBlob(
  name: string,
  segments: readonly string[],
  start: number,
  form: string,
): { encoding: BlobEncoding; digest: Digest; end: number } {
  let next = start + 1;
  let encoding: BlobEncoding = "identity";
  if (segments[start] === "compressed-blobs") {
    const compressor = segments[next++];
    if (compressor !== "zstd") {
      throw malformed(name, `compressor "${compressor ?? ""}" is not supported, only "zstd" is`, form);
    }
    encoding = "zstd";
  }
  let fn: DigestFunction = DigestFunction.SHA256;
  const first = segments[next] ?? "";
  if (first === "blake3") {
    fn = DigestFunction.BLAKE3;
    next++;
  } else if (/^(sha256tree|gitsha1|sha256|sha1|md5|vso|sha384|sha512|murmur3)$/.test(first)) {
    throw malformed(name, describeFunctionSegment(first), form);
  }
  const hash = segments[next++];
  const size = segments[next++];
  if (hash === undefined || size === undefined) throw malformed(name, "hash or size is missing", form);
  // A canonical decimal: "007" or "+7" would name the same upload twice.
  if (!/^(0|[1-9][0-9]{0,15})$/.test(size)) {
    throw malformed(name, `size "${clip(size)}" is not a decimal number between 0 and 2^53-1`, form);
  }
  const digest = parseDigest(fn, { hash, sizeBytes: Number(size) }, `resource_name "${clip(name)}"`);
  return { encoding, digest, end: next };
}

function describeFunctionSegment(segment: string): string {
  if (segment === "sha256") {
    return `digest function "sha256" must be left out of resource names (${functionName(DigestFunction.SHA256)} is implied)`;
  }
  return `digest function "${segment}" is not supported, only SHA-256 (no segment) and "blake3" are`;
}

function malformed(name: string, what: string, form: string): Error {
  return invalidArgument(`resource_name "${clip(name)}": ${what}; expected ${form}`);
}

function clip(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 197)}...`;
}
