// build.bazel.remote.execution.v2.Execution: run an action, or wait for one that runs.
//
// What is wrong with the request is the status of the call; what happens to the action is inside the final Operation.
// Cache check, merging and queueing are scheduler/; the messages are operation-message.ts.

import type { Clock } from "../base/clock.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import { parseDigest, parseDigestFunction, type Digest } from "../digest/digest.ts";
import { parseInstanceName } from "../digest/instance-name.ts";
import { missingBlobs } from "../digest/missing-blobs.ts";
import type { Call, Service, StreamCall, StreamHandler } from "../grpc/service.ts";
import { Action, ExecuteRequest, Execution, WaitExecutionRequest } from "../proto/remote_execution.ts";
import type { OperationView, Scheduler } from "../scheduler/scheduler.ts";
import { withoutBriefStages } from "./brief-stages.ts";
import { decodeRequest } from "./decode.ts";
import { encodeOperation } from "./operation-message.ts";
import { requestInfo } from "./request-metadata.ts";

export interface ExecutionServiceDeps {
  readonly scheduler: Scheduler;
  readonly blobs: BlobStore;
  readonly clock: Clock;
}

/** An Action with a hundred platform properties has a few KiB; a blob named as one by mistake can be anything. */
const MAX_ACTION_BYTES = 4 * 1024 * 1024;
/** How long a cache check may take before the client is told that it is under way. */
const SILENT_CACHE_CHECK_MS = 1000;

export function createExecutionService(deps: ExecutionServiceDeps): Service {
  const { Execute, WaitExecution } = Execution.methods;
  return {
    name: Execution.typeName,
    methods: [
      { kind: "stream", path: Execute.path, handler: createExecute(deps) },
      { kind: "stream", path: WaitExecution.path, handler: createWaitExecution(deps) },
    ],
  };
}

function createExecute({ scheduler, blobs, clock }: ExecutionServiceDeps): StreamHandler {
  return async (call) => {
    const request = decodeRequest(ExecuteRequest, await readOnly(call));
    const instanceName = parseInstanceName(request.instanceName);
    const actionDigest = parseDigest(
      parseDigestFunction(request.digestFunction),
      request.actionDigest,
      "action_digest",
    );
    if (scheduler.slots === 0) throw notExecuting(scheduler.unavailableReason);
    const action = await readAction(actionDigest, blobs);
    const doNotCache = decodeRequest(Action, action).doNotCache;
    const operation = scheduler.submit({
      job: {
        instanceName,
        actionDigest,
        action,
        cacheable: !doNotCache,
        queuedAtMs: clock.nowMs(),
        ...invocation(call),
      },
      inlining: {
        stdout: request.inlineStdout,
        stderr: request.inlineStderr,
        outputFiles: request.inlineOutputFiles,
      },
      doNotCache,
      skipCacheLookup: request.skipCacheLookup,
      priority: request.executionPolicy?.priority ?? 0,
    });
    // A hit is one final message, and what is wrong with the action is the status of this call: so the first message
    // waits for the cache check, but not for long.
    await scheduler.pastCacheCheck(operation, SILENT_CACHE_CHECK_MS, call.signal);
    if (operation.end?.isRejected === true && operation.end.status !== undefined) {
      scheduler.forget(operation);
      throw operation.end.status;
    }
    await send(call, withoutBriefStages(scheduler.watchFromStart(operation, call.signal), clock), blobs);
  };
}

/** Unlike Execute it tells the present stage at once: its client comes back to see what became of the operation. */
function createWaitExecution({ scheduler, blobs }: ExecutionServiceDeps): StreamHandler {
  return async (call) => {
    const { name } = decodeRequest(WaitExecutionRequest, await readOnly(call));
    await send(call, scheduler.watch(scheduler.get(name), call.signal), blobs);
  };
}

async function send(call: StreamCall, views: AsyncIterable<OperationView>, blobs: BlobStore): Promise<void> {
  for await (const view of views) {
    const written = call.write(await encodeOperation(view, blobs));
    // The last one is not awaited, so that the trailers leave in its packet; if it fails, the call is over anyway.
    if (view.end !== undefined) written.catch(() => undefined);
    else await written;
  }
}

/** The one message of a server-streaming call. */
async function readOnly(call: StreamCall): Promise<Uint8Array> {
  const message = await call.read();
  if (message === undefined) throw invalidArgument(`${call.path} was ended without a request message`);
  return message;
}

async function readAction(digest: Digest, blobs: BlobStore): Promise<Uint8Array> {
  if (digest.sizeBytes > MAX_ACTION_BYTES) {
    throw invalidArgument(`action_digest.size_bytes is ${digest.sizeBytes}, an Action has at most ${MAX_ACTION_BYTES}`);
  }
  const bytes = await blobs.get(digest);
  if (bytes === undefined) throw missingBlobs([digest], "Action");
  return bytes;
}

function invocation(call: Call) {
  const info = requestInfo(call);
  return {
    toolInvocationId: info?.toolInvocationId,
    targetId: info?.targetId,
    actionMnemonic: info?.actionMnemonic,
  };
}

function notExecuting(reason: string | undefined): StatusError {
  return new StatusError(
    Code.FAILED_PRECONDITION,
    `This server does not execute actions: ${reason ?? "it has no execution slots"}`,
  );
}
