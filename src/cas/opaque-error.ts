// What an opaque store says to a value that is too large.

import { Code, StatusError } from "../base/status.ts";

export function opaqueTooLarge(key: string, receivedBytes: number, maxBytes: number): StatusError {
  return new StatusError(
    Code.RESOURCE_EXHAUSTED,
    `Cannot store "${key}": received ${receivedBytes} bytes, at most ${maxBytes} are accepted`,
  );
}
