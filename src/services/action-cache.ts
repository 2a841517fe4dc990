// build.bazel.remote.execution.v2.ActionCache: results of actions, by action digest and instance name.
//
// Results travel as bytes: what is stored is what is answered, plus the data a client asked to have inlined. Whether all
// of its blobs are there is the ActionCache behind this service (completeness-checking-action-cache.ts).

import type { ActionCache, ActionKey, Provenance } from "../action-cache/action-cache.ts";
import { inlineOutputs } from "../action-cache/inlined-outputs.ts";
import { prepareActionResult } from "../action-cache/prepare-action-result.ts";
import type { Clock } from "../base/clock.ts";
import { Code, Failure, invalidArgument } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { digestOf } from "../compute/hash.ts";
import { parseDigest, parseDigestFunction } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import type { Call, Service, UnaryAnswer, UnaryHandler } from "../grpc/service.ts";
import {
  ActionCache as Methods,
  GetActionResultRequest,
  UpdateActionResultRequest,
} from "../proto/remote_execution.ts";
import type { MetricsRegistry } from "../telemetry/metrics.ts";
import { rawFields } from "../action-cache/raw-fields.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_LIST_REQUEST_BYTES, MAX_RESPONSE_BYTES } from "./message-limits.ts";
import { requestInfo } from "./request-metadata.ts";

export interface ActionCacheServiceDeps {
  readonly actionCache: ActionCache;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly metrics: MetricsRegistry;
}

export function createActionCacheService(deps: ActionCacheServiceDeps): Service {
  const { GetActionResult, UpdateActionResult } = Methods.methods;
  return {
    name: Methods.typeName,
    methods: [
      { kind: "unary", path: GetActionResult.path, handler: createGetActionResult(deps) },
      {
        kind: "unary",
        path: UpdateActionResult.path,
        handler: createUpdateActionResult(deps),
        maxRequestBytes: MAX_LIST_REQUEST_BYTES,
      },
    ],
  };
}

function createGetActionResult(deps: ActionCacheServiceDeps): UnaryHandler {
  const oversized = deps.metrics.counter(
    "ledge_action_results_oversized_total",
    "Action results sent whole although larger than the 4 MiB that gRPC clients take by default.",
  );
  const counted = (answer: Uint8Array): Uint8Array => {
    if (answer.length > MAX_RESPONSE_BYTES) oversized.add();
    return answer;
  };
  return (bytes) => {
    const request = decodeRequest(GetActionResultRequest, bytes);
    const key = parseKey(request);
    const wanted = {
      stdout: request.inlineStdout,
      stderr: request.inlineStderr,
      outputFiles: request.inlineOutputFiles,
    };
    const answerWith = (result: Uint8Array | undefined): UnaryAnswer | Promise<Uint8Array> => {
      if (result === undefined) return new Failure(Code.NOT_FOUND, `no result of action "${key.hash}" is cached`);
      if (!wanted.stdout && !wanted.stderr && wanted.outputFiles.length === 0) return counted(result);
      return inlineOutputs(result, wanted, { fn: key.fn, blobs: deps.blobs, maxBytes: MAX_RESPONSE_BYTES }).then(
        counted,
      );
    };
    const result = deps.actionCache.get(key);
    return result instanceof Promise ? result.then(answerWith) : answerWith(result);
  };
}

function createUpdateActionResult(deps: ActionCacheServiceDeps): UnaryHandler {
  return async (bytes, call) => {
    const request = decodeRequest(UpdateActionResultRequest, bytes);
    const key = parseKey(request);
    const { result, worker } = await prepareActionResult(actionResultBytes(bytes, key.hash), {
      fn: key.fn,
      blobs: deps.blobs,
      digestOf,
      defaultWorker: call.peer,
    });
    await deps.actionCache.put(key, result, provenance(call, worker, deps.clock));
    return result;
  };
}

function parseKey(request: {
  readonly instanceName: string;
  readonly digestFunction: number;
  readonly actionDigest: { hash: string; sizeBytes: number } | undefined;
}): ActionKey {
  const fn = parseDigestFunction(request.digestFunction);
  const { hash } = parseDigest(fn, request.actionDigest, "action_digest");
  return { instanceName: parseInstanceName(request.instanceName), fn, hash };
}

const TAG_ACTION_RESULT = 0x1a;

/** The result as the client wrote it: the decoded one has lost the fields that this version does not know. */
function actionResultBytes(request: Uint8Array, hash: string): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const field of rawFields(request, UpdateActionResultRequest.typeName)) {
    if (field.tag === TAG_ACTION_RESULT) parts.push(field.payload);
  }
  if (parts.length === 0) throw invalidArgument(`action_result is missing: there is nothing to store for "${hash}"`);
  // Several occurrences of a message field are one message: their concatenation.
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

function provenance(call: Call, worker: string, clock: Clock): Provenance {
  const info = requestInfo(call);
  return {
    writer: call.peer,
    worker,
    writtenAtMs: clock.nowMs(),
    ...(info?.toolInvocationId === undefined ? {} : { toolInvocationId: info.toolInvocationId }),
    ...(info?.targetId === undefined ? {} : { targetId: info.targetId }),
    ...(info?.actionMnemonic === undefined ? {} : { actionMnemonic: info.actionMnemonic }),
  };
}
