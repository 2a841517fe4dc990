// ByteStream through its handlers, on the in-memory store. The rules are those of wire/reapi.md 6.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { ManualClock } from "../../src/base/clock.ts";
import { Code } from "../../src/base/status.ts";
import { AnnouncingBlobStore } from "../../src/cas/announcing-blob-store.ts";
import { MemoryBlobStore } from "../../src/cas/memory-blob-store.ts";
import { ZstdPool } from "../../src/compute/zstd-pool.ts";
import { DigestFunction, type Digest } from "../../src/digest/digest.ts";
import {
  ByteStream,
  ReadRequest,
  ReadResponse,
  WriteRequest,
  WriteResponse,
  type WriteRequestInit,
} from "../../src/proto/bytestream.ts";
import { createByteStreamService } from "../../src/services/byte-stream.ts";
import { PartialUploads } from "../../src/services/partial-uploads.ts";
import { FakeCall, FakeClient, statusOf } from "./fake-call.ts";
import { noise, sample, store } from "./sample-blobs.ts";

const { Read, Write, QueryWriteStatus } = ByteStream.methods;

const zstd = new ZstdPool({ threads: 1 });
afterAll(() => zstd.close());

let blobs: AnnouncingBlobStore;
let clock: ManualClock;
let partialUploads: PartialUploads;
let client: FakeClient;

beforeEach(() => {
  blobs = new AnnouncingBlobStore(new MemoryBlobStore());
  clock = new ManualClock();
  partialUploads = new PartialUploads({ clock });
  client = new FakeClient(createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 }));
});

const name = (digest: Digest, kind = "blobs") => `${kind}/${digest.hash}/${digest.sizeBytes}`;
const uploadName = (digest: Digest, kind = "blobs", uuid = "u1") => `uploads/${uuid}/${name(digest, kind)}`;
const ZSTD = "compressed-blobs/zstd";

async function read(resourceName: string, range: { readOffset?: number; readLimit?: number } = {}): Promise<Buffer> {
  const responses = await client.stream(Read, [{ resourceName, ...range }]);
  return Buffer.concat(responses.map(({ data }) => data));
}

async function write(...messages: WriteRequestInit[]): Promise<number> {
  const responses = await client.stream(Write, messages);
  expect(responses).toHaveLength(1);
  return responses[0]!.committedSize;
}

/** The messages that upload `data` in pieces. */
function inPieces(resourceName: string, data: Uint8Array, pieceBytes: number, firstOffset = 0): WriteRequestInit[] {
  const messages: WriteRequestInit[] = [];
  for (let at = 0; at < data.length; at += pieceBytes) {
    const end = Math.min(data.length, at + pieceBytes);
    messages.push({
      resourceName: at === 0 ? resourceName : "",
      writeOffset: firstOffset + at,
      data: data.subarray(at, end),
      finishWrite: end === data.length,
    });
  }
  return messages;
}

async function untilWritten(call: FakeCall): Promise<number> {
  while (call.written.length === 0) await new Promise((resolve) => setImmediate(resolve));
  return WriteResponse.decode(call.written[0]!).committedSize;
}

