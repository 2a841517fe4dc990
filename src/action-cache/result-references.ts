// The blobs an ActionResult names, read straight from its bytes: the completeness check runs on every hit.
//
// Invariant: every reference that a client may follow is reported, or an error is thrown.
// Source: remote_execution.proto (ActionResult, OutputFile, OutputDirectory).

import type { DigestBatch } from "../digest/digest-batch.ts";
import type { Digest, DigestFunction } from "../digest/digest.ts";
import { ActionResult } from "../proto/remote_execution.ts";
import { Reader } from "../proto/wire.ts";
import { readDigest, readDigestInto } from "./read-digest.ts";

export interface ResultReferences {
  readonly trees: readonly Digest[];
  /** Roots whose Directories are blobs of their own. */
  readonly rootDirectories: readonly Digest[];
}

const TAG_OUTPUT_FILES = 0x12;
const TAG_OUTPUT_DIRECTORIES = 0x1a;
const TAG_STDOUT_DIGEST = 0x32;
const TAG_STDERR_DIGEST = 0x42;
const TAG_FILE_DIGEST = 0x12;
const TAG_TREE_DIGEST = 0x1a;
const TAG_ROOT_DIRECTORY_DIGEST = 0x2a;

/**
 * Adds output files, stdout and stderr to `files` (empty ones left out) and returns the rest. Throws ProtoError or
 * INVALID_ARGUMENT when `result` is malformed.
 */
export function readResultReferences(result: Uint8Array, fn: DigestFunction, files: DigestBatch): ResultReferences {
  const trees: Digest[] = [];
  const rootDirectories: Digest[] = [];
  const reader = new Reader(result, ActionResult.typeName);
  const readFile = (what: string): void => readDigestInto(files, fn, { reader, bytes: result, what });
  /** Visits the fields of the message that comes next. */
  const within = (visit: (tag: number) => void): void => {
    const outerEnd = reader.enter();
    while (reader.pos < reader.end) visit(reader.tag());
    reader.leave(outerEnd);
  };
  const visitFile = (tag: number): void => {
    if (tag === TAG_FILE_DIGEST) readFile("output file");
    else reader.skip(tag);
  };
  const visitDirectory = (tag: number): void => {
    if (tag === TAG_TREE_DIGEST) trees.push(readDigest(reader, fn, "tree_digest"));
    else if (tag === TAG_ROOT_DIRECTORY_DIGEST) rootDirectories.push(readDigest(reader, fn, "root_directory_digest"));
    else reader.skip(tag);
  };
  while (reader.pos < reader.end) {
    const tag = reader.tag();
    if (tag === TAG_OUTPUT_FILES) within(visitFile);
    else if (tag === TAG_OUTPUT_DIRECTORIES) within(visitDirectory);
    else if (tag === TAG_STDOUT_DIGEST || tag === TAG_STDERR_DIGEST) readFile("stdout or stderr");
    else reader.skip(tag);
  }
  return { trees, rootDirectories };
}
