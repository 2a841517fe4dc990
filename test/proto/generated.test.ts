// What the generator leaves in src/proto: current files, services, and descriptors that protobufjs can read back.

import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import protobuf from "protobufjs";
import { describe, expect, test } from "vitest";
import { generate, generatedFiles } from "../../protos/generate.ts";
import { ByteStream, ReadRequest, ReadResponse } from "../../src/proto/bytestream.ts";
import { Code } from "../../src/proto/code.ts";
import { descriptorFiles, symbolToFile } from "../../src/proto/descriptors.ts";
import { Compressor_Value, ContentAddressableStorage, DigestFunction_Value } from "../../src/proto/remote_execution.ts";
import { codecs } from "./all-codecs.ts";

const folder = join(import.meta.dirname, "..", "..", "src", "proto");

describe("generate()", () => {
  // Fails when a .proto file or the generator changed after the last `npm run generate`.
  test("has been run", () => {
    for (const [name, text] of generatedFiles())
      expect([name, readFileSync(join(folder, name), "utf8")]).toEqual([name, text]);
  });

  test("leaves files alone that are current, replaces others, and leaves nothing else behind", () => {
    const temporary = mkdtempSync(join(tmpdir(), "proto-test-"));
    try {
      generate(temporary);
      const current = join(temporary, "duration.ts");
      utimesSync(current, 1, 1);
      rmSync(join(temporary, "any.ts"));
      generate(temporary);
      expect(statSync(current).mtimeMs).toBe(1000);
      expect(readdirSync(temporary).sort()).toEqual([...generatedFiles().keys()].sort());
    } finally {
      rmSync(temporary, { recursive: true });
    }
  });
});

test("services know the paths and kinds of their methods", () => {
  expect(ByteStream.methods.Read).toEqual({
    path: "/google.bytestream.ByteStream/Read",
    input: ReadRequest,
    output: ReadResponse,
    clientStreaming: false,
    serverStreaming: true,
  });
  expect(ByteStream.methods.Write.clientStreaming).toBe(true);
  expect(Object.keys(ContentAddressableStorage.methods)).toEqual([
    "FindMissingBlobs",
    "BatchUpdateBlobs",
    "BatchReadBlobs",
    "GetTree",
    "SplitBlob",
    "SpliceBlob",
  ]);
});

test("enums are tables of numbers", () => {
  expect(Compressor_Value.ZSTD).toBe(1);
  expect(DigestFunction_Value.BLAKE3).toBe(9);
  expect(Code.UNAUTHENTICATED).toBe(16);
});

describe("descriptors", () => {
  const FileDescriptorProto = descriptorType();

  test.each([...descriptorFiles.keys()])("of %s read back as declared", (name) => {
    const file = descriptorFiles.get(name);
    const decoded = FileDescriptorProto.toObject(FileDescriptorProto.decode(file?.bytes ?? new Uint8Array(0)), {
      arrays: true,
    });
    expect(decoded["name"]).toBe(name);
    expect(decoded["syntax"]).toBe("proto3");
    expect(decoded["dependency"]).toEqual(file?.dependencies);
    expect(file?.dependencies.filter((dependency) => !descriptorFiles.has(dependency))).toEqual([]);
  });

  test("spell out maps, oneofs, optional fields and reserved numbers", () => {
    const violation = messageDescriptor("google/rpc/error_details.proto", ["QuotaFailure", "Violation"]);
    expect(violation["oneofDecl"]).toEqual([{ name: "_future_quota_value" }]);
    expect(fieldOf(violation, "future_quota_value")).toMatchObject({ proto3Optional: true, oneofIndex: 0 });
    expect(fieldOf(violation, "quota_dimensions")).toMatchObject({
      label: 3,
      typeName: ".google.rpc.QuotaFailure.Violation.QuotaDimensionsEntry",
    });
    expect(violation["nestedType"]).toMatchObject([{ name: "QuotaDimensionsEntry", options: { mapEntry: true } }]);
    const action = messageDescriptor("build/bazel/remote/execution/v2/remote_execution.proto", ["Action"]);
    expect(action["reservedRange"]).toEqual([
      { start: 3, end: 6 },
      { start: 8, end: 9 },
    ]);
    const operation = messageDescriptor("google/longrunning/operations.proto", ["Operation"]);
    expect(operation["oneofDecl"]).toEqual([{ name: "result" }]);
    expect(fieldOf(operation, "error")).toMatchObject({ number: 4, oneofIndex: 0, typeName: ".google.rpc.Status" });
  });

  test("are found by message, field, enum value, service and method", () => {
    const file = "build/bazel/remote/execution/v2/remote_execution.proto";
    const names = ["Digest", "Digest.size_bytes", "Compressor.Value", "Compressor.ZSTD", "Capabilities"];
    for (const name of [...names, "Capabilities.GetCapabilities"]) {
      const symbol = `build.bazel.remote.execution.v2.${name}`;
      expect([symbol, symbolToFile.get(symbol)]).toEqual([symbol, file]);
    }
    expect(codecs.map(({ typeName }) => typeName).filter((name) => !symbolToFile.has(name))).toEqual([]);
    expect(symbolToFile.get("grpc.reflection.v1alpha.ServerReflection")).toBe(
      "grpc/reflection/v1alpha/reflection.proto",
    );
    for (const name of symbolToFile.values()) expect(descriptorFiles.has(name)).toBe(true);
  });

  type Plain = Record<string, unknown>;

  function messageDescriptor(file: string, path: readonly string[]): Plain {
    const decoded: Plain = FileDescriptorProto.toObject(
      FileDescriptorProto.decode(descriptorFiles.get(file)?.bytes ?? new Uint8Array(0)),
    );
    const [first = "", ...rest] = path;
    return rest.reduce((message, name) => named(message["nestedType"], name), named(decoded["messageType"], first));
  }

  function fieldOf(message: Plain, name: string): Plain {
    return named(message["field"], name);
  }

  function named(list: unknown, name: string): Plain {
    const found = (list as Plain[]).find((item) => item["name"] === name);
    if (found === undefined) throw new Error(`No "${name}"`);
    return found;
  }
});

/** From the copy of descriptor.proto that protobufjs brings along. */
function descriptorType(): protobuf.Type {
  const json: unknown = createRequire(import.meta.url)("protobufjs/google/protobuf/descriptor.json");
  return protobuf.Root.fromJSON(json as protobuf.INamespace).lookupType("google.protobuf.FileDescriptorProto");
}
