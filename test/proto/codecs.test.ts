// The generated codecs against protobufjs, which reads the same .proto files by reflection.
//
// Random messages of every type: equal bytes when encoding, equal messages when decoding. protobufjs writes fields in
// ascending order and omits what is not set, so equal bytes mean canonical bytes.

import fc from "fast-check";
import { join } from "node:path";
import protobuf from "protobufjs";
import { describe, expect, test } from "vitest";
import { ProtoError, type MessageType } from "../../src/proto/wire.ts";
import { codecs } from "./all-codecs.ts";

type Plain = Record<string, unknown>;
type Codec = MessageType<Plain, Plain>;

const protos = join(import.meta.dirname, "..", "..", "protos");
const root = loadProtos();
const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000_000);
// fast-check prints the seed with a failure; TEST_SEED repeats a whole run.
const options = { seed, numRuns: 60 };

describe.each(codecs.map((codec): [string, Codec] => [codec.typeName, codec]))("%s", (typeName, codec) => {
  const type = root.lookupType(typeName);
  const messages = messageArbitrary(type, 3);

  test("encode() equals protobufjs", () => {
    fc.assert(
      fc.property(messages, (message) => {
        expect(hex(codec.encode(toOurs(message, type)))).toBe(hex(type.encode(toTheirs(message, type)).finish()));
      }),
      options,
    );
  });

  test("decode() returns what protobufjs encoded, with defaults filled in", () => {
    fc.assert(
      fc.property(messages, (message) => {
        const bytes = type.encode(toTheirs(message, type)).finish();
        expect(codec.decode(bytes)).toStrictEqual(toFull(message, type));
      }),
      options,
    );
  });

  // What was decoded can be encoded again, so full messages are acceptable where partial ones are.
  test("encode() of a decoded message gives the same bytes", () => {
    fc.assert(
      fc.property(messages, (message) => {
        const bytes = codec.encode(toOurs(message, type));
        expect(hex(codec.encode(codec.decode(bytes)))).toBe(hex(bytes));
      }),
      options,
    );
  });

  // Concatenation of serialized messages is defined to merge them: lists append, scalars are replaced, messages merge.
  test("decode() of two messages in a row merges like protobufjs", () => {
    fc.assert(
      fc.property(messages, messages, (first, second) => {
        const both = Buffer.concat([first, second].map((message) => codec.encode(toOurs(message, type))));
        const merged = type.encode(type.decode(both)).finish();
        expect(codec.decode(both)).toStrictEqual(codec.decode(merged));
      }),
      options,
    );
  });

  test("decode() of every prefix succeeds or throws ProtoError", () => {
    fc.assert(
      fc.property(messages, (message) => {
        const bytes = codec.encode(toOurs(message, type)).subarray(0, 400);
        for (let length = 0; length <= bytes.length; length++) expectNoCrash(codec, bytes.slice(0, length));
      }),
      { ...options, numRuns: 10 },
    );
  });

  test("decode() of random and of damaged bytes succeeds or throws ProtoError", () => {
    fc.assert(
      fc.property(messages, fc.uint8Array({ maxLength: 40 }), fc.nat(), (message, noise, where) => {
        expectNoCrash(codec, noise);
        const bytes = codec.encode(toOurs(message, type)).slice();
        bytes.set(noise.subarray(0, bytes.length), Math.max(0, (where % (bytes.length + 1)) - noise.length));
        expectNoCrash(codec, bytes);
      }),
      options,
    );
  });

  test("decode() skips unknown fields of every wire type", () => {
    const unknown = protobuf.Writer.create();
    unknown.uint32(tag(1000, 0)).uint64(1234567).uint32(tag(1001, 1)).fixed64(1);
    unknown.uint32(tag(1002, 2)).string("?").uint32(tag(1003, 5)).fixed32(1);
    fc.assert(
      fc.property(messages, (message) => {
        const bytes = codec.encode(toOurs(message, type));
        expect(codec.decode(Buffer.concat([unknown.finish(), bytes, unknown.finish()]))).toStrictEqual(
          codec.decode(bytes),
        );
      }),
      { ...options, numRuns: 5 },
    );
  });
});

