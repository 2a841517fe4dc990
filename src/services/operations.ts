// google.longrunning.Operations: look at, list, cancel, forget and wait for the operations of the Execution service.
//
// Source: wire/reapi.md 7. Operations live in memory; after a restart every name is unknown.

import type { Clock } from "../base/clock.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import type { BlobStore } from "../cas/blob-store.ts";
import type { Service, UnaryHandler } from "../grpc/service.ts";
import { Empty } from "../proto/empty.ts";
import {
  CancelOperationRequest,
  DeleteOperationRequest,
  GetOperationRequest,
  ListOperationsRequest,
  ListOperationsResponse,
  Operations,
  WaitOperationRequest,
} from "../proto/operations.ts";
import type { Operation } from "../scheduler/operation.ts";
import type { Scheduler } from "../scheduler/scheduler.ts";
import { decodeRequest } from "./decode.ts";
import { MAX_BATCH_TOTAL_BYTES } from "./message-limits.ts";
import { briefOperation, encodeOperation } from "./operation-message.ts";

export interface OperationsServiceDeps {
  readonly scheduler: Scheduler;
  readonly blobs: BlobStore;
  readonly clock: Clock;
}

const DEFAULT_PAGE_SIZE = 100;
const MAX_PAGE_SIZE = 1000;
/** Bytes of operations in one page. Even one operation with 5,000 missing blobs (600 KiB) leaves room for more. */
const MAX_PAGE_BYTES = MAX_BATCH_TOTAL_BYTES / 2;

export function createOperationsService(deps: OperationsServiceDeps): Service {
  const { methods } = Operations;
  const unary = (path: string, handler: UnaryHandler) => ({ kind: "unary", path, handler }) as const;
  return {
    name: Operations.typeName,
    methods: [
      unary(methods.GetOperation.path, createGet(deps)),
      unary(methods.ListOperations.path, createList(deps)),
      unary(methods.CancelOperation.path, createCancel(deps)),
      unary(methods.DeleteOperation.path, createDelete(deps)),
      unary(methods.WaitOperation.path, createWait(deps)),
    ],
  };
}

function createGet({ scheduler, blobs }: OperationsServiceDeps): UnaryHandler {
  return (bytes) => {
    const { name } = decodeRequest(GetOperationRequest, bytes);
    return encodeOperation(scheduler.view(scheduler.get(name)), blobs);
  };
}

/** `name` selects an instance: its operations, or those of every instance when empty. Pages follow creation. */
function createList({ scheduler }: OperationsServiceDeps): UnaryHandler {
  return (bytes) => {
    const request = decodeRequest(ListOperationsRequest, bytes);
    if (request.filter !== "")
      throw invalidArgument(`filter ${JSON.stringify(request.filter)}: filters are not offered`);
    if (request.returnPartialSuccess)
      throw new StatusError(Code.UNIMPLEMENTED, "return_partial_success is not offered");
    const after = parsePageToken(request.pageToken);
    const pageSize = parsePageSize(request.pageSize);
    const prefix = request.name === "" ? "" : `${request.name.replace(/\/?(operations)?\/?$/, "")}/operations/`;
    const page: Operation[] = [];
    let pageBytes = 0;
    let nextPageToken = "";
    for (const operation of scheduler.list()) {
      if (operation.sequence <= after || !operation.name.startsWith(prefix)) continue;
      pageBytes += sizeEstimate(operation);
      if (page.length === pageSize || (page.length > 0 && pageBytes > MAX_PAGE_BYTES)) {
        nextPageToken = String(page.at(-1)!.sequence);
        break;
      }
      page.push(operation);
    }
    const operations = page.map((operation) => briefOperation(scheduler.view(operation)));
    return ListOperationsResponse.encode({ operations, nextPageToken });
  };
}

function createCancel({ scheduler }: OperationsServiceDeps): UnaryHandler {
  return (bytes) => {
    scheduler.cancel(decodeRequest(CancelOperationRequest, bytes).name);
    return Empty.encode({});
  };
}

function createDelete({ scheduler }: OperationsServiceDeps): UnaryHandler {
  return (bytes) => {
    scheduler.delete(decodeRequest(DeleteOperationRequest, bytes).name);
    return Empty.encode({});
  };
}

/** Answers with the state at the end, at `timeout`, or at the call's deadline, whichever comes first. */
function createWait({ scheduler, blobs, clock }: OperationsServiceDeps): UnaryHandler {
  return async (bytes, call) => {
    const { name, timeout } = decodeRequest(WaitOperationRequest, bytes);
    const operation = scheduler.get(name);
    const timeUp = new AbortController();
    const cancelTimer =
      timeout === undefined
        ? () => undefined
        : clock.schedule(timeout.seconds * 1000 + timeout.nanos / 1e6, () => timeUp.abort());
    try {
      // Every view but the last is of no interest here.
      for await (const view of scheduler.watch(operation, AbortSignal.any([call.signal, timeUp.signal]))) void view;
    } finally {
      cancelTimer();
    }
    return encodeOperation(scheduler.view(operation), blobs);
  };
}

function parsePageSize(pageSize: number): number {
  if (pageSize < 0) throw invalidArgument(`page_size ${pageSize} is negative`);
  return pageSize === 0 ? DEFAULT_PAGE_SIZE : Math.min(pageSize, MAX_PAGE_SIZE);
}

function parsePageToken(token: string): number {
  if (token === "") return 0;
  if (!/^\d{1,15}$/.test(token)) {
    throw invalidArgument(`page_token ${JSON.stringify(token.slice(0, 40))} is not one this server gave out`);
  }
  return Number(token);
}

function sizeEstimate({ name, end }: Operation): number {
  const details = end?.status?.details.reduce((sum, detail) => sum + detail.value.length, 0) ?? 0;
  return name.length + 512 + (end?.result?.length ?? 0) + details;
}
