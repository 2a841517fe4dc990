// The small codecs of gRPC: timeouts, -bin metadata, percent-encoding, message framing, deadlines.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Code } from "../../src/base/status.ts";
import { decodeBinaryValue, encodeBinaryValue, isBinaryValue } from "../../src/grpc/binary-metadata.ts";
import { DeadlineWheel } from "../../src/grpc/deadline-wheel.ts";
import { MessageReader } from "../../src/grpc/message-reader.ts";
import { MAX_TRAILER_BYTES, maxTrailerBytes, percentEncode, trailersOnly } from "../../src/grpc/status-trailers.ts";
import { parseTimeoutMs } from "../../src/grpc/timeout.ts";

describe("parseTimeoutMs()", () => {
  it.each([
    ["59882144u", 59_882.144],
    ["3S", 3000],
    ["3010m", 3010],
    ["2M", 120_000],
    ["1H", 3_600_000],
    ["500000n", 0.5],
    ["0n", 0],
    ["00000000m", 0],
    ["99999999H", 2 ** 31 - 1],
  ] as const)("reads %s", (text, expected) => expect(parseTimeoutMs(text)).toBeCloseTo(expected, 6));

  it.each(["", "S", "5", "5s", "5 S", "-1S", "+1S", "1.5S", "123456789m", "٣S", "1SS"])("refuses %j", (text) =>
    expect(parseTimeoutMs(text)).toBeUndefined(),
  );
});

describe("-bin metadata", () => {
  it("decodes what it encodes, padded or not (G-11)", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const text = encodeBinaryValue(bytes);
        expect(text).not.toContain("=");
        expect(Buffer.from(decodeBinaryValue(text) ?? []).equals(bytes)).toBe(true);
        expect(Buffer.from(decodeBinaryValue(Buffer.from(bytes).toString("base64")) ?? []).equals(bytes)).toBe(true);
      }),
    );
  });

  it("decides as a regular expression does", () => {
    const naive = (text: string): boolean =>
      text
        .split(",")
        .every((piece) => /^ *(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/.test(piece));
    const unit = fc.constantFrom("A", "z", "9", "+", "/", "=", ",", "-", "é");
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 14 }), (text) => {
        expect(isBinaryValue(text)).toBe(naive(text));
      }),
      { numRuns: 3000 },
    );
  });
});

describe("status trailers", () => {
  it("percent-encodes what a decoder reads back (G-31)", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 100 }), (text) => {
        const encoded = percentEncode(text, 10_000);
        expect(encoded).toMatch(/^[\x20-\x24\x26-\x7e%]*$/);
        expect(decodeURIComponent(encoded)).toBe(text.toWellFormed());
      }),
    );
  });

  it("cuts at the border of a character", () => {
    expect(percentEncode("☃☃", 10)).toBe("%E2%98%83");
    expect(percentEncode("a%b", 100)).toBe("a%25b");
  });

  it("stays below every limit a client may have (G-32)", () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 9000 }),
        fc.integer({ min: 0, max: 20_000 }),
        fc.integer({ min: 600, max: 20_000 }),
        (message, detailBytes, peerLimit) => {
          const details = [{ typeUrl: "type.googleapis.com/x", value: new Uint8Array(detailBytes) }];
          const maxBytes = maxTrailerBytes(peerLimit);
          const block = trailersOnly({ code: Code.INVALID_ARGUMENT, message, details }, { maxBytes });
          expect(block.listSizeBytes).toBeLessThanOrEqual(Math.min(MAX_TRAILER_BYTES, peerLimit));
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe("MessageReader", () => {
  it("returns the same messages for every cut of the body (G-20, G-21)", () => {
    const message = fc.uint8Array({ maxLength: 100 });
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 100 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 300 }),
        (messages, cuts) => {
          const body = Buffer.concat(messages.flatMap((bytes) => [Buffer.from([0, 0, 0, 0, bytes.length]), bytes]));
          const reader = new MessageReader("/a/B", 1000);
          const taken: string[] = [];
          let at = 0;
          for (const cut of [...cuts, body.length]) {
            const read = Buffer.from(body.subarray(at, at + cut));
            reader.push(read);
            read.fill(0xee);
            at += cut;
            if (cut % 3 === 0) taken.push(...take(reader, 2));
          }
          taken.push(...take(reader, 1000));
          expect(taken).toEqual(messages.map((bytes) => Buffer.from(bytes).toString("hex")));
          expect(reader.atBoundary).toBe(true);
        },
      ),
    );
  });

  // Seen with moon: slice() of a Buffer shares its memory, and the octets that waited were those of the next read.
  it("keeps what waits behind 64 messages when the read buffer is used again", () => {
    const messages = Array.from({ length: 300 }, (_, index) => Buffer.from(`message ${index}`));
    const body = Buffer.concat(messages.flatMap((bytes) => [Buffer.from([0, 0, 0, 0, bytes.length]), bytes]));
    const reader = new MessageReader("/a/B", 1000);
    const shared = Buffer.alloc(1024);
    for (let at = 0; at < body.length; at += shared.length) {
      const count = body.copy(shared, 0, at);
      reader.push(shared.subarray(0, count));
      shared.fill(0xee);
    }
    expect(take(reader, 1000)).toEqual(messages.map((bytes) => bytes.toString("hex")));
  });

  it("keeps ten thousand empty messages as octets, not as objects (A-28)", () => {
    const reader = new MessageReader("/a/B", 1000);
    reader.push(Buffer.alloc(50_000));
    expect(reader.readyCount).toBe(64);
    expect(take(reader, 100_000)).toHaveLength(10_000);
  });
});

function take(reader: MessageReader, most: number): string[] {
  const taken: string[] = [];
  while (taken.length < most) {
    const message = reader.take();
    if (message === undefined) break;
    taken.push(Buffer.from(message.bytes).toString("hex"));
  }
  return taken;
}

describe("DeadlineWheel", () => {
  it("calls each deadline once, none early, and none that was removed", async () => {
    const wheel = new DeadlineWheel();
    const startMs = performance.now();
    const early: number[] = [];
    let called = 0;
    const done = new Promise<void>((resolve) => {
      for (const delayMs of [0, 5, 19, 20, 21, 40, 80]) {
        wheel.add(delayMs, () => {
          if (performance.now() - startMs < delayMs) early.push(delayMs);
          if (++called === 7) resolve();
        });
      }
    });
    const removed = wheel.add(10, () => early.push(-1));
    wheel.add(3_600_000, () => early.push(-2));
    wheel.remove(removed);
    await done;
    expect(early).toEqual([]);
    expect(wheel.size).toBe(1);
  });
});
