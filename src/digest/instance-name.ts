// Instance names: which action cache a request means. Validated once, at the edge; inside they are plain strings.
//
// Invariant: a validated name can stand in front of a ByteStream resource name without changing how that one parses.
// Source: remote_execution.proto (instance_name). The empty name is valid; `/` separates segments.

import { invalidArgument } from "../base/status.ts";

const RESERVED_SEGMENTS: ReadonlySet<string> = new Set([
  "blobs",
  "uploads",
  "actions",
  "actionResults",
  "operations",
  "capabilities",
  "compressed-blobs",
]);

/** Keys of the action cache carry the name; 512 bytes leave room for any path a person would type. */
export const MAX_INSTANCE_NAME_BYTES = 512;

/** Returns `text` when it is an instance name; throws INVALID_ARGUMENT. */
export function parseInstanceName(text: string): string {
  if (text === "") return text;
  if (text.length > MAX_INSTANCE_NAME_BYTES || Buffer.byteLength(text) > MAX_INSTANCE_NAME_BYTES) {
    throw invalidArgument(
      `instance_name has ${Buffer.byteLength(text)} bytes, at most ${MAX_INSTANCE_NAME_BYTES} are allowed`,
    );
  }
  for (const segment of text.split("/")) {
    if (segment === "") {
      throw invalidArgument(`instance_name "${text}" has an empty segment: remove leading, trailing and doubled "/"`);
    }
    if (RESERVED_SEGMENTS.has(segment)) {
      throw invalidArgument(`instance_name "${text}" contains the reserved segment "${segment}": choose another name`);
    }
    if (segment.includes("\0")) throw invalidArgument("instance_name contains a NUL character");
  }
  return text;
}
