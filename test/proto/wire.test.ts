// The wire format at its edges: numbers, text, lists, nesting and everything that must be refused.

import protobuf from "protobufjs";
import { describe, expect, test } from "vitest";
import { WriteRequest } from "../../src/proto/bytestream.ts";
import { Operation } from "../../src/proto/operations.ts";
import { QuotaFailure_Violation } from "../../src/proto/error_details.ts";
import {
  Action,
  BatchReadBlobsRequest,
  Digest,
  Directory,
  ExecuteResponse,
  FastCdc2020Params,
  NodeProperties,
} from "../../src/proto/remote_execution.ts";
import { ServerReflectionRequest } from "../../src/proto/reflection.ts";
import { ProtoError, Reader } from "../../src/proto/wire.ts";
import { BoolValue, BytesValue, DoubleValue, Int32Value, Int64Value, UInt64Value } from "../../src/proto/wrappers.ts";

describe("encode()", () => {
  test("writes fields in ascending order of number, whatever the order of properties", () => {
    const digest: Digest = { sizeBytes: 3, hash: "ab" };
    expect(hex(Digest.encode(digest))).toBe("0a0261621003");
  });

  test("omits defaults, but not those of fields with presence", () => {
    expect(hex(Digest.encode({ hash: "", sizeBytes: 0 }))).toBe("");
    expect(hex(Action.encode({ salt: new Uint8Array(0), doNotCache: false, timeout: {} }))).toBe("3200");
    expect(hex(ServerReflectionRequest.encode({ listServices: "" }))).toBe("3a00");
    expect(hex(QuotaFailure_Violation.encode({ futureQuotaValue: 0 }))).toBe("4000");
    expect(hex(NodeProperties.encode({ unixMode: 0 }))).toBe("1a00");
    expect(hex(BatchReadBlobsRequest.encode({ acceptableCompressors: [] }))).toBe("");
  });

  test("packs repeated scalars", () => {
    expect(hex(BatchReadBlobsRequest.encode({ acceptableCompressors: [0, 1, 300] }))).toBe("1a040001ac02");
  });

  test("gives memory that belongs to the caller alone", () => {
    for (const length of [0, 10, 5000, 100_000]) {
      const encoded = WriteRequest.encode({ data: new Uint8Array(length).fill(7) });
      expect(encoded.byteOffset).toBe(0);
      expect(encoded.buffer.byteLength).toBe(encoded.length);
      expect(encoded.constructor).toBe(Uint8Array);
      expect(WriteRequest.decode(encoded).data).toStrictEqual(new Uint8Array(length).fill(7));
    }
  });

  test("replaces lone surrogates, so that the result is valid", () => {
    expect(Digest.decode(Digest.encode({ hash: "a\ud800b" })).hash).toBe("a\ufffdb");
  });

  test("refuses numbers that the type cannot hold", () => {
    expect(() => Digest.encode({ sizeBytes: 0.5 })).toThrow(ProtoError);
    expect(() => Digest.encode({ sizeBytes: Number.NaN })).toThrow(ProtoError);
    expect(() => Digest.encode({ sizeBytes: Number.POSITIVE_INFINITY })).toThrow(ProtoError);
    expect(() => Int32Value.encode({ value: 2 ** 31 })).toThrow(ProtoError);
    expect(() => FastCdc2020Params.encode({ seed: -1 })).toThrow(ProtoError);
    expect(() => FastCdc2020Params.encode({ avgChunkSizeBytes: -1 })).toThrow(ProtoError);
  });

  test("keeps the difference between 0 and -0", () => {
    expect(DoubleValue.decode(DoubleValue.encode({ value: -0 })).value).toBe(-0);
    expect(DoubleValue.encode({ value: 0 })).toHaveLength(0);
  });
});

