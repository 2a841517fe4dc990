// The digests of all files in a Tree message, while its bytes arrive: a Tree may be far larger than memory should be.
//
//   Tree ─► root, children: entered, not buffered ─► Directory ─► files: buffered one at a time; the rest is skipped
//
// Invariant: at most one FileNode and one chunk are held. Directories inside a Tree are part of it and need no blob of
// their own. Source: remote_execution.proto (Tree, Directory, FileNode).

import { invalidArgument, type StatusError } from "../base/status.ts";
import type { DigestBatch } from "../digest/digest-batch.ts";
import type { DigestFunction } from "../digest/digest.ts";
import { Reader } from "../proto/wire.ts";
import { readDigestInto } from "./read-digest.ts";

const TAG_ROOT = 0x0a;
const TAG_CHILD = 0x12;
const TAG_FILE = 0x0a;
const TAG_FILE_DIGEST = 0x12;
/** A file's name, digest and properties. Names end at 255 bytes on every file system; properties are few. */
const MAX_FILE_NODE_BYTES = 1024 * 1024;
const MAX_HEADER_BYTES = 20;

export class TreeDigests {
  readonly #fn: DigestFunction;
  readonly #files: DigestBatch;
  #rest: Uint8Array = new Uint8Array(0);
  /** Bytes of the Directory being read that are still to come; undefined between directories. */
  #directoryBytes: number | undefined;
  /** Bytes of a field nobody needs that are still to come. */
  #skipBytes = 0;

  /** Digests of files are added to `files`, which the owner empties between chunks; empty files are left out. */
  constructor(fn: DigestFunction, files: DigestBatch) {
    this.#fn = fn;
    this.#files = files;
  }

  /** Throws INVALID_ARGUMENT or ProtoError when the bytes are not a Tree. */
  push(chunk: Uint8Array): void {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let pos = 0;
    for (;;) {
      const used = this.#step(data, pos);
      if (used === 0) break;
      pos += used;
    }
    // A copy: the chunk is not ours once push has returned.
    this.#rest = new Uint8Array(data.subarray(pos));
  }

  finish(): void {
    if (this.#rest.length > 0 || this.#skipBytes > 0 || (this.#directoryBytes ?? 0) > 0) {
      throw malformed("it ends in the middle of a field");
    }
  }

  /** Takes one field, or what is there of a field to be skipped; returns the bytes used, 0 when more must come. */
  #step(data: Uint8Array, pos: number): number {
    if (this.#skipBytes > 0) {
      const used = Math.min(this.#skipBytes, data.length - pos);
      this.#skipBytes -= used;
      return this.#use(used);
    }
    if (this.#directoryBytes === 0) this.#directoryBytes = undefined;
    const header = readHeader(data, pos);
    if (header === undefined) return 0;
    const { tag, headerBytes, payloadBytes } = header;
    if (this.#directoryBytes === undefined) {
      if (tag === TAG_ROOT || tag === TAG_CHILD) this.#directoryBytes = payloadBytes;
      else this.#skipBytes = payloadBytes;
      return headerBytes;
    }
    if (headerBytes + payloadBytes > this.#directoryBytes) throw malformed("a field exceeds its Directory");
    if (tag !== TAG_FILE) {
      this.#skipBytes = payloadBytes;
      return this.#use(headerBytes);
    }
    if (payloadBytes > MAX_FILE_NODE_BYTES) throw malformed(`a FileNode has ${payloadBytes} bytes`);
    if (data.length - pos < headerBytes + payloadBytes) return 0;
    const node = data.subarray(pos + headerBytes, pos + headerBytes + payloadBytes);
    this.#readFile(new Reader(node, "build.bazel.remote.execution.v2.FileNode"), node);
    return this.#use(headerBytes + payloadBytes);
  }

  #readFile(reader: Reader, node: Uint8Array): void {
    let hasDigest = false;
    while (reader.pos < reader.end) {
      const tag = reader.tag();
      if (tag === TAG_FILE_DIGEST) {
        readDigestInto(this.#files, this.#fn, { reader, bytes: node, what: "file in a Tree" });
        hasDigest = true;
      } else {
        reader.skip(tag);
      }
    }
    if (!hasDigest) throw malformed("a file has no digest");
  }

  #use(bytes: number): number {
    if (this.#directoryBytes !== undefined) this.#directoryBytes -= bytes;
    return bytes;
  }
}

interface FieldHeader {
  readonly tag: number;
  /** Where the length begins, from the field's start. */
  readonly lengthAt: number;
  /** Tag and length; of a field that is not length-delimited, the whole of it. */
  readonly headerBytes: number;
  readonly payloadBytes: number;
}

/** Undefined when the header is not complete yet. */
function readHeader(data: Uint8Array, start: number): FieldHeader | undefined {
  const end = Math.min(data.length, start + MAX_HEADER_BYTES);
  const tag = readVarint(data, start, end);
  if (tag === undefined) return undefined;
  const lengthAt = tag.bytes;
  const wireType = tag.value & 7;
  if (wireType === 1) return { tag: tag.value, lengthAt, headerBytes: lengthAt, payloadBytes: 8 };
  if (wireType === 5) return { tag: tag.value, lengthAt, headerBytes: lengthAt, payloadBytes: 4 };
  if (wireType !== 0 && wireType !== 2) throw malformed(`wire type ${wireType}`);
  const value = readVarint(data, start + lengthAt, end);
  if (value === undefined) return undefined;
  const headerBytes = lengthAt + value.bytes;
  return { tag: tag.value, lengthAt, headerBytes, payloadBytes: wireType === 2 ? value.value : 0 };
}

function readVarint(data: Uint8Array, start: number, end: number): { value: number; bytes: number } | undefined {
  let value = 0;
  let factor = 1;
  for (let pos = start; pos < end; pos++, factor *= 128) {
    const byte = data[pos]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return { value, bytes: pos + 1 - start };
    if (pos - start >= 9) throw malformed("a varint is longer than 10 bytes");
  }
  return undefined;
}

function malformed(what: string): StatusError {
  return invalidArgument(`not a Tree: ${what}`);
}
