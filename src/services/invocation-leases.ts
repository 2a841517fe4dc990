// Leases what a call touches to the invocation it belongs to, or to its connection when it names none.
//
// A decorator of services: it knows which calls end in one go, and nothing of what they do.

import type { IncomingMessage, ServerResponse } from "node:http";
import { CONNECTION_PREFIX, NO_LEASE, withLease, withLeaseAcrossWaits } from "../cas/lease-context.ts";
import type { Call, Method, Service, StreamCall } from "../grpc/service.ts";
import { ByteStream } from "../proto/bytestream.ts";
import { ActionCache, ContentAddressableStorage } from "../proto/remote_execution.ts";
import { requestInfo, requestMetadataText } from "./request-metadata.ts";

/** Notes a call of an invocation and returns the number of its lease. */
export type NoteCall = (invocation: string) => number;

/** These look at the store before they first wait (Read: where it answers at once), or carry the lease over by themselves. */
const AT_ONCE: readonly string[] = [
  ByteStream.methods.Read.path,
  ContentAddressableStorage.methods.FindMissingBlobs.path,
  ActionCache.methods.GetActionResult.path,
];

/** Headers whose invocation is known; Bazel's are the same for all calls of one action. */
const MAX_KNOWN_HEADERS = 4096;

export function leaseCalls(services: readonly Service[], noteCall: NoteCall): Service[] {
  const invocationOf = rememberInvocations();
  const leaseOf = (call: Call): number => noteCall(invocationOf(call));
  return services.map(({ name, methods }) => ({ name, methods: methods.map((method) => leased(method, leaseOf)) }));
}

type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Requests of HTTP/1.1 name no invocation: theirs is the connection. */
export function leaseRequests(handler: HttpHandler, noteCall: NoteCall): HttpHandler {
  return (request, response) => {
    const { remoteAddress, remotePort } = request.socket;
    acrossWaits(noteCall(`${CONNECTION_PREFIX}${remoteAddress}:${remotePort}`), () => handler(request, response));
  };
}

function leased(method: Method, leaseOf: (call: Call) => number): Method {
  if (method.kind === "stream") {
    const { handler, answerAtOnce } = method;
    const run: typeof acrossWaits = AT_ONCE.includes(method.path) ? withLease : acrossWaits;
    return {
      ...method,
      handler: (call: StreamCall) => acrossWaits(leaseOf(call), () => handler(call)),
      answerAtOnce: answerAtOnce && ((request, call) => run(leaseOf(call), () => answerAtOnce(request, call))),
    };
  }
  const { handler } = method;
  const run: typeof acrossWaits = AT_ONCE.includes(method.path) ? withLease : acrossWaits;
  return { ...method, handler: (request, call) => run(leaseOf(call), () => handler(request, call)) };
}

function acrossWaits<T>(lease: number, task: () => T): T {
  return lease === NO_LEASE ? task() : withLeaseAcrossWaits(lease, task);
}

function rememberInvocations(): (call: Call) => string {
  const known = new Map<string, string | undefined>();
  return (call) => {
    const header = requestMetadataText(call);
    if (header === undefined) return connectionOf(call);
    let invocation = known.get(header);
    if (invocation === undefined && !known.has(header)) {
      invocation = requestInfo(call)?.toolInvocationId;
      if (known.size >= MAX_KNOWN_HEADERS) known.clear();
      known.set(header, invocation);
    }
    return invocation ?? connectionOf(call);
  };
}

function connectionOf(call: Call): string {
  return `${CONNECTION_PREFIX}${call.connectionId}`;
}