describe("64-bit integers", () => {
  const boundaries = [7, 14, 21, 28, 31, 32, 35, 42, 49, 52, 53].flatMap((bits) => [2 ** bits - 1, 2 ** bits]);
  const numbers = boundaries.flatMap((value) => [value, -value]).filter((value) => Number.isSafeInteger(value));

  test.each(numbers)("%d survives", (value) => {
    const bytes = Int64Value.encode({ value });
    expect(hex(bytes)).toBe(hex(varintField(BigInt(value))));
    expect(Int64Value.decode(bytes).value).toBe(value);
    if (value > 0) expect(UInt64Value.decode(UInt64Value.encode({ value })).value).toBe(value);
  });

  // Callers check with Number.isSafeInteger; a rounded number must not pass for an exact one.
  test("beyond 2^53 are not safe integers after decoding, and never throw", () => {
    for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 53n), -(2n ** 63n)]) {
      const decoded = Int64Value.decode(varintField(value)).value;
      expect(Number.isSafeInteger(decoded)).toBe(false);
      expect(decoded).toBe(Number(value));
    }
    expect(UInt64Value.decode(varintField(2n ** 64n - 1n)).value).toBe(2 ** 64);
  });

  test("beyond 2^53 are saturated when they are encoded again", () => {
    const max = varintField(2n ** 63n - 1n);
    expect(hex(Int64Value.encode(Int64Value.decode(max)))).toBe(hex(max));
    const min = varintField(-(2n ** 63n));
    expect(hex(Int64Value.encode(Int64Value.decode(min)))).toBe(hex(min));
    const unsigned = varintField(2n ** 64n - 1n);
    expect(hex(UInt64Value.encode(UInt64Value.decode(unsigned)))).toBe(hex(unsigned));
    expect(hex(Int64Value.encode({ value: 2 ** 60 }))).toBe(hex(varintField(2n ** 60n)));
    expect(hex(UInt64Value.encode({ value: 2 ** 63 }))).toBe(hex(varintField(2n ** 63n)));
  });
});

