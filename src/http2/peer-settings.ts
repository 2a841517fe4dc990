// Reads a SETTINGS payload (F-34). What a value means for windows and tables is the connection's business.

import { ErrorCode } from "./error-code.ts";
import { ConnectionError, DEFAULT_MAX_FRAME_BYTES, MAX_WINDOW_BYTES, SettingId } from "./frame.ts";

const MAX_ENTRIES = 32;
const MAX_FRAME_BYTES = 2 ** 24 - 1;

/** Reports each entry in order, after checking it; a value may come twice, and each counts. */
export function readSettings(
  octets: Uint8Array,
  start: number,
  end: number,
  onEntry: (id: number, value: number) => void,
): void {
  if ((end - start) / 6 > MAX_ENTRIES) {
    throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `SETTINGS with more than ${MAX_ENTRIES} entries`);
  }
  for (let at = start; at < end; at += 6) {
    const id = (octets[at]! << 8) | octets[at + 1]!;
    const value = octets[at + 2]! * 2 ** 24 + ((octets[at + 3]! << 16) | (octets[at + 4]! << 8) | octets[at + 5]!);
    checkEntry(id, value);
    onEntry(id, value);
  }
}

function checkEntry(id: number, value: number): void {
  if (id === SettingId.ENABLE_PUSH && value > 1) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1");
  }
  if (id === SettingId.INITIAL_WINDOW_SIZE && value > MAX_WINDOW_BYTES) {
    throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1");
  }
  if (id === SettingId.MAX_FRAME_SIZE && (value < DEFAULT_MAX_FRAME_BYTES || value > MAX_FRAME_BYTES)) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is not between 2^14 and 2^24-1");
  }
}
