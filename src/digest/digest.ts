// Digests: the name of a blob. Validated once, at the edge, into a value that cannot be malformed.
//
// Source: remote_execution.proto (Digest, DigestFunction). `hash` is lower-case hex of the function's full length,
// `sizeBytes` a safe non-negative integer, and size 0 goes with the empty hash only.

import { createHash } from "node:crypto";
import { Code, StatusError, invalidArgument } from "../base/status.ts";

/** Values are those of DigestFunction.Value in the proto. Both functions have 32-byte hashes. */
export const DigestFunction = { SHA256: 1, BLAKE3: 9 } as const;
export type DigestFunction = (typeof DigestFunction)[keyof typeof DigestFunction];

export const DIGEST_FUNCTIONS: readonly DigestFunction[] = [DigestFunction.SHA256, DigestFunction.BLAKE3];
export const HASH_BYTES = 32;
export const HASH_HEX_LENGTH = 64;

export interface Digest {
  readonly fn: DigestFunction;
  readonly hash: string;
  readonly sizeBytes: number;
}

export const EMPTY_HASH: Readonly<Record<DigestFunction, string>> = {
  [DigestFunction.SHA256]: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  [DigestFunction.BLAKE3]: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
};

export function emptyDigest(fn: DigestFunction): Digest {
  return { fn, hash: EMPTY_HASH[fn], sizeBytes: 0 };
}

export function isEmptyDigest(digest: Digest): boolean {
  return digest.sizeBytes === 0;
}

/**
 * Validates a digest from the wire. `what` names it in the message ("action_digest", "blob_digests[3]").
 * Throws INVALID_ARGUMENT.
 */
export function parseDigest(
  fn: DigestFunction,
  wire: { readonly hash: string; readonly sizeBytes: number } | undefined,
  what: string,
): Digest {
  if (wire === undefined) throw invalidArgument(`${what} is missing: a digest with hash and size_bytes is required`);
  const { hash, sizeBytes } = wire;
  if (hash.length !== HASH_HEX_LENGTH) {
    throw invalidArgument(
      `${what}: hash "${clip(hash)}" has ${hash.length} characters, expected ${HASH_HEX_LENGTH} (${functionName(fn)})`,
    );
  }
  if (!/^[0-9a-f]+$/.test(hash)) {
    throw invalidArgument(`${what}: hash "${clip(hash)}" is not lower-case hexadecimal`);
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw invalidArgument(`${what}: size_bytes ${sizeBytes} is not between 0 and 2^53-1`);
  }
  if (sizeBytes === 0 && hash !== EMPTY_HASH[fn]) {
    throw invalidArgument(
      `${what}: size_bytes is 0 but hash "${hash}" is not the ${functionName(fn)} hash of the empty blob`,
    );
  }
  return { fn, hash, sizeBytes };
}

/**
 * Returns the function a request means: 0 is inferred as SHA-256, the only advertised function of its kind that may be
 * left unset (the proto forbids leaving BLAKE3 unset). Throws INVALID_ARGUMENT for functions this server lacks.
 */
export function parseDigestFunction(value: number): DigestFunction {
  if (value === 0 || value === DigestFunction.SHA256) return DigestFunction.SHA256;
  if (value === DigestFunction.BLAKE3) return DigestFunction.BLAKE3;
  throw invalidArgument(`digest_function ${value} is not supported: this server offers SHA256 (1) and BLAKE3 (9)`);
}

export function functionName(fn: DigestFunction): "SHA256" | "BLAKE3" {
  return fn === DigestFunction.SHA256 ? "SHA256" : "BLAKE3";
}

/** `{hash}/{size}`, with the function before it where resource names carry one: the subject of a missing blob. */
export function formatDigest(digest: Digest): string {
  const prefix = digest.fn === DigestFunction.BLAKE3 ? "blake3/" : "";
  return `${prefix}${digest.hash}/${digest.sizeBytes}`;
}

/** A key for Maps and Sets: two digests are the same blob if and only if their keys are equal. */
export function digestKey(digest: Digest): string {
  return `${digest.fn}:${digest.hash}:${digest.sizeBytes}`;
}

/** The form that goes into messages. */
export function toWireDigest(digest: Digest): { hash: string; sizeBytes: number } {
  return { hash: digest.hash, sizeBytes: digest.sizeBytes };
}

export function sha256Hex(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

export function digestMismatch(expected: Digest, actualHash: string, actualSizeBytes: number): StatusError {
  const actual = `${actualHash}/${actualSizeBytes}`;
  return new StatusError(
    Code.INVALID_ARGUMENT,
    `Cannot store blob "${formatDigest(expected)}": the received bytes are "${actual}"`,
  );
}

function clip(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