async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe("read()", () => {
  // The client of these tests compares what is answered at once with what the handler writes.
  test("answers small plain blobs at once, and nothing else", async () => {
    const service = createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 });
    const method = service.methods.find(({ path }) => path === Read.path);
    if (method?.kind !== "stream" || method.answerAtOnce === undefined) throw new Error("Read answers nothing at once");
    const small = await store(blobs, noise(1000));
    const large = await store(blobs, noise(65_537));
    const ask = async (resourceName: string, range = {}) =>
      method.answerAtOnce?.(ReadRequest.encode({ resourceName, ...range }), new FakeCall(Read.path));
    expect(ReadResponse.decode((await ask(name(small)))!).data).toEqual(noise(1000));
    expect(await ask(name(large))).toBeUndefined();
    expect(await ask(name(small, ZSTD))).toBeUndefined();
    expect(await ask(name(small), { readOffset: 1 })).toBeUndefined();
    expect(await ask(name(small), { readLimit: 1 })).toBeUndefined();
    expect(await ask(name(sample("absent").digest))).toBeUndefined();
    expect(await ask(name(sample("").digest))).toBeUndefined();
  });

  test("returns the blob, small and large, in messages below 4 MiB", async () => {
    for (const sizeBytes of [1, 1000, 65_536, 65_537, 5_000_000]) {
      const data = noise(sizeBytes);
      const digest = await store(blobs, data);
      expect((await read(name(digest))).equals(data)).toBe(true);
    }
  });

  test("honours offset and limit", async () => {
    for (const sizeBytes of [1000, 3_000_000]) {
      const data = noise(sizeBytes);
      const digest = await store(blobs, data);
      const part = await read(name(digest), { readOffset: 100, readLimit: 300 });
      expect(part.equals(data.subarray(100, 400))).toBe(true);
      const tail = await read(name(digest), { readOffset: sizeBytes - 10, readLimit: 300 });
      expect(tail.equals(data.subarray(-10))).toBe(true);
      expect(await read(name(digest), { readOffset: sizeBytes })).toHaveLength(0);
    }
  });

  test("compresses afresh from any offset", async () => {
    for (const sizeBytes of [0, 10, 1000, 3_000_000]) {
      const data = new Uint8Array(Buffer.from("compressible ".repeat(sizeBytes / 13 + 1))).subarray(0, sizeBytes);
      const digest = await store(blobs, data);
      for (const readOffset of [0, Math.floor(sizeBytes / 2), sizeBytes]) {
        const stream = await read(name(digest, ZSTD), { readOffset });
        expect(zstdDecompressSync(stream).equals(data.subarray(readOffset))).toBe(true);
      }
    }
  });

  test("the empty blob is there in every form", async () => {
    expect(await read(name(sample("").digest))).toHaveLength(0);
    expect(zstdDecompressSync(await read(name(sample("").digest, ZSTD)))).toHaveLength(0);
    const blake3 = sample("", DigestFunction.BLAKE3).digest;
    expect(await read(`some/instance/blobs/blake3/${blake3.hash}/0`)).toHaveLength(0);
  });

  test("reads BLAKE3 under its name", async () => {
    const { data, digest } = sample("blake", DigestFunction.BLAKE3);
    await blobs.put(digest, data);
    expect((await read(`i/blobs/blake3/${digest.hash}/5`)).toString()).toBe("blake");
    expect((await statusOf(read(`i/blobs/${digest.hash}/5`))).code).toBe(Code.NOT_FOUND);
  });
});

