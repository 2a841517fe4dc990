// An ActionResult as JSON and back, by the JSON mapping of protocol buffers (proto3).
//
// Invariant: what toJson() writes, fromJson() reads to the same message. Reading is strict, as for every other body: an
// unknown field, a wrong type or a number out of range is INVALID_ARGUMENT naming the field. One thing differs from the
// mapping: an Any is `{"@type": …, "value": base64}` whatever its type is, because we do not know the types of others.

import { invalidArgument } from "../base/status.ts";
import { ActionResult } from "../proto/remote_execution.ts";

/** How the JSON of a field looks; a record is a message with these fields, by their JSON names. */
type Kind = "string" | "bool" | "int32" | "uint32" | "int64" | "bytes" | "timestamp" | "duration" | "any" | Fields;

interface Fields {
  readonly [name: string]: Kind | readonly [Kind];
}

const DIGEST: Fields = { hash: "string", sizeBytes: "int64" };
const NODE_PROPERTIES: Fields = {
  properties: [{ name: "string", value: "string" }],
  mtime: "timestamp",
  unixMode: "uint32",
};
const SYMLINK: Fields = { path: "string", target: "string", nodeProperties: NODE_PROPERTIES };
const METADATA: Fields = {
  worker: "string",
  queuedTimestamp: "timestamp",
  workerStartTimestamp: "timestamp",
  workerCompletedTimestamp: "timestamp",
  inputFetchStartTimestamp: "timestamp",
  inputFetchCompletedTimestamp: "timestamp",
  executionStartTimestamp: "timestamp",
  executionCompletedTimestamp: "timestamp",
  virtualExecutionDuration: "duration",
  outputUploadStartTimestamp: "timestamp",
  outputUploadCompletedTimestamp: "timestamp",
  auxiliaryMetadata: ["any"],
};
const ACTION_RESULT: Fields = {
  outputFiles: [
    { path: "string", digest: DIGEST, isExecutable: "bool", contents: "bytes", nodeProperties: NODE_PROPERTIES },
  ],
  outputFileSymlinks: [SYMLINK],
  outputSymlinks: [SYMLINK],
  outputDirectories: [
    { path: "string", treeDigest: DIGEST, isTopologicallySorted: "bool", rootDirectoryDigest: DIGEST },
  ],
  outputDirectorySymlinks: [SYMLINK],
  exitCode: "int32",
  stdoutRaw: "bytes",
  stdoutDigest: DIGEST,
  stderrRaw: "bytes",
  stderrDigest: DIGEST,
  executionMetadata: METADATA,
};

/** The JSON of a serialized ActionResult; fields with default values are left out. */
export function actionResultToJson(bytes: Uint8Array): string {
  return JSON.stringify(writeMessage(ACTION_RESULT, ActionResult.decode(bytes)));
}

/** The serialized ActionResult that `text` describes; throws INVALID_ARGUMENT when it describes none. */
export function actionResultFromJson(text: string): Uint8Array {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalidArgument(`the body is not JSON: ${error instanceof Error ? error.message : String(error)}`, error);
  }
  return ActionResult.encode(readMessage(ACTION_RESULT, value, "ActionResult"));
}

function writeMessage(fields: Fields, message: object): Record<string, unknown> {
  const json: Record<string, unknown> = {};
  const values = message as Readonly<Record<string, unknown>>;
  for (const [name, kind] of Object.entries(fields)) {
    const value = values[name];
    if (isRepeated(kind)) {
      const items = value as readonly unknown[];
      if (items.length > 0) json[name] = items.map((item) => writeValue(kind[0], item));
    } else if (value !== undefined && !isDefault(value, name)) json[name] = writeValue(kind, value);
  }
  return json;
}

/** A wrapped number is absent or written; every other field is written when it differs from what absence means. */
function isDefault(value: unknown, name: string): boolean {
  if (name === "unixMode") return false;
  return value === "" || value === 0 || value === false || (value instanceof Uint8Array && value.length === 0);
}

function writeValue(kind: Kind, value: unknown): unknown {
  switch (kind) {
    case "int64":
      return String(value);
    case "bytes":
      return base64(value as Uint8Array);
    case "timestamp": {
      const { seconds, nanos } = value as Time;
      const date = new Date(seconds * 1000);
      // The mapping ends with the year 9999; what a client wrote beyond it is left out.
      if (!(date.getUTCFullYear() >= 1 && date.getUTCFullYear() <= 9999)) return undefined;
      return `${date.toISOString().slice(0, 19)}${fraction(nanos)}Z`;
    }
    case "duration": {
      const { seconds, nanos } = value as Time;
      const sign = seconds < 0 || nanos < 0 ? "-" : "";
      return `${sign}${Math.abs(seconds)}${fraction(Math.abs(nanos))}s`;
    }
    case "any": {
      const any = value as { readonly typeUrl: string; readonly value: Uint8Array };
      return { "@type": any.typeUrl, value: base64(any.value) };
    }
    case "string":
    case "bool":
    case "int32":
    case "uint32":
      return value;
    default:
      return writeMessage(kind, value as object);
  }
}

