// Moves data between an ActionResult and the CAS: out of what a client uploads, into what a client asks for.
//
// Invariant: fields that are not concerned are copied as bytes, so unknown ones survive; digests stay beside inlined
// data. Source: remote_execution.proto (ActionResult, OutputFile).

import type { BlobStore } from "../cas/blob-store.ts";
import { isEmptyDigest, parseDigest, toWireDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { ActionResult, Digest as WireDigest, OutputFile } from "../proto/remote_execution.ts";
import { fieldHeader } from "../proto/wire.ts";
import { rawFields } from "./raw-fields.ts";

const TYPE = ActionResult.typeName;
const TAG_OUTPUT_FILES = 0x12;
const TAG_STDOUT_RAW = 0x2a;
const TAG_STDOUT_DIGEST = 0x32;
const TAG_STDERR_RAW = 0x3a;
const TAG_STDERR_DIGEST = 0x42;
const TAG_FILE_DIGEST = 0x12;
const TAG_FILE_CONTENTS = 0x2a;
/** What a field costs beyond its data: tag and length, twice for a file whose own length grows. */
const FIELD_OVERHEAD_BYTES = 10;

export interface ExtractedResult {
  readonly result: Uint8Array;
  /** Data taken out, to be stored before the result is. */
  readonly blobs: readonly { readonly digest: Digest; readonly data: Uint8Array }[];
}

/**
 * Takes stdout, stderr and file contents out of `result`. Digests that are missing are computed; those that are there
 * are left for the store to verify. Throws INVALID_ARGUMENT for a malformed digest.
 */
export function extractInlined(
  result: Uint8Array,
  decoded: ActionResult,
  options: { readonly fn: DigestFunction; readonly digestOf: (data: Uint8Array) => Digest },
): ExtractedResult {
  const isInlined = decoded.outputFiles.some((file) => file.contents.length > 0);
  if (!isInlined && decoded.stdoutRaw.length === 0 && decoded.stderrRaw.length === 0) return { result, blobs: [] };
  const blobs: { digest: Digest; data: Uint8Array }[] = [];
  /** Notes the data for storing; returns its digest field when the message lacks one. */
  const take = (data: Uint8Array, wire: WireDigest | undefined, tag: number, what: string): Uint8Array[] => {
    if (data.length === 0) return [];
    const digest = wire === undefined ? options.digestOf(data) : parseDigest(options.fn, wire, what);
    blobs.push({ digest, data });
    return wire === undefined ? delimited(tag, [WireDigest.encode(toWireDigest(digest))]) : [];
  };
  const parts: Uint8Array[] = [];
  for (const { tag, bytes, payload } of rawFields(result, TYPE)) {
    if (tag === TAG_STDOUT_RAW || tag === TAG_STDERR_RAW) continue;
    if (tag !== TAG_OUTPUT_FILES) {
      parts.push(bytes);
      continue;
    }
    const file = OutputFile.decode(payload);
    const rest = [...rawFields(payload, TYPE)].filter((field) => field.tag !== TAG_FILE_CONTENTS);
    const digest = take(file.contents, file.digest, TAG_FILE_DIGEST, `output file "${file.path}"`);
    parts.push(...delimited(TAG_OUTPUT_FILES, [...rest.map((field) => field.bytes), ...digest]));
  }
  parts.push(...take(decoded.stdoutRaw, decoded.stdoutDigest, TAG_STDOUT_DIGEST, "stdout_digest"));
  parts.push(...take(decoded.stderrRaw, decoded.stderrDigest, TAG_STDERR_DIGEST, "stderr_digest"));
  return { result: Buffer.concat(parts), blobs };
}

export interface InlineRequest {
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Paths of output files, as they stand in the result; others are ignored. */
  readonly outputFiles: readonly string[];
}

/**
 * Returns `result` with what was asked for inlined, as far as the message stays within `maxBytes`: stdout first, then
 * stderr, then files in their order. What does not fit, or is gone meanwhile, stays in the CAS alone.
 */
export async function inlineOutputs(
  result: Uint8Array,
  request: InlineRequest,
  options: { readonly fn: DigestFunction; readonly blobs: BlobStore; readonly maxBytes: number },
): Promise<Uint8Array> {
  if (!request.stdout && !request.stderr && request.outputFiles.length === 0) return result;
  const decoded = ActionResult.decode(result);
  let roomBytes = options.maxBytes - result.length;
  const fetch = async (wire: WireDigest | undefined, what: string): Promise<Uint8Array | undefined> => {
    if (wire === undefined) return undefined;
    const digest = parseDigest(options.fn, wire, what);
    if (isEmptyDigest(digest) || digest.sizeBytes + FIELD_OVERHEAD_BYTES > roomBytes) return undefined;
    const data = await options.blobs.get(digest);
    if (data !== undefined) roomBytes -= data.length + FIELD_OVERHEAD_BYTES;
    return data;
  };
  const tail: Uint8Array[] = [];
  if (request.stdout && decoded.stdoutRaw.length === 0) {
    const data = await fetch(decoded.stdoutDigest, "stdout_digest");
    if (data !== undefined) tail.push(...delimited(TAG_STDOUT_RAW, [data]));
  }
  if (request.stderr && decoded.stderrRaw.length === 0) {
    const data = await fetch(decoded.stderrDigest, "stderr_digest");
    if (data !== undefined) tail.push(...delimited(TAG_STDERR_RAW, [data]));
  }
  const paths = new Set(request.outputFiles);
  if (!decoded.outputFiles.some((file) => paths.has(file.path))) return Buffer.concat([result, ...tail]);
  const parts: Uint8Array[] = [];
  for (const { tag, bytes, payload } of rawFields(result, TYPE)) {
    const file = tag === TAG_OUTPUT_FILES ? OutputFile.decode(payload) : undefined;
    const isWanted = file !== undefined && paths.has(file.path) && file.contents.length === 0;
    const data = isWanted ? await fetch(file.digest, `output file "${file.path}"`) : undefined;
    if (data === undefined) parts.push(bytes);
    else parts.push(...delimited(TAG_OUTPUT_FILES, [payload, ...delimited(TAG_FILE_CONTENTS, [data])]));
  }
  return Buffer.concat([...parts, ...tail]);
}

function delimited(tag: number, parts: readonly Uint8Array[]): Uint8Array[] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [fieldHeader(tag, length), ...parts];
}
