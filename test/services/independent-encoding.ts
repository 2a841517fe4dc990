// Messages encoded by protobufjs from the .proto files: independent of the codecs that the product generates.

import { join } from "node:path";
import protobuf from "protobufjs";

const root = new protobuf.Root();
root.resolvePath = (_origin, target) => join(import.meta.dirname, "../../protos", target);
root.loadSync("build/bazel/remote/execution/v2/remote_execution.proto");

/** Field names as protobufjs has them: camel case; int64 as numbers; bytes as Uint8Array. */
export function encodeIndependently(typeName: string, message: object): Uint8Array {
  const type = root.lookupType(`build.bazel.remote.execution.v2.${typeName}`);
  return new Uint8Array(type.encode(type.fromObject(message)).finish());
}