function expectNoCrash(codec: Codec, bytes: Uint8Array): void {
  try {
    codec.decode(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(ProtoError);
  }
}

// ---- reflection ----

function loadProtos(): protobuf.Root {
  const loaded = new protobuf.Root();
  loaded.resolvePath = (_origin, target) => join(protos, target);
  return loaded.loadSync(
    [
      "build/bazel/remote/asset/v1/remote_asset.proto",
      "build/bazel/remote/execution/v2/remote_execution.proto",
      "build/bazel/remote/logstream/v1/remote_logstream.proto",
      "google/bytestream/bytestream.proto",
      "google/longrunning/operations.proto",
      "google/protobuf/field_mask.proto",
      "google/rpc/error_details.proto",
      "grpc/health/v1/health.proto",
      "grpc/reflection/v1/reflection.proto",
      "grpc/reflection/v1alpha/reflection.proto",
    ],
    { keepCase: true },
  );
}

/** A message by original field names; fields with default values are absent, map fields are lists of pairs. */
function messageArbitrary(type: protobuf.Type, depth: number): fc.Arbitrary<Plain> {
  const fields = type.fieldsArray.filter(
    (field) => depth > 0 || !(field.resolve().resolvedType instanceof protobuf.Type),
  );
  const model = Object.fromEntries(fields.map((field) => [field.name, fieldArbitrary(field, depth)]));
  return fc.record(model, { requiredKeys: [] }).map((message) => {
    for (const oneof of type.oneofsArray) {
      // At most one member of each.
      for (const name of oneof.oneof.filter((member) => member in message).slice(1)) delete message[name];
    }
    for (const field of fields) if (isDefault(field, message[field.name])) delete message[field.name];
    return message;
  });
}

function fieldArbitrary(field: protobuf.Field, depth: number): fc.Arbitrary<unknown> {
  const value = valueArbitrary(field, depth);
  if (field instanceof protobuf.MapField) {
    return fc.uniqueArray(fc.tuple(fc.string({ unit: "binary" }), value), { maxLength: 3, selector: ([key]) => key });
  }
  return field.repeated ? fc.array(value, { maxLength: 4 }) : value;
}

function valueArbitrary(field: protobuf.Field, depth: number): fc.Arbitrary<unknown> {
  const { resolvedType } = field.resolve();
  if (resolvedType instanceof protobuf.Type) return messageArbitrary(resolvedType, depth - 1);
  if (resolvedType instanceof protobuf.Enum) return fc.oneof(fc.integer({ min: 0, max: 12 }), fc.integer());
  switch (field.type) {
    case "string":
      return fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.string({ minLength: 120, maxLength: 140 }));
    case "bytes":
      return fc.uint8Array({ maxLength: 200 }).map((bytes) => Uint8Array.from(bytes));
    case "bool":
      return fc.boolean();
    case "int32":
      return fc.oneof(fc.integer(), fc.integer({ min: -3, max: 300 }));
    case "uint32":
      return fc.integer({ min: 0, max: 0xffffffff });
    case "int64":
      return fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -3, max: 100_000 }));
    case "uint64":
      return fc.maxSafeNat();
    case "double":
      return fc.double({ noNaN: true });
    case "float":
      return fc.float({ noNaN: true });
    default:
      throw new Error(`No arbitrary for ${field.type}`);
  }
}

function isDefault(field: protobuf.Field, value: unknown): boolean {
  if (value === undefined) return true;
  if (field.repeated || field.map || value instanceof Uint8Array) {
    return (value as ArrayLike<unknown>).length === 0 && !field.partOf;
  }
  return !field.partOf && (value === "" || value === false || Object.is(value, 0));
}

/** The names that our codecs use, found independently of the generator. */
function camelCase(name: string): string {
  const [first = "", ...rest] = name.split("_");
  return first + rest.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}

function mapMessage(message: Plain, type: protobuf.Type, convert: (message: Plain, type: protobuf.Type) => unknown) {
  return Object.entries(message).map(([name, value]): [protobuf.Field, unknown] => {
    const field = type.fields[name]!;
    const { resolvedType } = field.resolve();
    const one = (item: unknown) =>
      resolvedType instanceof protobuf.Type ? convert(item as Plain, resolvedType) : item;
    if (field.map) return [field, (value as [string, unknown][]).map(([key, item]) => [key, one(item)])];
    return [field, field.repeated ? (value as unknown[]).map(one) : one(value)];
  });
}

function isWrapper(field: protobuf.Field): boolean {
  return !field.repeated && !field.map && /^\.?google\.protobuf\..*Value$/.test(field.type);
}

/** As accepted by encode(). */
function toOurs(message: Plain, type: protobuf.Type): Plain {
  return Object.fromEntries(
    mapMessage(message, type, toOurs).map(([field, value]) => {
      const ours = isWrapper(field) ? ((value as Plain)["value"] ?? 0) : value;
      return [camelCase(field.name), field.map ? new Map(ours as [string, unknown][]) : ours];
    }),
  );
}

/** As accepted by protobufjs. */
function toTheirs(message: Plain, type: protobuf.Type): protobuf.Message {
  return type.create(
    Object.fromEntries(
      mapMessage(message, type, toTheirs).map(([field, value]) => {
        if (field.map) return [field.name, Object.fromEntries(value as [string, unknown][])];
        return [field.name, value];
      }),
    ),
  );
}

/** As returned by decode(). */
function toFull(message: Plain, type: protobuf.Type): Plain {
  const set = new Map(mapMessage(message, type, toFull));
  return Object.fromEntries(
    type.fieldsArray.map((field) => {
      const value = set.get(field) ?? defaultOf(field);
      if (isWrapper(field)) return [camelCase(field.name), (value as Plain | undefined)?.["value"]];
      return [camelCase(field.name), field.map ? new Map(value as [string, unknown][]) : value];
    }),
  );
}

function defaultOf(field: protobuf.Field): unknown {
  const { resolvedType } = field.resolve();
  if (field.repeated || field.map) return [];
  if (field.partOf || resolvedType instanceof protobuf.Type) return undefined;
  if (resolvedType instanceof protobuf.Enum) return 0;
  if (field.type === "bytes") return new Uint8Array(0);
  if (field.type === "string") return "";
  return field.type === "bool" ? false : 0;
}

function tag(number: number, wireType: number): number {
  return number * 8 + wireType;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
