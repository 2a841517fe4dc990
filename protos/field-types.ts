// What the fields of a message look like in TypeScript: types, defaults, and the codec of what they refer to.

import type { Field, FieldType, File, Scalar, Schema } from "./schema.ts";

/** What the generators of a file need to name things. */
export interface Scope {
  readonly schema: Schema;
  readonly file: File;
}

const WRAPPER = /^google\.protobuf\.(Double|Float|U?Int(32|64)|Bool|String|Bytes)Value$/;

/** "message", or the scalar that is on the wire; enums are int32. */
export function kindOf(type: FieldType, { schema }: Scope): Scalar | "message" {
  if ("scalar" in type) return type.scalar;
  return schema.symbols.get(type.ref)?.kind === "enum" ? "int32" : "message";
}

export function local(fullName: string, { schema }: Scope): string {
  const item = schema.symbols.get(fullName);
  if (item === undefined) throw new Error(`Unknown type "${fullName}"`);
  return item.localName;
}

/** The wrapper messages appear as what they wrap, or undefined. */
export function isWrapper(entry: Field): boolean {
  return entry.shape === "singular" && "ref" in entry.type && WRAPPER.test(entry.type.ref);
}

export function wrappedType(entry: Field, { schema }: Scope): FieldType {
  const item = "ref" in entry.type ? schema.symbols.get(entry.type.ref) : undefined;
  const inner = item?.kind === "message" ? item.fields[0] : undefined;
  if (inner === undefined) throw new Error(`"${entry.name}" is not of a wrapper type`);
  return inner.type;
}

function typeName(type: FieldType, scope: Scope): string {
  if ("ref" in type) return local(type.ref, scope);
  switch (type.scalar) {
    case "string":
      return "string";
    case "bytes":
      return "Uint8Array";
    case "bool":
      return "boolean";
    default:
      return "number";
  }
}

/** Whether the field is undefined when absent, rather than a default. */
export function hasPresence(entry: Field, scope: Scope): boolean {
  return (
    entry.shape === "singular" &&
    (entry.optional || entry.oneof !== undefined || kindOf(entry.type, scope) === "message")
  );
}

export function fullType(entry: Field, scope: Scope): string {
  const type = typeName(isWrapper(entry) ? wrappedType(entry, scope) : entry.type, scope);
  if (entry.shape === "repeated") return `${type}[]`;
  if (entry.shape === "map") return `Map<${keyTypeName(entry, scope)}, ${type}>`;
  return hasPresence(entry, scope) ? `${type} | undefined` : type;
}

export function initType(entry: Field, scope: Scope): string {
  if (isWrapper(entry)) return typeName(wrappedType(entry, scope), scope);
  const type = `${typeName(entry.type, scope)}${kindOf(entry.type, scope) === "message" ? "Init" : ""}`;
  if (entry.shape === "repeated") return `readonly ${type}[]`;
  return entry.shape === "map" ? `ReadonlyMap<${keyTypeName(entry, scope)}, ${type}>` : type;
}

function keyTypeName(entry: Field, scope: Scope): string {
  return typeName({ scalar: entry.keyType ?? "string" }, scope);
}

export function emptyValue(entry: Field, scope: Scope): string {
  if (entry.shape === "repeated") return "[]";
  if (entry.shape === "map") return "new Map()";
  return hasPresence(entry, scope) ? "undefined" : defaultOf(entry.type, scope);
}

export function defaultOf(type: FieldType, scope: Scope): string {
  const kind = kindOf(type, scope);
  if (kind === "message") return `${codec("empty", type, scope)}()`;
  if (kind === "string") return `""`;
  if (kind === "bytes") return "noBytes";
  return kind === "bool" ? "false" : "0";
}

/** Calls within a file are direct, across files through the exported codec. */
export function codec(action: "empty" | "merge" | "measure" | "write", type: FieldType, scope: Scope): string {
  if (!("ref" in type)) throw new Error("A scalar has no codec");
  const item = scope.schema.symbols.get(type.ref);
  const name = local(type.ref, scope);
  return item?.outputName === scope.file.outputName ? `${action}_${name}` : `${name}.${action}`;
}
