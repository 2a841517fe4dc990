// Which invocation a call is leased to.

import { describe, expect, test } from "vitest";
import { currentLease } from "../../src/cas/lease-context.ts";
import type { Call, StreamCall, UnaryHandler } from "../../src/grpc/service.ts";
import { ContentAddressableStorage, RequestMetadata } from "../../src/proto/remote_execution.ts";
import { leaseCalls } from "../../src/services/invocation-leases.ts";

const FIND_MISSING = ContentAddressableStorage.methods.FindMissingBlobs.path;
const HEADER = "build.bazel.remote.execution.v2.requestmetadata-bin";

function call(options: {
  readonly invocation?: string;
  readonly connectionId?: number;
  readonly header?: string;
}): Call {
  const encoded =
    options.invocation === undefined ? undefined : RequestMetadata.encode({ toolInvocationId: options.invocation });
  const text = options.header ?? (encoded === undefined ? undefined : Buffer.from(encoded).toString("base64"));
  return {
    path: FIND_MISSING,
    peer: "127.0.0.1:1",
    connectionId: options.connectionId ?? 7,
    metadata: (name) => (name === HEADER ? text : undefined),
    binaryMetadata: (name) => (name === HEADER && text !== undefined ? Buffer.from(text, "base64") : undefined),
    deadlineMs: undefined,
    signal: new AbortController().signal,
    clientCertificate: undefined,
  };
}

/** Serves one call and returns the name it was leased to, before and after the handler waited. */
async function leasedTo(path: string, made: Call): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = [undefined];
  const seen: (string | undefined)[] = [];
  const noteCall = (name: string) => names.push(name) - 1;
  const handler: UnaryHandler = async (request) => {
    seen.push(names[currentLease()]);
    await new Promise((resolve) => setImmediate(resolve));
    seen.push(names[currentLease()]);
    return request;
  };
  const [service] = leaseCalls([{ name: "s", methods: [{ kind: "unary", path, handler }] }], noteCall);
  const [method] = service?.methods ?? [];
  if (method?.kind === "unary") await method.handler(new Uint8Array(0), made);
  expect(currentLease()).toBe(0);
  return seen;
}

describe("leaseCalls()", () => {
  test("takes the invocation of RequestMetadata, for as long as the call lasts", async () => {
    expect(await leasedTo("/s/Other", call({ invocation: "build-1" }))).toEqual(["build-1", "build-1"]);
  });

  // The hot path has no wait in it, and pays for none.
  test("leases FindMissingBlobs until it first waits", async () => {
    expect(await leasedTo(FIND_MISSING, call({ invocation: "build-1" }))).toEqual(["build-1", undefined]);
  });

  test("takes the connection where no invocation is named, or the header is not RequestMetadata", async () => {
    for (const made of [
      call({}),
      call({ invocation: "" }),
      call({ header: "not base64!" }),
      call({ header: "////" }),
    ]) {
      expect(await leasedTo("/s/Other", made)).toEqual(["connection 7", "connection 7"]);
    }
  });

  test("leases streams, each to its own invocation, while they run side by side", async () => {
    const names: string[] = ["nobody"];
    const seen: string[] = [];
    const handler = async (stream: StreamCall) => {
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(`${stream.connectionId} ${names[currentLease()]}`);
    };
    const services = [{ name: "s", methods: [{ kind: "stream", path: "/s/Stream", handler } as const] }];
    const [service] = leaseCalls(services, (name) => names.push(name) - 1);
    const [method] = service?.methods ?? [];
    const calls = [call({ invocation: "a", connectionId: 1 }), call({ invocation: "b", connectionId: 2 })];
    if (method?.kind === "stream") await Promise.all(calls.map((made) => method.handler(made as StreamCall)));
    expect(seen.toSorted()).toEqual(["1 a", "2 b"]);
  });
});
