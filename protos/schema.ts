// Parses .proto files into the model that the generators work on, with all type names resolved.
//
// protobufjs does the parsing, one Root per file because it does not remember which file a type came from. Supported
// is what this folder uses: proto3 without extensions, groups, zigzag and fixed-width integers; the rest is an error.

import protobuf from "protobufjs";

export interface Schema {
  readonly files: readonly File[];
  /** By full name. */
  readonly symbols: ReadonlyMap<string, Message | Enum>;
}

export interface File {
  /** As imported, such as "google/rpc/status.proto". */
  readonly name: string;
  /** Such as "status.ts". */
  readonly outputName: string;
  readonly package: string;
  readonly dependencies: readonly string[];
  /** At the top level, like enums. */
  readonly messages: readonly Message[];
  readonly enums: readonly Enum[];
  readonly services: readonly Service[];
}

export interface Message {
  readonly kind: "message";
  readonly name: string;
  readonly fullName: string;
  /** In TypeScript: names of the enclosing messages and its own, joined by "_". */
  readonly localName: string;
  readonly outputName: string;
  /** As declared. */
  readonly fields: readonly Field[];
  /** Without the one-field ones that stand for `optional`. */
  readonly oneofs: readonly string[];
  readonly messages: readonly Message[];
  readonly enums: readonly Enum[];
  /** Both ends belong to the range. */
  readonly reserved: readonly (readonly [number, number] | string)[];
}

export interface Field {
  readonly name: string;
  /** As in JSON: camel case. */
  readonly localName: string;
  readonly number: number;
  readonly shape: "singular" | "repeated" | "map";
  /** Of a map: its values. */
  readonly type: FieldType;
  /** Only of a map. */
  readonly keyType: Scalar | undefined;
  readonly oneof: string | undefined;
  readonly optional: boolean;
  readonly deprecated: boolean;
}

export type FieldType = { readonly scalar: Scalar } | { readonly ref: string };

export type Scalar = "double" | "float" | "int64" | "uint64" | "int32" | "uint32" | "bool" | "string" | "bytes";

export interface Enum {
  readonly kind: "enum";
  readonly name: string;
  readonly fullName: string;
  readonly localName: string;
  readonly outputName: string;
  readonly values: readonly (readonly [string, number])[];
}

export interface Service {
  readonly name: string;
  readonly fullName: string;
  readonly methods: readonly Method[];
}

export interface Method {
  readonly name: string;
  /** A full name, like output. */
  readonly input: string;
  readonly output: string;
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
}

const scalars: ReadonlySet<string> = new Set<Scalar>([
  "double",
  "float",
  "int64",
  "uint64",
  "int32",
  "uint32",
  "bool",
  "string",
  "bytes",
]);

/** Where a declaration stands. */
interface Place {
  readonly packageName: string;
  readonly outputName: string;
  /** Of the enclosing messages. */
  readonly outer: readonly string[];
}

export function parseSchema(sources: readonly { readonly name: string; readonly text: string }[]): Schema {
  const outputNames = new Set<string>();
  const files = sources.map((source) => parseFile(source, uniqueOutputName(source.name, outputNames)));
  const symbols = new Map<string, Message | Enum>();
  for (const file of files) addSymbols(file, symbols);
  return { files: files.map((file) => resolveFile(file, symbols)), symbols };
}

/** "reflection.ts" for the first, "reflection_v1alpha.ts" for the next one of this name. */
function uniqueOutputName(protoName: string, taken: Set<string>): string {
  const [base = "", folder = ""] = protoName
    .replace(/\.proto$/, "")
    .split("/")
    .reverse();
  const name = taken.has(`${base}.ts`) ? `${base}_${folder}.ts` : `${base}.ts`;
  if (taken.has(name)) throw new Error(`Two .proto files would generate "${name}"`);
  taken.add(name);
  return name;
}

function parseFile(source: { readonly name: string; readonly text: string }, outputName: string): File {
  const root = new protobuf.Root();
  const parsed = protobuf.parse(source.text, root, { keepCase: true });
  const packageName = parsed.package ?? "";
  const namespace = root.lookup(packageName);
  if (!(namespace instanceof protobuf.Namespace)) throw new Error(`Package of "${source.name}" not found`);
  const place = { packageName, outputName, outer: [] };
  return {
    name: source.name,
    outputName,
    package: packageName,
    dependencies: parsed.imports ?? [],
    ...declarations(namespace, place),
    services: namespace.nestedArray
      .filter((item) => item instanceof protobuf.Service)
      .map((item) => service(item, place)),
  };
}