describe("write()", () => {
  test("takes a small plain blob at once, keeps its bytes, and takes nothing else so", async () => {
    const service = createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 });
    const method = service.methods.find(({ path }) => path === Write.path);
    if (method?.kind !== "stream" || method.answerAtOnce === undefined) throw new Error("Write takes nothing at once");
    const { digest, data } = sample(noise(1000));
    const ask = async (message: WriteRequestInit) => {
      const bytes = WriteRequest.encode(message);
      const answer = method.answerAtOnce?.(bytes, new FakeCall(Write.path));
      bytes.fill(0xee); // the transport reads into it again
      return (await answer) && WriteResponse.decode((await answer)!).committedSize;
    };
    const whole = { resourceName: uploadName(digest), data, finishWrite: true };
    expect(await ask({ ...whole, finishWrite: false })).toBeUndefined();
    expect(await ask({ ...whole, data: data.subarray(1) })).toBeUndefined();
    expect(await ask({ ...whole, writeOffset: 1 })).toBeUndefined();
    expect(await ask({ ...whole, resourceName: uploadName(digest, ZSTD) })).toBeUndefined();
    expect(await blobs.has(digest)).toBe(false);
    expect(await ask(whole)).toBe(1000);
    expect(Buffer.from((await blobs.get(digest))!).equals(data)).toBe(true);
    expect(await ask(whole)).toBe(1000);
    const wrong = { ...whole, resourceName: uploadName(sample("x".repeat(1000)).digest) };
    expect((await statusOf(ask(wrong))).code).toBe(Code.INVALID_ARGUMENT);
  });

  test("stores a blob sent in one message or in many", async () => {
    for (const [sizeBytes, pieceBytes] of [
      [100, 100],
      [100, 7],
      [3_000_000, 1_000_000],
      [3_000_000, 50_000],
    ] as const) {
      const { data, digest } = sample(noise(sizeBytes, pieceBytes));
      expect(await write(...inPieces(uploadName(digest), data, pieceBytes))).toBe(sizeBytes);
      expect(Buffer.from((await blobs.get(digest))!).equals(data)).toBe(true);
    }
    expect(partialUploads.idleCount).toBe(0);
  });

  test("takes finish_write in a message without data", async () => {
    const { data, digest } = sample("hello");
    const resourceName = uploadName(digest);
    expect(await write({ resourceName, data }, { writeOffset: 5, finishWrite: true })).toBe(5);
    expect(blobs.has(digest)).toBe(true);
  });

  test("takes the empty blob", async () => {
    const resourceName = uploadName(sample("").digest);
    expect(await write({ resourceName, finishWrite: true })).toBe(0);
  });

  test("ignores what follows the size, and any instance name", async () => {
    const { data, digest } = sample("hello");
    const resourceName = `an/instance/${uploadName(digest)}/some/file.o`;
    expect(await write({ resourceName, data, finishWrite: true })).toBe(5);
  });

  test("stores zstd; committed_size counts compressed bytes", async () => {
    for (const sizeBytes of [1000, 3_000_000]) {
      const { data, digest } = sample(Buffer.alloc(sizeBytes, "compressible "));
      const compressed = zstdCompressSync(data);
      for (const pieceBytes of [compressed.length, Math.ceil(compressed.length / 3)]) {
        blobs = new AnnouncingBlobStore(new MemoryBlobStore());
        client = new FakeClient(createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 }));
        const committed = await write(...inPieces(uploadName(digest, ZSTD), compressed, pieceBytes));
        expect(committed).toBe(compressed.length);
        expect(Buffer.from((await blobs.get(digest))!).equals(data)).toBe(true);
      }
    }
  });

  // "End the call at once", so that a client with 10 GB on its way stops.
  test("answers a duplicate before its data: the size, or -1 for a compressed name", async () => {
    const digest = await store(blobs, "present");
    for (const [kind, expected] of [
      ["blobs", 7],
      [ZSTD, -1],
    ] as const) {
      const { call, done } = client.open(Write);
      call.send(WriteRequest.encode({ resourceName: uploadName(digest, kind), data: Buffer.from("p") }));
      await done; // without a half-close
      expect(await untilWritten(call)).toBe(expected);
    }
  });

  test("ends a call at once when another writer completes the blob", async () => {
    const { data, digest } = sample(noise(1000));
    for (const [kind, expected] of [
      ["blobs", 1000],
      [ZSTD, -1],
    ] as const) {
      blobs = new AnnouncingBlobStore(new MemoryBlobStore());
      client = new FakeClient(createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 }));
      const sent = kind === ZSTD ? zstdCompressSync(data) : data;
      const { call, done } = client.open(Write);
      call.send(WriteRequest.encode({ resourceName: uploadName(digest, kind), data: sent.subarray(0, 10) }));
      await turns();
      expect(call.written).toHaveLength(0);
      await blobs.put(digest, data);
      await done;
      expect(await untilWritten(call)).toBe(expected);
      expect(partialUploads.idleCount).toBe(0);
    }
  });

  test("many writers of one blob all succeed, under one name and under several", async () => {
    const { data, digest } = sample(noise(300_000));
    const compressed = zstdCompressSync(data);
    const writes = Array.from({ length: 24 }, (_, i) => {
      const uuid = i % 3 === 0 ? "same" : `u${i}`;
      if (i % 2 === 0) return write(...inPieces(uploadName(digest, "blobs", uuid), data, 70_000));
      return write(...inPieces(uploadName(digest, ZSTD, uuid), compressed, 70_000));
    });
    for (const committed of await Promise.all(writes)) expect([300_000, compressed.length, -1]).toContain(committed);
    expect(Buffer.from((await blobs.get(digest))!).equals(data)).toBe(true);
    expect(partialUploads.idleCount).toBe(0);
  });

  test("finishes though the client forgets its half-close", async () => {
    const { data, digest } = sample("hello");
    const { call, done } = client.open(Write);
    call.send(WriteRequest.encode({ resourceName: uploadName(digest), data, finishWrite: true }));
    await turns();
    clock.advance(1000);
    await done;
    expect(await untilWritten(call)).toBe(5);
  });

  test("200 stalled uploads do not keep a 201st from finishing", async () => {
    const stalled = Array.from({ length: 200 }, (_, i) => {
      const { data, digest } = sample(noise(10_000, i + 2));
      const opened = client.open(Write);
      opened.call.send(WriteRequest.encode({ resourceName: uploadName(digest), data: data.subarray(0, 5000) }));
      return opened;
    });
    const { data, digest } = sample(noise(1_000_000));
    expect(await write(...inPieces(uploadName(digest), data, 100_000))).toBe(1_000_000);
    for (const { call } of stalled) call.cancel();
    await Promise.allSettled(stalled.map(({ done }) => done));
    expect(partialUploads.idleCount).toBe(200);
  });
});

