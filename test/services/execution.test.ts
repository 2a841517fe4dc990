// Execute, WaitExecution and the Operations service: what travels in the call's status and what in the Operation.

import { expect, test } from "vitest";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { DigestFunction, toWireDigest } from "../../src/digest/digest.ts";
import { missingBlobs } from "../../src/digest/missing-blobs.ts";
import { PreconditionFailure } from "../../src/proto/error_details.ts";
import { Operation, Operations } from "../../src/proto/operations.ts";
import { QueuePosition } from "../../src/proto/queue_position.ts";
import {
  ActionResult,
  ExecuteOperationMetadata,
  ExecuteResponse,
  Execution,
  type ExecuteRequestInit,
} from "../../src/proto/remote_execution.ts";
import { Scheduler } from "../../src/scheduler/scheduler.ts";
import { TELLING_DELAY_MS } from "../../src/services/brief-stages.ts";
import { createExecutionService } from "../../src/services/execution.ts";
import { MAX_RESPONSE_BYTES } from "../../src/services/message-limits.ts";
import { createOperationsService } from "../../src/services/operations.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import type { ActionJob } from "../../src/worker/executor.ts";
import { ManualExecutor, settle } from "../scheduler/scheduler-fixture.ts";
import { ActionBuilder } from "../worker/action-builder.ts";
import { FakeClient, statusOf } from "./fake-call.ts";

const { Execute, WaitExecution } = Execution.methods;

class Fixture {
  readonly clock = new ManualClock();
  readonly blobs = new MemoryBlobStore();
  readonly actionCache = new MemoryActionCache();
  readonly build = new ActionBuilder(this.blobs);
  readonly executor: ManualExecutor;
  readonly scheduler: Scheduler;
  readonly client: FakeClient;

  constructor(options: { readonly slots?: number; readonly maxQueueDepth?: number } = {}) {
    const { clock, actionCache, blobs } = this;
    this.executor = new ManualExecutor(options.slots ?? 4, actionCache);
    this.scheduler = new Scheduler({
      executor: this.executor,
      actionCache,
      clock,
      logger: silentLogger,
      metrics: new MetricsRegistry(),
      maxQueueDepth: options.maxQueueDepth ?? 10,
      orphanGraceMs: 60_000,
    });
    const deps = { scheduler: this.scheduler, blobs, clock };
    this.client = new FakeClient(createExecutionService(deps), createOperationsService(deps));
  }

  async request(name: string, rest: ExecuteRequestInit = {}): Promise<ExecuteRequestInit> {
    const job = await this.build.job({ command: { arguments: [name] } });
    return { actionDigest: toWireDigest(job.actionDigest), ...rest };
  }

  /** Sends Execute and leaves the stream open. */
  async open(request: ExecuteRequestInit) {
    const { call, done } = this.client.open(Execute);
    call.send(Execute.input.encode(request));
    call.halfClose();
    await settle();
    return { call, done, views: () => call.written.map(readOperation) };
  }

  /** Lets so much time pass that the present stages are told. */
  async tellStages(): Promise<void> {
    this.clock.advance(TELLING_DELAY_MS);
    await settle();
  }
}

function readOperation(bytes: Uint8Array) {
  const operation = Operation.decode(bytes);
  const { stage, actionDigest } = ExecuteOperationMetadata.decode(operation.metadata!.value);
  const response = operation.response === undefined ? undefined : ExecuteResponse.decode(operation.response.value);
  return { name: operation.name, done: operation.done, error: operation.error, stage, actionDigest, response };
}

test("Execute streams the stages that last and a final Operation with the result", async () => {
  const fixture = new Fixture({ slots: 1 });
  await fixture.open(await fixture.request("earlier"));
  const { views, done } = await fixture.open(await fixture.request("a"));
  await fixture.tellStages();
  await fixture.executor.running[0]!.finish();
  await fixture.tellStages();
  await fixture.executor.running[0]!.finish({ result: ActionResult.encode({ exitCode: 3 }) });
  await done;
  const seen = views();
  expect(seen.map(({ stage }) => stage)).toEqual([2, 3, 4]);
  expect(new Set(seen.map(({ name }) => name)).size).toBe(1);
  expect(seen.map((view) => view.done)).toEqual([false, false, true]);
  expect(seen.every(({ error, actionDigest }) => error === undefined && actionDigest !== undefined)).toBe(true);
  expect(seen.at(-1)?.response).toMatchObject({ cachedResult: false, status: undefined, result: { exitCode: 3 } });
});

// A build of trivial actions spends more on messages than on anything else.
test("Execute tells of an action that ends within 20 ms in one message", async () => {
  const fixture = new Fixture();
  const { views, done } = await fixture.open(await fixture.request("a"));
  fixture.clock.advance(TELLING_DELAY_MS - 1);
  await fixture.executor.running[0]!.finish();
  await done;
  expect(views().map(({ stage }) => stage)).toEqual([4]);
});

