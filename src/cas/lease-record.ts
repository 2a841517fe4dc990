// The record of live invocations, so that a restart takes no lease away: who has which number, and when it called last.
//
//   'l'   u32 CRC-32 of what follows, JSON as SavedInvocations
//
// The blobs are in the access log, each with its number. Numbers mean something within an epoch: one that gave numbers
// anew begins another.

import { crc32 } from "node:zlib";
import type { SavedInvocations } from "./invocations.ts";

export const LEASES_KEY = Uint8Array.from([0x6c]);
const CHECKSUM_BYTES = 4;

export function encodeLeases(saved: SavedInvocations): Uint8Array {
  const text = Buffer.from(JSON.stringify(saved), "utf8");
  const value = Buffer.allocUnsafe(CHECKSUM_BYTES + text.length);
  value.writeUInt32LE(crc32(text), 0);
  value.set(text, CHECKSUM_BYTES);
  return value;
}

/** Undefined when it is absent or damaged: leases of before are gone then. */
export function decodeLeases(value: Uint8Array | undefined): SavedInvocations | undefined {
  if (value === undefined || value.length < CHECKSUM_BYTES) return undefined;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const text = bytes.subarray(CHECKSUM_BYTES);
  return crc32(text) === bytes.readUInt32LE(0) ? (JSON.parse(text.toString("utf8")) as SavedInvocations) : undefined;
}