interface Time {
  readonly seconds: number;
  readonly nanos: number;
}

/** 0, 3, 6 or 9 digits. */
function fraction(nanos: number): string {
  return nanos === 0
    ? ""
    : `.${String(nanos)
        .padStart(9, "0")
        .replace(/(000){1,2}$/, "")}`;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

function readMessage(fields: Fields, value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(path, "an object", value);
  const message: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    // The mapping takes both spellings.
    const name = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const kind = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (kind === undefined) throw invalidArgument(`${path} has no field ${JSON.stringify(key)}`);
    if (Object.hasOwn(message, name)) throw invalidArgument(`${path}.${name} is there twice`);
    if (item === null) continue;
    const place = `${path}.${name}`;
    if (!isRepeated(kind)) message[name] = readValue(kind, item, place);
    else if (Array.isArray(item)) message[name] = item.map((each, i) => readValue(kind[0], each, `${place}[${i}]`));
    else throw wrong(place, "an array", item);
  }
  return message;
}

function readValue(kind: Kind, value: unknown, path: string): unknown {
  switch (kind) {
    case "string":
      if (typeof value !== "string") throw wrong(path, "a string", value);
      return value;
    case "bool":
      if (typeof value !== "boolean") throw wrong(path, "true or false", value);
      return value;
    case "int32":
      return readInteger(value, path, { min: -(2 ** 31), max: 2 ** 31 - 1 });
    case "uint32":
      return readInteger(value, path, { min: 0, max: 2 ** 32 - 1 });
    case "int64":
      return readInteger(value, path, { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER });
    case "bytes":
      return readBytes(value, path);
    case "timestamp":
      return readTimestamp(value, path);
    case "duration":
      return readDuration(value, path);
    case "any":
      return readAny(value, path);
    default:
      return readMessage(kind, value, path);
  }
}

function readInteger(value: unknown, path: string, range: { readonly min: number; readonly max: number }): number {
  const isText = typeof value === "string" && /^-?\d+$/.test(value);
  const number = isText ? Number(value) : value;
  if (typeof number !== "number" || !Number.isInteger(number) || number < range.min || number > range.max) {
    throw wrong(path, `a whole number from ${range.min} to ${range.max}`, value);
  }
  return number;
}

function readBytes(value: unknown, path: string): Uint8Array {
  if (typeof value !== "string" || !/^[\w+/-]*={0,2}$/.test(value)) throw wrong(path, "base64", value);
  return Buffer.from(value, "base64");
}

const TIMESTAMP = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/;

function readTimestamp(value: unknown, path: string): Time {
  const match = typeof value === "string" ? TIMESTAMP.exec(value) : null;
  const ms = match === null ? Number.NaN : Date.parse(`${match[1]}${match[3]}`.toUpperCase());
  if (Number.isNaN(ms)) throw wrong(path, 'a time such as "2026-01-31T23:59:59.5Z"', value);
  return { seconds: ms / 1000, nanos: nanosOf(match?.[2]) };
}

function readDuration(value: unknown, path: string): Time {
  const match = typeof value === "string" ? /^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$/.exec(value) : null;
  if (match === null) throw wrong(path, 'a duration such as "1.5s"', value);
  const sign = match[1] === "-" ? -1 : 1;
  return { seconds: sign * Number(match[2]) || 0, nanos: sign * nanosOf(match[3]) || 0 };
}

function nanosOf(digits = ""): number {
  return Number(digits.padEnd(9, "0"));
}

function readAny(value: unknown, path: string): { readonly typeUrl: string; readonly value: Uint8Array } {
  const { "@type": typeUrl, value: bytes = "", ...others } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof typeUrl !== "string" || Object.keys(others).length > 0) {
    throw wrong(path, 'an object of "@type" and "value" in base64', value);
  }
  return { typeUrl, value: readBytes(bytes, `${path}.value`) };
}

function isRepeated(kind: Kind | readonly [Kind]): kind is readonly [Kind] {
  return Array.isArray(kind);
}

function wrong(path: string, expected: string, value: unknown): Error {
  return invalidArgument(`${path} is ${(JSON.stringify(value) ?? "nothing").slice(0, 60)}, expected ${expected}`);
}