test("Execute answers a cached action with one final Operation", async () => {
  const fixture = new Fixture();
  const request = await fixture.request("a");
  const result = ActionResult.encode({ exitCode: 0, stdoutDigest: { hash: "ab".repeat(32), sizeBytes: 3 } });
  const key = { instanceName: "", fn: DigestFunction.SHA256, hash: request.actionDigest!.hash! };
  await fixture.actionCache.put(key, result, {});
  const { views, done } = await fixture.open(request);
  await done;
  expect(views().map(({ stage }) => stage)).toEqual([4]);
  expect(views()[0]?.response).toMatchObject({ cachedResult: true, result: { stdoutDigest: { sizeBytes: 3 } } });
});

test("Execute without action_digest is INVALID_ARGUMENT, as BuildStream probes", async () => {
  const fixture = new Fixture();
  expect(await statusOf(fixture.client.stream(Execute, [{}]))).toMatchObject({ code: Code.INVALID_ARGUMENT });
});

test("Execute reports a missing Action in the status of the call", async () => {
  const fixture = new Fixture();
  const actionDigest = { hash: "cd".repeat(32), sizeBytes: 7 };
  const error = await statusOf(fixture.client.stream(Execute, [{ actionDigest }]));
  expect(error.code).toBe(Code.FAILED_PRECONDITION);
  expect(error.details).toHaveLength(1);
  expect(PreconditionFailure.decode(error.details[0]!.value).violations).toMatchObject([
    { type: "MISSING", subject: `blobs/${actionDigest.hash}/7` },
  ]);
});

test("Execute reports what prepare() refuses in the status of the call and forgets the operation", async () => {
  const fixture = new Fixture();
  const request = await fixture.request("a");
  const missing = missingBlobs([{ fn: DigestFunction.SHA256, hash: "ef".repeat(32), sizeBytes: 1 }], "Command");
  fixture.executor.prepare = () => Promise.reject(missing);
  expect(await statusOf(fixture.client.stream(Execute, [request]))).toBe(missing);
  expect([...fixture.scheduler.list()]).toEqual([]);
});

test("Execute answers RESOURCE_EXHAUSTED in the status of the call when the queue is full", async () => {
  const fixture = new Fixture({ slots: 1, maxQueueDepth: 1 });
  await fixture.open(await fixture.request("runs"));
  await fixture.open(await fixture.request("waits"));
  expect(await statusOf(fixture.client.stream(Execute, [await fixture.request("refused")]))).toMatchObject({
    code: Code.RESOURCE_EXHAUSTED,
    message: expect.stringContaining("The queue is full: 1 "),
  });
});

test("Execute on a server without slots is FAILED_PRECONDITION with the reason", async () => {
  const fixture = new Fixture({ slots: 0 });
  expect(await statusOf(fixture.client.stream(Execute, [await fixture.request("a")]))).toMatchObject({
    code: Code.FAILED_PRECONDITION,
    message: expect.stringContaining("this is a test"),
  });
});

// Trailers of this size break Java clients, so the violations travel inside the Operation.
test("Execute names 5,000 missing inputs in the final Operation", async () => {
  const fixture = new Fixture();
  const { views, done } = await fixture.open(await fixture.request("a"));
  const digests = Array.from({ length: 5000 }, (_, i) => ({
    fn: DigestFunction.SHA256,
    hash: i.toString(16).padStart(64, "0"),
    sizeBytes: 1,
  }));
  await fixture.executor.running[0]!.finish({ result: undefined, status: missingBlobs(digests, "Input root") });
  await done;
  const { status } = views().at(-1)!.response!;
  expect(status?.code).toBe(Code.FAILED_PRECONDITION);
  expect(PreconditionFailure.decode(status!.details[0]!.value).violations).toHaveLength(5000);
});

test("Execute inlines what was asked for and what fits", async () => {
  const fixture = new Fixture();
  const small = toWireDigest(await fixture.build.blob("small"));
  const large = toWireDigest(await fixture.build.blob(new Uint8Array(MAX_RESPONSE_BYTES)));
  const result = ActionResult.encode({
    stdoutDigest: small,
    stderrDigest: large,
    outputFiles: [
      { path: "f", digest: small },
      { path: "g", digest: small },
    ],
  });
  const request = await fixture.request("a", { inlineStdout: true, inlineStderr: true, inlineOutputFiles: ["f"] });
  const { views, done, call } = await fixture.open(request);
  await fixture.executor.running[0]!.finish({ result });
  await done;
  const inlined = views().at(-1)!.response!.result!;
  expect(Buffer.from(inlined.stdoutRaw).toString()).toBe("small");
  expect(inlined.stderrRaw).toHaveLength(0);
  expect(inlined.outputFiles.map(({ contents }) => Buffer.from(contents).toString())).toEqual(["small", ""]);
  expect(call.written.every((bytes) => bytes.length < MAX_RESPONSE_BYTES)).toBe(true);
});

