// An operation of the scheduler as google.longrunning.Operation with REAPI's metadata and response inside.
//
// Invariant: `error` is never set, `response` exactly when done; a message stays below what clients take: inlined data
// is left out first. Errors of the action travel here, never in trailers. Source: wire/reapi.md 3.4.

import { inlineOutputs } from "../action-cache/inlined-outputs.ts";
import type { StatusError } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { toWireDigest } from "../digest/digest.ts";
import { Operation as OperationMessage, type OperationInit } from "../proto/operations.ts";
import { QueuePosition } from "../proto/queue_position.ts";
import { ExecuteOperationMetadata, ExecuteResponse } from "../proto/remote_execution.ts";
import { Status } from "../proto/status.ts";
import { fieldHeader } from "../proto/wire.ts";
import type { OperationEnd } from "../scheduler/operation.ts";
import type { OperationView } from "../scheduler/scheduler.ts";
import { MAX_RESPONSE_BYTES } from "./message-limits.ts";

const TYPE_PREFIX = "type.googleapis.com/";
/** Name, metadata, type URLs and field headers around the result; each is far below this. */
const ENVELOPE_BYTES = 4096;
/** ExecuteResponse.result. */
const TAG_RESULT = 0x0a;

/** With the inlined data that the client asked for in Execute. */
export async function encodeOperation(view: OperationView, blobs: BlobStore): Promise<Uint8Array> {
  return OperationMessage.encode(await operationInit(view, blobs));
}

/** Without inlined data, for listings. */
export function briefOperation(view: OperationView): OperationInit {
  const { end } = view;
  return end === undefined ? unfinished(view) : finished(view, executeResponse(end, end.result));
}

export async function operationInit(view: OperationView, blobs: BlobStore): Promise<OperationInit> {
  const { operation, end } = view;
  if (end === undefined) return unfinished(view);
  if (end.result === undefined) return finished(view, executeResponse(end, undefined));
  const statusBytes = end.status === undefined ? 0 : Status.encode(statusInit(end.status)).length;
  const result = await inlineOutputs(end.result, operation.inlining, {
    fn: operation.actionDigest.fn,
    blobs,
    maxBytes: MAX_RESPONSE_BYTES - ENVELOPE_BYTES - statusBytes,
  });
  return finished(view, executeResponse(end, result));
}

function unfinished(view: OperationView): OperationInit {
  return { name: view.operation.name, metadata: metadata(view), done: false };
}

function finished(view: OperationView, response: Uint8Array): OperationInit {
  return {
    name: view.operation.name,
    metadata: metadata(view),
    done: true,
    response: { typeUrl: TYPE_PREFIX + ExecuteResponse.typeName, value: response },
  };
}

function metadata({ operation, stage, position }: OperationView) {
  const { actionDigest, task } = operation;
  const value = ExecuteOperationMetadata.encode({
    stage,
    actionDigest: toWireDigest(actionDigest),
    digestFunction: actionDigest.fn,
    // Of an ended operation the result says it.
    partialExecutionMetadata: task === undefined ? undefined : partialMetadata(task.job.queuedAtMs, position),
  });
  return { typeUrl: TYPE_PREFIX + ExecuteOperationMetadata.typeName, value };
}

/** Since when it waits and, for as long as it does, behind how many; `ledge operations` shows both. */
function partialMetadata(queuedAtMs: number, position: OperationView["position"]) {
  const seconds = Math.floor(queuedAtMs / 1000);
  const queuedTimestamp = { seconds, nanos: Math.floor((queuedAtMs - seconds * 1000) * 1e6) };
  if (position === undefined) return { queuedTimestamp };
  const value = QueuePosition.encode({ actionsAhead: position.ahead, queueDepth: position.depth });
  return { queuedTimestamp, auxiliaryMetadata: [{ typeUrl: TYPE_PREFIX + QueuePosition.typeName, value }] };
}

/** The result's bytes go in as they are, so that fields of newer versions survive. */
function executeResponse(end: OperationEnd, result: Uint8Array | undefined): Uint8Array {
  const rest = ExecuteResponse.encode({
    cachedResult: end.isCached,
    status: end.status === undefined ? undefined : statusInit(end.status),
    message: end.status?.message,
  });
  return result === undefined ? rest : Buffer.concat([fieldHeader(TAG_RESULT, result.length), result, rest]);
}

function statusInit(status: StatusError) {
  return { code: status.code, message: status.message, details: status.details };
}