function declarations(namespace: protobuf.NamespaceBase, place: Place): { messages: Message[]; enums: Enum[] } {
  return {
    messages: namespace.nestedArray.filter((item) => item instanceof protobuf.Type).map((item) => message(item, place)),
    enums: namespace.nestedArray
      .filter((item) => item instanceof protobuf.Enum)
      .map((item) => ({
        kind: "enum" as const,
        ...names(item.name, place),
        values: Object.entries(item.values),
      })),
  };
}

function names(name: string, { packageName, outputName, outer }: Place) {
  return { name, fullName: [packageName, ...outer, name].join("."), localName: [...outer, name].join("_"), outputName };
}

function message(type: protobuf.Type, place: Place): Message {
  return {
    kind: "message",
    ...names(type.name, place),
    fields: Object.values(type.fields).map(field),
    oneofs: Object.values(type.oneofs ?? {})
      .filter((oneof) => !oneof.oneof.some((name) => isOptional(type.fields[name])))
      .map((oneof) => oneof.name),
    ...declarations(type, { ...place, outer: [...place.outer, type.name] }),
    reserved: (type.reserved ?? []).map((range) =>
      typeof range === "string" ? range : ([range[0] ?? 0, range[1] ?? 0] as const),
    ),
  };
}

function field(source: protobuf.Field): Field {
  const optional = isOptional(source);
  return {
    name: source.name,
    localName: camelCase(source.name),
    number: source.id,
    shape: source instanceof protobuf.MapField ? "map" : source.repeated ? "repeated" : "singular",
    type: scalars.has(source.type) ? { scalar: source.type as Scalar } : { ref: source.type },
    keyType: source instanceof protobuf.MapField ? (source.keyType as Scalar) : undefined,
    oneof: optional ? undefined : source.partOf?.name,
    optional,
    deprecated: source.options?.["deprecated"] === true,
  };
}

function isOptional(source: protobuf.Field | undefined): boolean {
  return source?.options?.["proto3_optional"] === true;
}

/** The JSON name of a field, by protoc's rule. */
function camelCase(name: string): string {
  return name.replace(/_+(.?)/g, (_all, next: string) => next.toUpperCase());
}

function service(source: protobuf.Service, place: Place): Service {
  return {
    name: source.name,
    fullName: names(source.name, place).fullName,
    methods: source.methodsArray.map((method) => ({
      name: method.name,
      input: method.requestType,
      output: method.responseType,
      clientStreaming: method.requestStream === true,
      serverStreaming: method.responseStream === true,
    })),
  };
}

function addSymbols(scope: File | Message, symbols: Map<string, Message | Enum>): void {
  for (const item of [...scope.messages, ...scope.enums]) symbols.set(item.fullName, item);
  for (const item of scope.messages) addSymbols(item, symbols);
}

function resolveFile(file: File, symbols: Map<string, Message | Enum>): File {
  const resolve = (name: string, scope: string) => resolveName(name, scope, symbols);
  const resolveMessage = (item: Message): Message => {
    const resolved: Message = {
      ...item,
      messages: item.messages.map(resolveMessage),
      fields: item.fields.map((entry) =>
        "ref" in entry.type ? { ...entry, type: { ref: resolve(entry.type.ref, item.fullName) } } : entry,
      ),
    };
    symbols.set(item.fullName, resolved);
    return resolved;
  };
  return {
    ...file,
    messages: file.messages.map(resolveMessage),
    services: file.services.map((item) => ({
      ...item,
      methods: item.methods.map((method) => ({
        ...method,
        input: resolve(method.input, item.fullName),
        output: resolve(method.output, item.fullName),
      })),
    })),
  };
}

/** Looks in `scope` first, then in the scopes around it. */
function resolveName(name: string, scope: string, symbols: ReadonlyMap<string, unknown>): string {
  if (name.startsWith(".")) return name.slice(1);
  const parts = scope.split(".");
  for (let length = parts.length; length >= 0; length--) {
    const candidate = [...parts.slice(0, length), name].join(".");
    if (symbols.has(candidate)) return candidate;
  }
  throw new Error(`Unknown type "${name}" in "${scope}"`);
}
