// The status that makes a client upload what is missing and try again.
//
// Invariant: one violation per missing blob, each of type MISSING, and no other detail: Bazel recovers from exactly
// that. Source: wire/reapi.md 3.4, comment of Execution.Execute in the proto.

import { Code, StatusError } from "../base/status.ts";
import { PreconditionFailure } from "../proto/error_details.ts";
import { digestKey, formatDigest, type Digest } from "./digest.ts";

const TYPE_URL = "type.googleapis.com/google.rpc.PreconditionFailure";

/**
 * A violation has some 90 bytes and the message must stay below the 4 MiB that clients take. A client that uploads the
 * first 30,000 hears of the next ones then; with all of them it would hear of none.
 */
const MAX_VIOLATIONS = 30_000;

/** FAILED_PRECONDITION naming every digest once; `what` says whose blobs they are ("Input root"). */
export function missingBlobs(digests: Iterable<Digest>, what: string): StatusError {
  const distinct = [...new Map([...digests].map((digest) => [digestKey(digest), digest])).values()];
  const violations = distinct
    .slice(0, MAX_VIOLATIONS)
    .map((digest) => ({ type: "MISSING", subject: `blobs/${formatDigest(digest)}` }));
  const first = violations[0]?.subject ?? "none";
  const message =
    distinct.length === 1
      ? `${what}: blob "${first}" is missing from the CAS; upload it and try again`
      : `${what}: ${distinct.length} blobs are missing from the CAS, the first is "${first}"; upload them and try again`;
  const details = [{ typeUrl: TYPE_URL, value: PreconditionFailure.encode({ violations }) }];
  return new StatusError(Code.FAILED_PRECONDITION, message, { details });
}
