// Every digest function the harness can compute without native code, by its number in the protocol.
//
// Invariant: a function that is not in the table is never used; the suite then says so. Source: DigestFunction.Value in
// the proto; SHA256TREE and GITSHA1 as described there.

import { createHash } from "node:crypto";
import { DigestFunction_Value as Fn } from "../src/proto/remote_execution.ts";
import type { DigestInit } from "../src/proto/remote_execution.ts";
import { blake3Hex } from "./blake3.ts";
import { sha256TreeHex } from "./sha256tree.ts";

export interface DigestFunctionSpec {
  readonly value: number;
  readonly name: string;
  /** The segment in ByteStream names, "" where it is implied by the hash's length. */
  readonly segment: string;
  readonly hexLength: number;
  readonly hash: (data: Uint8Array) => string;
}

const plain = (value: number, name: string, algorithm: string, hexLength: number): DigestFunctionSpec => ({
  value,
  name,
  segment: "",
  hexLength,
  hash: (data) => createHash(algorithm).update(data).digest("hex"),
});

const SPECS: readonly DigestFunctionSpec[] = [
  plain(Fn.SHA256, "SHA256", "sha256", 64),
  plain(Fn.SHA1, "SHA1", "sha1", 40),
  plain(Fn.MD5, "MD5", "md5", 32),
  plain(Fn.SHA384, "SHA384", "sha384", 96),
  plain(Fn.SHA512, "SHA512", "sha512", 128),
  { value: Fn.SHA256TREE, name: "SHA256TREE", segment: "sha256tree", hexLength: 64, hash: sha256TreeHex },
  { value: Fn.BLAKE3, name: "BLAKE3", segment: "blake3", hexLength: 64, hash: blake3Hex },
  { value: Fn.GITSHA1, name: "GITSHA1", segment: "gitsha1", hexLength: 40, hash: gitSha1Hex },
];

export function findDigestFunction(value: number): DigestFunctionSpec | undefined {
  return SPECS.find((spec) => spec.value === value);
}

export function digestFunctionName(value: number): string {
  for (const [name, number] of Object.entries(Fn)) if (number === value) return name;
  return `function ${value}`;
}

export type BlobDigest = Required<DigestInit> & { readonly hash: string; readonly sizeBytes: number };

export function digestOf(fn: DigestFunctionSpec, data: Uint8Array): BlobDigest {
  return { hash: fn.hash(data), sizeBytes: data.length };
}

function gitSha1Hex(data: Uint8Array): string {
  return createHash("sha1").update(`blob ${data.length}\0`).update(data).digest("hex");
}
