// The action cache service through its handlers.

import { beforeEach, describe, expect, test } from "vitest";
import type { ActionKey, Provenance } from "../../src/action-cache/action-cache.ts";
import { CompletenessCheckingActionCache } from "../../src/action-cache/completeness-checking-action-cache.ts";
import { MemoryActionCache } from "../../src/action-cache/memory-action-cache.ts";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { DigestFunction } from "../../src/digest/digest.ts";
import { ActionCache, ActionResult, RequestMetadata, type ActionResultInit } from "../../src/proto/remote_execution.ts";
import { createActionCacheService } from "../../src/services/action-cache.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { FakeClient, statusOf } from "./fake-call.ts";
import { encodeIndependently } from "./independent-encoding.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { GetActionResult, UpdateActionResult } = ActionCache.methods;
const actionDigest = sample("an action").digest;

let blobs: MemoryBlobStore;
let inner: RecordingActionCache;
let metrics: MetricsRegistry;
let client: FakeClient;

class RecordingActionCache extends MemoryActionCache {
  provenance: Provenance | undefined;

  override put(key: ActionKey, result: Uint8Array, provenance: Provenance): Promise<void> {
    this.provenance = provenance;
    return super.put(key, result, provenance);
  }
}

beforeEach(() => {
  blobs = new MemoryBlobStore();
  inner = new RecordingActionCache();
  metrics = new MetricsRegistry();
  const actionCache = new CompletenessCheckingActionCache(inner, blobs, metrics);
  client = new FakeClient(createActionCacheService({ actionCache, blobs, clock: new ManualClock(), metrics }));
});

async function update(actionResult: ActionResultInit): Promise<ActionResult> {
  return client.unary(UpdateActionResult, { actionDigest, actionResult });
}

describe("updateActionResult() and getActionResult()", () => {
  test("a result comes back, per instance name and digest function", async () => {
    const digest = await store(blobs, "output");
    const result = await client.unary(UpdateActionResult, {
      instanceName: "a/b",
      actionDigest,
      actionResult: { outputFiles: [{ path: "o", digest }], exitCode: 3, executionMetadata: { worker: "me" } },
    });
    expect(result.executionMetadata?.worker).toBe("me");
    expect(await client.unary(GetActionResult, { instanceName: "a/b", actionDigest })).toEqual(result);
    for (const other of [
      { instanceName: "a", actionDigest },
      { instanceName: "a/b", actionDigest, digestFunction: DigestFunction.BLAKE3 },
      { instanceName: "a/b", actionDigest: sample("another action").digest },
    ]) {
      expect((await statusOf(client.unary(GetActionResult, other))).code).toBe(Code.NOT_FOUND);
    }
  });

  test("the size of the action is no part of the key", async () => {
    await update({ exitCode: 1 });
    const resized = { ...actionDigest, sizeBytes: actionDigest.sizeBytes + 1 };
    expect((await client.unary(GetActionResult, { actionDigest: resized })).exitCode).toBe(1);
  });

  // Buck2 fails on a result without metadata, and an empty message is no message.
  test("the peer is named as worker when nobody is, beside what metadata there is", async () => {
    expect((await update({})).executionMetadata?.worker).toBe("127.0.0.1:5555");
    const queuedTimestamp = { seconds: 5, nanos: 6 };
    const { executionMetadata } = await update({ executionMetadata: { queuedTimestamp } });
    expect(executionMetadata?.worker).toBe("127.0.0.1:5555");
    expect(executionMetadata?.queuedTimestamp).toEqual(queuedTimestamp);
  });

  test("inlined data moves to the CAS, with and without digests", async () => {
    const result = await update({
      stdoutRaw: Buffer.from("out"),
      stderrRaw: Buffer.from("err"),
      stderrDigest: sample("err").digest,
      outputFiles: [
        { path: "a", contents: Buffer.from("contents of a"), isExecutable: true },
        { path: "b", contents: Buffer.from("contents of b"), digest: sample("contents of b").digest },
      ],
    });
    for (const content of ["out", "err", "contents of a", "contents of b"]) {
      expect(blobs.has(sample(content).digest)).toBe(true);
    }
    expect(result.stdoutRaw).toHaveLength(0);
    expect(result.stdoutDigest?.hash).toBe(sample("out").digest.hash);
    expect(result.stderrDigest?.hash).toBe(sample("err").digest.hash);
    expect(result.outputFiles.map((file) => file.digest?.hash)).toEqual([
      sample("contents of a").digest.hash,
      sample("contents of b").digest.hash,
    ]);
    expect(result.outputFiles.map((file) => file.contents.length)).toEqual([0, 0]);
    expect(result.outputFiles[0]!.isExecutable).toBe(true);
  });

  test("fields of newer versions survive, also beside inlined data", async () => {
    const unknownField = Buffer.from([0xfa, 0x01, 3, 1, 2, 3]);
    for (const known of [{}, { stdoutRaw: Buffer.from("x") }]) {
      const actionResult = Buffer.concat([encodeIndependently("ActionResult", known), unknownField]);
      const head = encodeIndependently("UpdateActionResultRequest", { actionDigest });
      const request = Buffer.concat([head, Buffer.from([0x1a, actionResult.length]), actionResult]);
      await client.unary(UpdateActionResult, request);
      const stored = await inner.get({ instanceName: "", fn: DigestFunction.SHA256, hash: actionDigest.hash });
      expect(Buffer.from(stored!).includes(unknownField)).toBe(true);
    }
  });

  test("provenance comes from the peer and from RequestMetadata, under either header name", async () => {
    const header = RequestMetadata.encode({ toolInvocationId: "inv", targetId: "//a:b", actionMnemonic: "CppCompile" });
    for (const name of ["build.bazel.remote.execution.v2.requestmetadata-bin", "requestmetadata-bin"]) {
      const options = { binaryMetadata: { [name]: header } };
      await client.unary(UpdateActionResult, { actionDigest, actionResult: {} }, options);
      expect(inner.provenance).toEqual({
        writer: "127.0.0.1:5555",
        worker: "127.0.0.1:5555",
        toolInvocationId: "inv",
        targetId: "//a:b",
        actionMnemonic: "CppCompile",
        writtenAtMs: 1_000_000,
      });
    }
  });

  test("a malformed RequestMetadata fails nothing", async () => {
    const binaryMetadata = { "build.bazel.remote.execution.v2.requestmetadata-bin": Buffer.from([0xff, 0xff]) };
    await client.unary(UpdateActionResult, { actionDigest, actionResult: {} }, { binaryMetadata });
    expect(inner.provenance?.toolInvocationId).toBeUndefined();
  });
});

