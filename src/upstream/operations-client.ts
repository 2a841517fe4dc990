// Lists the operations of a server through google.longrunning.Operations, page by page.
//
// Works with any server of the API; what only ledge says (the position in the queue) is absent elsewhere.

import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { ListOperationsRequest, ListOperationsResponse, Operations } from "../proto/operations.ts";
import { QueuePosition } from "../proto/queue_position.ts";
import { ExecuteOperationMetadata } from "../proto/remote_execution.ts";

export interface ListedOperation {
  readonly name: string;
  readonly isDone: boolean;
  /** Value of ExecutionStage; 0 when the server does not say. */
  readonly stage: number;
  /** Epoch milliseconds since when it waits. */
  readonly queuedAtMs: number | undefined;
  readonly actionsAhead: number | undefined;
  readonly queueDepth: number | undefined;
  /** `HASH/SIZE`. */
  readonly action: string | undefined;
}

export interface ServerAddress {
  /** As grpc-js takes it: HOST:PORT or unix:PATH. */
  readonly address: string;
  readonly tls: boolean;
}

const PAGE_SIZE = 1000;
/** A server that is too busy to list for this long is worth an error. */
const DEADLINE_MS = 30_000;

/** `instanceName` empty: of all instances. Rejects with a grpc-js ServiceError. */
export async function* listOperations(server: ServerAddress, instanceName: string): AsyncGenerator<ListedOperation> {
  const client = new Client(server.address, server.tls ? credentials.createSsl() : credentials.createInsecure());
  try {
    for (let pageToken = ""; ;) {
      const request = { name: instanceName, pageSize: PAGE_SIZE, pageToken };
      const { operations, nextPageToken } = await listPage(client, request);
      for (const { name, done, metadata } of operations) yield { name, isDone: done, ...readMetadata(metadata) };
      if (nextPageToken === "") return;
      pageToken = nextPageToken;
    }
  } finally {
    client.close();
  }
}

function listPage(client: Client, request: { name: string; pageSize: number; pageToken: string }) {
  const { promise, resolve, reject } = Promise.withResolvers<ListOperationsResponse>();
  client.makeUnaryRequest(
    Operations.methods.ListOperations.path,
    (init: typeof request) => Buffer.from(ListOperationsRequest.encode(init)),
    (bytes: Buffer) => ListOperationsResponse.decode(bytes),
    request,
    { deadline: Date.now() + DEADLINE_MS },
    (error: ServiceError | null, response?: ListOperationsResponse) =>
      response === undefined
        ? reject(error ?? new Error("ListOperations was answered with nothing"))
        : resolve(response),
  );
  return promise;
}

function readMetadata(any: { readonly typeUrl: string; readonly value: Uint8Array } | undefined) {
  const isOurs = any?.typeUrl.endsWith(`/${ExecuteOperationMetadata.typeName}`) === true;
  const metadata = isOurs ? ExecuteOperationMetadata.decode(any.value) : undefined;
  const partial = metadata?.partialExecutionMetadata;
  const queued = partial?.queuedTimestamp;
  const suffix = `/${QueuePosition.typeName}`;
  const extra = partial?.auxiliaryMetadata.find(({ typeUrl }) => typeUrl.endsWith(suffix));
  const position = extra === undefined ? undefined : QueuePosition.decode(extra.value);
  const digest = metadata?.actionDigest;
  return {
    stage: metadata?.stage ?? 0,
    queuedAtMs: queued === undefined ? undefined : queued.seconds * 1000 + queued.nanos / 1e6,
    actionsAhead: position?.actionsAhead,
    queueDepth: position?.queueDepth,
    action: digest === undefined ? undefined : `${digest.hash}/${digest.sizeBytes}`,
  };
}