describe("decode()", () => {
  test("takes packed and unpacked lists, also mixed", () => {
    const bytes = Buffer.from("1800" + "1a020102" + "18ac02" + "1a00", "hex");
    expect(BatchReadBlobsRequest.decode(bytes).acceptableCompressors).toEqual([0, 1, 2, 300]);
  });

  test("lets the last one win, and merges messages", () => {
    const bytes = Buffer.concat([
      Action.encode({ commandDigest: { hash: "a", sizeBytes: 1 }, salt: Buffer.from("x") }),
      Action.encode({ commandDigest: { sizeBytes: 2 }, salt: Buffer.from("y") }),
    ]);
    const action = Action.decode(bytes);
    expect(action.commandDigest).toEqual({ hash: "a", sizeBytes: 2 });
    expect(Buffer.from(action.salt).toString()).toBe("y");
  });

  test("keeps only the last member of a oneof", () => {
    const bytes = Buffer.concat([
      Operation.encode({ error: { code: 5 } }),
      Operation.encode({ response: { typeUrl: "t" } }),
    ]);
    const operation = Operation.decode(bytes);
    expect(operation.error).toBeUndefined();
    expect(operation.response?.typeUrl).toBe("t");
  });

  test("lets the last map entry of a key win, and defaults what an entry lacks", () => {
    const twice = Buffer.concat([
      ExecuteResponse.encode({ serverLogs: new Map([["k", { humanReadable: true }]]) }),
      Buffer.from("22030a016b", "hex"),
      Buffer.from("2200", "hex"),
    ]);
    const absent = { digest: undefined, humanReadable: false };
    expect([...ExecuteResponse.decode(twice).serverLogs]).toEqual([
      ["k", absent],
      ["", absent],
    ]);
  });

  test("gives bytes as views of the input", () => {
    const bytes = WriteRequest.encode({ resourceName: "n", data: Buffer.from("hello") });
    const { data } = WriteRequest.decode(bytes);
    expect(data.buffer).toBe(bytes.buffer);
    expect(Buffer.from(data).toString()).toBe("hello");
    // The same through a Buffer that starts in the middle of its memory.
    const shifted = Buffer.concat([Buffer.from("??"), bytes]).subarray(2);
    const view = WriteRequest.decode(shifted).data;
    expect(view.buffer).toBe(shifted.buffer);
    expect(view.constructor).toBe(Uint8Array);
    expect(Buffer.from(view).toString()).toBe("hello");
  });

  test("cuts int32, reads any varint but 0 as true", () => {
    expect(Int32Value.decode(varintField(2n ** 32n + 5n)).value).toBe(5);
    expect(Int32Value.decode(varintField(2n ** 31n)).value).toBe(-(2 ** 31));
    expect(BoolValue.decode(varintField(2n ** 40n)).value).toBe(true);
    expect(BoolValue.decode(Buffer.from("088000", "hex")).value).toBe(false);
  });

  test("treats a known field of another wire type as unknown", () => {
    expect(Digest.decode(Buffer.from("0801" + "120161" + "0a0162", "hex"))).toEqual({ hash: "b", sizeBytes: 0 });
  });

  test.each([
    ["field number 0", "0001"],
    ["field number 0 with a length", "020161"],
    ["a group", "0b0c"],
    ["an end of a group", "0c"],
    ["an unknown group", "a33fa43f"],
    ["wire type 6", "0e"],
    ["a truncated tag", "8a"],
    ["a truncated varint", "1080"],
    ["a varint of 11 bytes", "10ffffffffffffffffffff01"],
    ["a string beyond the end", "0a0361"],
    ["a huge length", "0affffffffffffffff7f"],
    ["a negative length", "0affffffffffffffffff01"],
    ["a skipped fixed64 beyond the end", "9900"],
    ["a skipped fixed32 beyond the end", "9d000000"],
  ])("refuses %s", (_name, input) => {
    expect(() => Digest.decode(Buffer.from(input, "hex"))).toThrow(ProtoError);
  });

  // The nested message claims a string that would reach into its parent.
  test("refuses a field that leaves its message", () => {
    expect(() => Action.decode(Buffer.from("0a020a0a" + "4a0a30303030303030303030", "hex"))).toThrow(/truncated/);
  });

  test.each(["ff", "c328", "e280", "eda080", "c080", "f4908080", "616263ff", "efbfbdff"])(
    "refuses the bytes %s as text, naming the field",
    (text) => {
      const bytes = protobuf.Writer.create().uint32(10).bytes(Buffer.from(text, "hex")).finish();
      expect(() => Digest.decode(bytes)).toThrow(
        /^Cannot decode build\.bazel\.remote\.execution\.v2\.Digest: field "build\.bazel\.remote\.execution\.v2\.Digest\.hash" is not valid UTF-8/,
      );
      expect(BytesValue.decode(bytes).value).toHaveLength(text.length / 2);
    },
  );

  test.each(["\ufffd", "a\ufffdb", "\ufeffa", "\u{1f600}", "\0", "ä".repeat(300)])("accepts the text %j", (hash) => {
    expect(Digest.decode(Digest.encode({ hash })).hash).toBe(hash);
  });

  test("names the message that was asked for", () => {
    expect(() => Directory.decode(Buffer.from("0a05", "hex"))).toThrow(
      "Cannot decode build.bazel.remote.execution.v2.Directory: truncated: expected 5 more bytes at byte 2 of 2",
    );
  });

  // None of our messages contains itself, so this needs a reader of its own that always descends.
  test("goes 100 messages deep and refuses 101", () => {
    const dive = (reader: Reader): void => {
      while (reader.pos < reader.end) {
        reader.tag();
        const outerEnd = reader.enter();
        dive(reader);
        reader.leave(outerEnd);
      }
    };
    expect(() => dive(new Reader(nested(100), "Test"))).not.toThrow();
    expect(() => dive(new Reader(nested(101), "Test"))).toThrow("messages nested deeper than 100");
    expect(() => dive(new Reader(nested(2_000), "Test"))).toThrow(ProtoError);
  });
});

/** `depth` messages in one another, each with field 1 only. */
function nested(depth: number): Uint8Array {
  let bytes = new Uint8Array(0);
  for (let level = 0; level < depth; level++) {
    bytes = Uint8Array.from(protobuf.Writer.create().uint32(10).bytes(bytes).finish());
  }
  return bytes;
}

/** Field 1 with a varint, written independently of the codecs. */
function varintField(value: bigint): Uint8Array {
  const bytes = [8];
  let rest = BigInt.asUintN(64, value);
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Uint8Array.from([...bytes, Number(rest)]);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