test("Execute tells of a cache check that takes long, and then of its outcome inside the Operation", async () => {
  const fixture = new Fixture();
  const request = await fixture.request("a");
  const gate = Promise.withResolvers<void>();
  fixture.executor.prepare = async (_job: ActionJob) => {
    await gate.promise;
    throw missingBlobs([], "Command");
  };
  const { views, done } = await fixture.open(request);
  expect(views()).toEqual([]);
  fixture.clock.advance(1000);
  await settle();
  await fixture.tellStages();
  expect(views().map(({ stage }) => stage)).toEqual([1]);
  gate.resolve();
  await done;
  expect(views().at(-1)?.response?.status?.code).toBe(Code.FAILED_PRECONDITION);
});

test("WaitExecution sends the current state at once and ends with the result", async () => {
  const fixture = new Fixture();
  const first = await fixture.open(await fixture.request("a"));
  await fixture.tellStages();
  const { name } = first.views()[0]!;
  first.call.cancel();
  const { call, done } = fixture.client.open(WaitExecution);
  call.send(WaitExecution.input.encode({ name }));
  await settle();
  expect(call.written.map((bytes) => readOperation(bytes).stage)).toEqual([3]);
  await fixture.executor.running[0]!.finish();
  await done;
  expect(readOperation(call.written.at(-1)!)).toMatchObject({ done: true, stage: 4, name });
});

test("WaitExecution of an unknown name is NOT_FOUND", async () => {
  const fixture = new Fixture();
  const error = await statusOf(fixture.client.stream(WaitExecution, [{ name: "operations/none" }]));
  expect(error).toMatchObject({ code: Code.NOT_FOUND, message: expect.stringContaining("operations/none") });
});

test("GetOperation, CancelOperation, DeleteOperation and WaitOperation act on the operation of that name", async () => {
  const fixture = new Fixture();
  const { views, done } = await fixture.open(await fixture.request("a"));
  await fixture.tellStages();
  const { name } = views()[0]!;
  const { GetOperation, CancelOperation, DeleteOperation, WaitOperation } = Operations.methods;
  expect((await fixture.client.unary(GetOperation, { name })).done).toBe(false);
  const waiting = fixture.client.unary(WaitOperation, { name, timeout: { seconds: 5, nanos: 0 } });
  await settle();
  fixture.clock.advance(5000);
  expect((await waiting).done).toBe(false);
  await fixture.client.unary(CancelOperation, { name });
  await done;
  expect(views().at(-1)?.response?.status?.code).toBe(Code.CANCELLED);
  expect((await fixture.client.unary(WaitOperation, { name })).done).toBe(true);
  await fixture.client.unary(DeleteOperation, { name });
  for (const method of [GetOperation, CancelOperation, DeleteOperation]) {
    const request = method.input.encode({ name });
    expect((await statusOf(fixture.client.unary<unknown, unknown, unknown, unknown>(method, request))).code).toBe(
      Code.NOT_FOUND,
    );
  }
});

test("ListOperations pages through the operations of an instance in the order of their creation", async () => {
  const fixture = new Fixture();
  const { ListOperations } = Operations.methods;
  const names: string[] = [];
  for (let i = 0; i < 5; i++) {
    const { views } = await fixture.open(await fixture.request(`a${i}`, { instanceName: i === 3 ? "other" : "main" }));
    await fixture.tellStages();
    if (i !== 3) names.push(views()[0]!.name);
  }
  const listed: string[] = [];
  let pageToken = "";
  do {
    const page = await fixture.client.unary(ListOperations, { name: "main", pageSize: 3, pageToken });
    listed.push(...page.operations.map((operation) => operation.name));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(listed).toEqual(names);
  expect((await fixture.client.unary(ListOperations, {})).operations).toHaveLength(5);
  for (const bad of [{ pageSize: -1 }, { pageToken: "x" }, { filter: "done" }]) {
    expect((await statusOf(fixture.client.unary(ListOperations, bad))).code).toBe(Code.INVALID_ARGUMENT);
  }
});

test("Execute and GetOperation say behind how many actions a queued one waits", async () => {
  const fixture = new Fixture({ slots: 1 });
  await fixture.open(await fixture.request("a"));
  await fixture.open(await fixture.request("b"));
  const { call } = await fixture.open(await fixture.request("c"));
  await fixture.tellStages();
  const position = (bytes: Uint8Array) => {
    const metadata = ExecuteOperationMetadata.decode(Operation.decode(bytes).metadata!.value);
    const { auxiliaryMetadata = [], queuedTimestamp } = metadata.partialExecutionMetadata ?? {};
    expect(queuedTimestamp).toBeDefined();
    return auxiliaryMetadata.map(({ typeUrl, value }) => ({ typeUrl, ...QueuePosition.decode(value) }));
  };
  const typeUrl = "type.googleapis.com/ledge.execution.v1.QueuePosition";
  expect(call.written.map(position)).toEqual([[{ typeUrl, actionsAhead: 1, queueDepth: 2 }]]);
  await fixture.executor.running[0]!.finish();
  const { name } = Operation.decode(call.written[0]!);
  const now = await fixture.client.unary(Operations.methods.GetOperation, { name });
  expect(position(Operation.encode(now))).toEqual([{ typeUrl, actionsAhead: 0, queueDepth: 1 }]);
});