describe("resuming a write", () => {
  const { data, digest } = sample(Buffer.concat([Buffer.alloc(150_000, "text "), noise(150_000)]));
  const resourceName = uploadName(digest);

  async function committed(): Promise<{ committedSize: number; complete: boolean }> {
    return client.unary(QueryWriteStatus, { resourceName });
  }

  test("nothing known is 0 bytes, not complete", async () => {
    expect(await committed()).toEqual({ committedSize: 0, complete: false });
  });

  test("a half-close without finish_write answers with what is kept, and a later call goes on there", async () => {
    expect(await write({ resourceName, data: data.subarray(0, 100_000) })).toBe(100_000);
    expect(await committed()).toEqual({ committedSize: 100_000, complete: false });
    expect(blobs.has(digest)).toBe(false);
    const rest = inPieces(resourceName, data.subarray(100_000), 90_000, 100_000);
    expect(await write(...rest)).toBe(300_000);
    expect(await committed()).toEqual({ committedSize: 300_000, complete: true });
    expect(partialUploads.idleCount).toBe(0);
  });

  // Its full size would mean "stored".
  for (const { encoding, sent } of [
    { encoding: undefined, sent: data },
    { encoding: ZSTD, sent: zstdCompressSync(data) },
  ]) {
    test(`all of it without finish_write is refused and kept, ${encoding === undefined ? "plain" : "zstd"}`, async () => {
      const name = uploadName(digest, encoding);
      await expect(write({ resourceName: name, data: sent })).rejects.toMatchObject({
        code: Code.INVALID_ARGUMENT,
        message: expect.stringMatching(/300000 bytes.*finish_write/),
      });
      expect(blobs.has(digest)).toBe(false);
      expect(await client.unary(QueryWriteStatus, { resourceName: name })).toEqual({
        committedSize: 300_000,
        complete: false,
      });
      if (encoding === undefined) {
        expect(await write({ resourceName: name, writeOffset: 300_000, finishWrite: true })).toBe(300_000);
        expect(blobs.has(digest)).toBe(true);
      }
    });
  }

  test("a cancelled call leaves what it sent", async () => {
    const { call, done } = client.open(Write);
    call.send(WriteRequest.encode({ resourceName, data: data.subarray(0, 70_000) }));
    await turns();
    call.cancel();
    await done.catch(() => undefined);
    expect((await committed()).committedSize).toBe(70_000);
    expect(await write(...inPieces(resourceName, data.subarray(70_000), 300_000, 70_000))).toBe(300_000);
  });

  // The Go client library repeats an upload from the start under the same name.
  test("a call from the start under the same name skips what is kept", async () => {
    await write({ resourceName, data: data.subarray(0, 100_000) });
    expect(await write(...inPieces(resourceName, data, 70_000))).toBe(300_000);
    expect(blobs.has(digest)).toBe(true);
  });

  test("a compressed write goes on at an uncompressed offset", async () => {
    const compressedName = uploadName(digest, ZSTD);
    const whole = zstdCompressSync(data);
    await write({ resourceName: compressedName, data: whole.subarray(0, 100_000) });
    const { committedSize } = await client.unary(QueryWriteStatus, { resourceName: compressedName });
    expect(committedSize).toBeGreaterThan(100_000);
    const rest = zstdCompressSync(data.subarray(committedSize));
    const messages = inPieces(compressedName, rest, 50_000, committedSize);
    expect(await write(...messages)).toBe(committedSize + rest.length);
    expect(Buffer.from((await blobs.get(digest))!).equals(data)).toBe(true);
  });

  // Its connection is gone, but the server does not know yet.
  test("a call that goes on takes the upload from the one that holds it", async () => {
    const first = client.open(Write);
    first.call.send(WriteRequest.encode({ resourceName, data: data.subarray(0, 100_000) }));
    await turns();
    const { committedSize } = await committed();
    expect(await write(...inPieces(resourceName, data.subarray(committedSize), 90_000, committedSize))).toBe(300_000);
    expect((await statusOf(first.done)).code).toBe(Code.ABORTED);
  });

  test("a call that goes on while the first one finishes is a duplicate", async () => {
    const first = client.open(Write); // everything is sent, but for the half-close
    for (const message of inPieces(resourceName, data, 150_000)) first.call.send(WriteRequest.encode(message));
    await turns();
    const { committedSize } = await committed();
    expect(committedSize).toBe(300_000);
    expect(await write({ resourceName, writeOffset: committedSize, finishWrite: true })).toBe(300_000);
    await first.done;
    expect(await untilWritten(first.call)).toBe(300_000);
  });

  test("an offset that was never reported is refused, and the upload stays", async () => {
    await write({ resourceName, data: data.subarray(0, 100_000) });
    for (const writeOffset of [99_999, 100_001]) {
      const failure = await statusOf(write({ resourceName, writeOffset, data: data.subarray(writeOffset) }));
      expect(failure.code).toBe(Code.INVALID_ARGUMENT);
      expect(failure.message).toContain("100000 bytes are committed");
    }
    expect((await committed()).committedSize).toBe(100_000);
  });

  test("wrong data found at the end leaves nothing", async () => {
    await write({ resourceName, data: noise(100_000, 99) });
    const rest = inPieces(resourceName, data.subarray(100_000), 300_000, 100_000);
    expect((await statusOf(write(...rest))).code).toBe(Code.INVALID_ARGUMENT);
    expect(await committed()).toEqual({ committedSize: 0, complete: false });
    expect(await write(...inPieces(resourceName, data, 300_000))).toBe(300_000);
  });

  // The first call's bytes were damaged on the way; the second call's are right, but skipped.
  test("wrong data kept from an earlier call is no verdict on a call from the start", async () => {
    await write({ resourceName, data: noise(100_000, 99) });
    expect((await statusOf(write(...inPieces(resourceName, data, 70_000)))).code).toBe(Code.ABORTED);
    expect(await write(...inPieces(resourceName, data, 70_000))).toBe(300_000);
  });

  test("what is not taken up again expires", async () => {
    await write({ resourceName, data: data.subarray(0, 100_000) });
    clock.advance(12 * 60_000);
    await turns();
    expect(await committed()).toEqual({ committedSize: 0, complete: false });
    expect(partialUploads.idleCount).toBe(0);
    expect(partialUploads.idleBytes).toBe(0);
  });

  test("too many are dropped, the oldest first", async () => {
    partialUploads = new PartialUploads({ clock, maxIdle: 3, maxIdleBytes: 250 });
    client = new FakeClient(createByteStreamService({ blobs, partialUploads, zstd, clock, maxBlobSizeBytes: 0 }));
    const names = Array.from({ length: 5 }, (_, i) => uploadName(digest, "blobs", `u${i}`));
    for (const each of names) await write({ resourceName: each, data: data.subarray(0, 10) });
    const sizes = async (): Promise<number[]> =>
      Promise.all(
        names.map(async (each) => (await client.unary(QueryWriteStatus, { resourceName: each })).committedSize),
      );
    expect(await sizes()).toEqual([0, 0, 10, 10, 10]);
    await write({ resourceName: names[0]!, data: data.subarray(0, 235) });
    expect(await sizes()).toEqual([235, 0, 0, 0, 10]);
    expect(partialUploads.idleBytes).toBe(245);
  });
});
