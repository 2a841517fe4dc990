// The RequestMetadata header: which tool and which invocation a call belongs to.
//
// It is information, never a condition: a malformed header is the same as none. Old BuildBox and recc builds send it
// under the short name. Source: remote_execution.proto, comment of RequestMetadata.

import type { Call } from "../grpc/service.ts";
import { RequestMetadata } from "../proto/remote_execution.ts";

const HEADER = "build.bazel.remote.execution.v2.requestmetadata-bin";
const SHORT_HEADER = "requestmetadata-bin";

/** Header text beyond this is cut: the values end up in records and logs. */
const MAX_TEXT_LENGTH = 1024;

export interface RequestInfo {
  readonly toolName: string | undefined;
  readonly toolVersion: string | undefined;
  readonly actionId: string | undefined;
  readonly toolInvocationId: string | undefined;
  readonly correlatedInvocationsId: string | undefined;
  readonly actionMnemonic: string | undefined;
  readonly targetId: string | undefined;
  readonly configurationId: string | undefined;
}

/** The header as it was sent: calls with the same text belong to the same invocation. */
export function requestMetadataText(call: Call): string | undefined {
  return call.metadata(HEADER) ?? call.metadata(SHORT_HEADER);
}

/** Undefined when the client sent no header, or one that is not a RequestMetadata. */
export function requestInfo(call: Call): RequestInfo | undefined {
  const bytes = call.binaryMetadata(HEADER) ?? call.binaryMetadata(SHORT_HEADER);
  if (bytes === undefined) return undefined;
  let metadata: RequestMetadata;
  try {
    metadata = RequestMetadata.decode(bytes);
  } catch {
    return undefined; // safe: nothing depends on it
  }
  return {
    toolName: text(metadata.toolDetails?.toolName),
    toolVersion: text(metadata.toolDetails?.toolVersion),
    actionId: text(metadata.actionId),
    toolInvocationId: text(metadata.toolInvocationId),
    correlatedInvocationsId: text(metadata.correlatedInvocationsId),
    actionMnemonic: text(metadata.actionMnemonic),
    targetId: text(metadata.targetId),
    configurationId: text(metadata.configurationId),
  };
}

function text(value: string | undefined): string | undefined {
  return value === undefined || value === "" ? undefined : value.slice(0, MAX_TEXT_LENGTH);
}
