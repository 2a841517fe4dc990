// The request headers that gRPC itself looks at, found in one walk over the fields.

import type { RequestHeaders } from "../http2/request-headers.ts";
import { isBinaryValue } from "./binary-metadata.ts";

/** Reused for every call: valid until the next `readCallHeaders`. */
export interface CallHeaders {
  contentType: string | undefined;
  timeout: string | undefined;
  hosts: number;
  authorizations: number;
  /** Every `-bin` value is base64 (G-11). */
  binaryValid: boolean;
}

const found: CallHeaders = {
  contentType: undefined,
  timeout: undefined,
  hosts: 0,
  authorizations: 0,
  binaryValid: true,
};

export function readCallHeaders(headers: RequestHeaders): CallHeaders {
  found.contentType = undefined;
  found.timeout = undefined;
  found.hosts = 0;
  found.authorizations = 0;
  found.binaryValid = true;
  for (let index = 0; index < headers.fieldCount; index++) {
    const name = headers.nameAt(index);
    // Comparing lengths first makes most fields cost one branch.
    if (name.length === 12) {
      if (name === "content-type") found.contentType = join(found.contentType, headers.valueAt(index));
      else if (name === "grpc-timeout") found.timeout = join(found.timeout, headers.valueAt(index));
    } else if (name.length === 4 && name === "host") found.hosts++;
    else if (name.length === 13 && name === "authorization") found.authorizations++;
    if (name.endsWith("-bin") && !isBinaryValue(headers.valueAt(index))) found.binaryValid = false;
  }
  return found;
}

/** Two of them are one value that means nothing, and is refused as such. */
function join(known: string | undefined, value: string): string {
  return known === undefined ? value : `${known},${value}`;
}