describe("inlining", () => {
  async function inlined(request: { stdout?: boolean; stderr?: boolean; files?: string[] }): Promise<ActionResult> {
    return client.unary(GetActionResult, {
      actionDigest,
      inlineStdout: request.stdout,
      inlineStderr: request.stderr,
      inlineOutputFiles: request.files,
    });
  }
  const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();

  test("happens for what is asked, and only for that", async () => {
    await update({
      stdoutDigest: await store(blobs, "out"),
      stderrDigest: await store(blobs, "err"),
      outputFiles: [
        { path: "a", digest: await store(blobs, "content a"), isExecutable: true },
        { path: "b", digest: await store(blobs, "content b") },
      ],
    });
    const nothing = await inlined({});
    expect([text(nothing.stdoutRaw), text(nothing.stderrRaw), text(nothing.outputFiles[0]?.contents)]).toEqual([
      "",
      "",
      "",
    ]);
    const some = await inlined({ stdout: true, files: ["b", "unknown"] });
    expect([text(some.stdoutRaw), text(some.stderrRaw)]).toEqual(["out", ""]);
    expect(some.outputFiles.map(({ contents }) => text(contents))).toEqual(["", "content b"]);
    expect(some.stdoutDigest).toEqual(nothing.stdoutDigest);
    expect(some.outputFiles.map(({ digest, isExecutable }) => [digest?.sizeBytes, isExecutable])).toEqual([
      [9, true],
      [9, false],
    ]);
    const all = await inlined({ stdout: true, stderr: true, files: ["a", "b"] });
    expect([text(all.stderrRaw), text(all.outputFiles[0]?.contents)]).toEqual(["err", "content a"]);
  });

  test("stops before the message exceeds 4 MiB, and leaves out what does not fit", async () => {
    await update({
      stdoutDigest: await store(blobs, noise(3_000_000, 1)),
      stderrDigest: await store(blobs, noise(2_000_000, 2)),
      outputFiles: [{ path: "a", digest: await store(blobs, noise(1_000_000, 3)) }],
    });
    const result = await inlined({ stdout: true, stderr: true, files: ["a"] });
    expect([result.stdoutRaw.length, result.stderrRaw.length, result.outputFiles[0]?.contents.length]).toEqual([
      3_000_000, 0, 1_000_000,
    ]);
    expect(ActionResult.encode(result).length).toBeLessThanOrEqual(4 * 1024 * 1024);
  });

  test("a result that is too large by itself is sent whole, without inlined data, and counted", async () => {
    const digest = await store(blobs, "shared content");
    const outputFiles = Array.from({ length: 50_000 }, (_, i) => ({ path: `a/path/of/an/output/${i}`, digest }));
    await update({ stdoutDigest: await store(blobs, "out"), outputFiles });
    const result = await inlined({ stdout: true });
    expect(result.outputFiles).toHaveLength(50_000);
    expect(result.stdoutRaw).toHaveLength(0);
    const counted = metrics.samples().find(({ name }) => name === "ledge_action_results_oversized_total");
    expect(counted?.value).toBe(1);
  });
});
