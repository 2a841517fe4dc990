// Every generated codec, for tests that are about all of them.

import * as any from "../../src/proto/any.ts";
import * as bytestream from "../../src/proto/bytestream.ts";
import * as duration from "../../src/proto/duration.ts";
import * as empty from "../../src/proto/empty.ts";
import * as errorDetails from "../../src/proto/error_details.ts";
import * as fieldMask from "../../src/proto/field_mask.ts";
import * as health from "../../src/proto/health.ts";
import * as operations from "../../src/proto/operations.ts";
import * as reflection from "../../src/proto/reflection.ts";
import * as reflectionV1alpha from "../../src/proto/reflection_v1alpha.ts";
import * as remoteAsset from "../../src/proto/remote_asset.ts";
import * as remoteExecution from "../../src/proto/remote_execution.ts";
import * as remoteLogstream from "../../src/proto/remote_logstream.ts";
import * as semver from "../../src/proto/semver.ts";
import * as status from "../../src/proto/status.ts";
import * as timestamp from "../../src/proto/timestamp.ts";
import * as wrappers from "../../src/proto/wrappers.ts";
import type { MessageType } from "../../src/proto/wire.ts";

type AnyCodec = MessageType<Record<string, unknown>, Record<string, unknown>>;

const modules: readonly Record<string, unknown>[] = [
  any,
  bytestream,
  duration,
  empty,
  errorDetails,
  fieldMask,
  health,
  operations,
  reflection,
  reflectionV1alpha,
  remoteAsset,
  remoteExecution,
  remoteLogstream,
  semver,
  status,
  timestamp,
  wrappers,
];

export const codecs: readonly AnyCodec[] = modules.flatMap((module) => Object.values(module).filter(isCodec));

function isCodec(value: unknown): value is AnyCodec {
  return typeof value === "object" && value !== null && "encode" in value;
}
