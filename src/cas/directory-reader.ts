// The digests a Directory message names, without making the message: for walks that need nothing else.
//
// Invariant: every child is reported or the bytes are refused; a child without a valid digest is malformed.
// Source: remote_execution.proto (Directory, FileNode, DirectoryNode).

import { invalidArgument } from "../base/status.ts";
import { parseDigest, type Digest, type DigestFunction } from "../digest/digest.ts";
import { Digest as DigestMessage } from "../proto/remote_execution.ts";
import { ProtoError, Reader } from "../proto/wire.ts";

export interface DirectoryVisitor {
  file(digest: Digest): void;
  directory(digest: Digest): void;
}

const TAG_FILE = 0x0a;
const TAG_DIRECTORY = 0x12;
/** FileNode and DirectoryNode have their digest in the same field. */
const TAG_NODE_DIGEST = 0x12;

/** Visits the children of the serialized Directory `bytes`; throws INVALID_ARGUMENT, naming `what`, for anything else. */
export function visitDirectory(bytes: Uint8Array, fn: DigestFunction, what: string, visitor: DirectoryVisitor): void {
  try {
    const reader = new Reader(bytes, "build.bazel.remote.execution.v2.Directory");
    while (reader.pos < reader.end) {
      const tag = reader.tag();
      if (tag === TAG_FILE) visitor.file(readNodeDigest(reader, fn, `${what}: digest of a file`));
      else if (tag === TAG_DIRECTORY) visitor.directory(readNodeDigest(reader, fn, `${what}: digest of a directory`));
      else reader.skip(tag);
    }
  } catch (error) {
    if (error instanceof ProtoError) throw invalidArgument(`${what} is not a Directory: ${error.message}`, error);
    throw error;
  }
}

/** Reads one FileNode or DirectoryNode with the reader before its length. */
function readNodeDigest(reader: Reader, fn: DigestFunction, what: string): Digest {
  const outerEnd = reader.enter();
  let digest: DigestMessage | undefined;
  while (reader.pos < reader.end) {
    const tag = reader.tag();
    if (tag !== TAG_NODE_DIGEST) {
      reader.skip(tag);
      continue;
    }
    const nodeEnd = reader.enter();
    digest = DigestMessage.merge(digest ?? DigestMessage.empty(), reader);
    reader.leave(nodeEnd);
  }
  reader.leave(outerEnd);
  return parseDigest(fn, digest, what);
}
