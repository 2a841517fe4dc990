// Writes the TypeScript of one .proto file: interfaces, codecs, enums, services.
//
// The generated code is straight-line: one function per message and direction, fields by ascending number, one object
// literal per message so that all messages of a type share a hidden class. Whatever can fail is in wire.ts.

import type { Enum, Field, File, FieldType, Message, Schema, Service } from "./schema.ts";
import {
  codec,
  defaultOf,
  emptyValue,
  fullType,
  hasPresence,
  initType,
  isWrapper,
  kindOf,
  local,
  wrappedType,
  type Scope,
} from "./field-types.ts";

export function codecText(file: File, schema: Schema): string {
  const scope = { schema, file };
  const messages = file.messages.flatMap(withNested);
  const body = [
    ...[...file.enums, ...messages.flatMap((item) => item.enums)].map(enumText),
    ...messages.map((item) => messageText(item, scope)),
    ...file.services.map((item) => serviceText(item, scope)),
  ].join("\n");
  return `// Generated from ${file.name} by protos/generate.ts: do not edit.\n\n${imports(body, scope)}${body}`;
}

function withNested(item: Message): Message[] {
  return [item, ...item.messages.flatMap(withNested)];
}

/** Imports what `body` uses of wire.ts, and the types that fields and methods refer to. */
function imports(body: string, { schema, file }: Scope): string {
  const lines: string[] = [];
  const measures = new Set(body.match(/\b(measure[A-Z][A-Za-z0-9]+|varintSize|noBytes)\b/g));
  if (body.includes("new Reader(")) {
    lines.push(`import { ${[...measures].sort().concat("Reader", "Writer").join(", ")} } from "./wire.ts";\n`);
    lines.push(`import type { MessageType } from "./wire.ts";\n`);
  }
  const foreign = [...referencesOf(file)]
    .flatMap((name) => schema.symbols.get(name) ?? [])
    .filter((item) => item.outputName !== file.outputName);
  for (const [outputName, items] of Map.groupBy(foreign, (item) => item.outputName)) {
    const names = items.flatMap(({ kind, localName }) => {
      if (kind === "enum") return [`type ${localName}`];
      return body.includes(`${localName}Init`) ? [localName, `type ${localName}Init`] : [localName];
    });
    lines.push(`import { ${names.join(", ")} } from "./${outputName}";\n`);
  }
  return lines.length === 0 ? "" : `${lines.join("")}\n`;
}

/** The full names of all types that fields and methods of `file` mention. */
function referencesOf(file: File): Set<string> {
  const fields = file.messages.flatMap(withNested).flatMap((item) => item.fields);
  const methods = file.services.flatMap((item) => item.methods);
  return new Set([
    ...fields.flatMap(({ type }) => ("ref" in type ? [type.ref] : [])),
    ...methods.flatMap((method) => [method.input, method.output]),
  ]);
}

function enumText(item: Enum): string {
  const values = item.values.map(([name, number]) => `  ${name}: ${number},\n`).join("");
  return `/** Open: values that are not listed are kept. */
export type ${item.localName} = number;
export const ${item.localName} = {
${values}} as const;
`;
}

function serviceText(item: Service, scope: Scope): string {
  const methods = item.methods.map(
    (method) => `    ${method.name}: {
      path: "/${item.fullName}/${method.name}",
      input: ${local(method.input, scope)},
      output: ${local(method.output, scope)},
      clientStreaming: ${method.clientStreaming},
      serverStreaming: ${method.serverStreaming},
    },
`,
  );
  return `export const ${item.name} = {
  typeName: "${item.fullName}",
  methods: {
${methods.join("")}  },
} as const;
`;
}

function messageText(item: Message, scope: Scope): string {
  const name = item.localName;
  const fields = [...item.fields].sort((a, b) => a.number - b.number);
  const each = (text: (entry: Field) => string) => fields.map(text).join("");
  return `export interface ${name} {
${each((entry) => `  ${entry.localName}: ${fullType(entry, scope)};\n`)}}

export interface ${name}Init {
${each((entry) => `  readonly ${entry.localName}?: ${initType(entry, scope)} | undefined;\n`)}}

export const ${name}: MessageType<${name}, ${name}Init> = {
  typeName: "${item.fullName}",
  encode(message) {
    const sizes: number[] = [];
    const writer = new Writer(measure_${name}(message, sizes), sizes);
    write_${name}(message, writer);
    return writer.finish();
  },
  decode(bytes) {
    return merge_${name}(empty_${name}(), new Reader(bytes, "${item.fullName}"));
  },
  empty: empty_${name},
  merge: merge_${name},
  measure: measure_${name},
  write: write_${name},
};

function empty_${name}(): ${name} {
  return {${each((entry) => ` ${entry.localName}: ${emptyValue(entry, scope)},`)} };
}

function merge_${name}(message: ${name}, reader: Reader): ${name} {
  while (reader.pos < reader.end) {
    const tag = reader.tag();
    switch (tag) {
${each((entry) => decodeCases(entry, { ...scope, item }))}      default:
        reader.skip(tag);
    }
  }
  return message;
}

function measure_${name}(${fields.length > 0 ? "message" : "_message"}: ${name}Init, ${usesSizes(fields, scope) ? "sizes" : "_sizes"}: number[]): number {
  let size = 0;
${each((entry) => measureText(entry, scope))}  return size;
}

function write_${name}(${fields.length > 0 ? "message" : "_message"}: ${name}Init, ${fields.length > 0 ? "writer" : "_writer"}: Writer): void {
${each((entry) => writeText(entry, scope))}}
`;
}

function usesSizes(fields: readonly Field[], scope: Scope): boolean {
  return fields.some((entry) => entry.shape !== "singular" || kindOf(entry.type, scope) === "message" || isText(entry));
}

function isText(entry: Field): boolean {
  return "scalar" in entry.type && entry.type.scalar === "string";
}

// ---- decoding ----

interface MessageScope extends Scope {
  readonly item: Message;
}

function decodeCases(entry: Field, scope: MessageScope): string {
  const { localName, number } = entry;
  const place = `message.${localName}`;
  const clear = siblings(entry, scope.item)
    .map((name) => `        message.${name} = undefined;\n`)
    .join("");
  if (entry.shape === "map") return decodeMapCase(entry, scope);
  if (kindOf(entry.type, scope) === "message") {
    const value = codec("merge", entry.type, scope);
    const start = `${codec("empty", entry.type, scope)}()`;
    const statement = isWrapper(entry)
      ? `${place} = ${value}({ value: ${place} ?? ${defaultOf(wrappedType(entry, scope), scope)} }, reader).value;`
      : entry.shape === "repeated"
        ? `${place}.push(${value}(${start}, reader));`
        : `${place} = ${value}(${place} ?? ${start}, reader);`;
    return `      case ${tagOf(number, 2)}: {
${clear}        const outerEnd = reader.enter();
        ${statement}
        reader.leave(outerEnd);
        break;
      }
`;
  }
  const value = readScalar(entry, scope);
  if (entry.shape === "singular") {
    return `      case ${tagOf(number, wireType(entry.type, scope))}:
${clear}        ${place} = ${value};
        break;
`;
  }
  const packed = `      case ${tagOf(number, 2)}: {
        const outerEnd = reader.enterPacked();
        while (reader.pos < reader.end) ${place}.push(${value});
        reader.end = outerEnd;
        break;
      }
`;
  const plain = `      case ${tagOf(number, wireType(entry.type, scope))}:
        ${place}.push(${value});
        break;
`;
  return isPackable(entry.type, scope) ? packed + plain : plain;
}

/** The other members of its oneof: setting one clears the rest. */
function siblings(entry: Field, item: Message): string[] {
  if (entry.oneof === undefined) return [];
  return item.fields.filter((other) => other.oneof === entry.oneof && other !== entry).map((other) => other.localName);
}

function decodeMapCase(entry: Field, scope: MessageScope): string {
  const keyType: FieldType = { scalar: entry.keyType ?? "string" };
  const isMessage = kindOf(entry.type, scope) === "message";
  const readKey = readScalar({ ...entry, type: keyType }, scope);
  const readValue = isMessage
    ? `{
            const entryEnd = reader.enter();
            ${codec("merge", entry.type, scope)}(value, reader);
            reader.leave(entryEnd);
          }`
    : `value = ${readScalar(entry, scope)};`;
  return `      case ${tagOf(entry.number, 2)}: {
        const outerEnd = reader.enter();
        let key = ${defaultOf(keyType, scope)};
        ${isMessage ? "const" : "let"} value = ${defaultOf(entry.type, scope)};
        while (reader.pos < reader.end) {
          const entryTag = reader.tag();
          if (entryTag === ${tagOf(1, wireType(keyType, scope))}) key = ${readKey};
          else if (entryTag === ${tagOf(2, isMessage ? 2 : wireType(entry.type, scope))}) ${readValue}
          else reader.skip(entryTag);
        }
        message.${entry.localName}.set(key, value);
        reader.leave(outerEnd);
        break;
      }
`;
}

function readScalar(entry: Field, scope: MessageScope): string {
  const kind = kindOf(entry.type, scope);
  return kind === "string" ? `reader.string("${scope.item.fullName}.${entry.name}")` : `reader.${kind}()`;
}

function tagOf(number: number, wire: number): number {
  return number * 8 + wire;
}

function wireType(type: FieldType, scope: Scope): number {
  switch (kindOf(type, scope)) {
    case "message":
    case "string":
    case "bytes":
      return 2;
    case "double":
      return 1;
    case "float":
      return 5;
    default:
      return 0;
  }
}

function isPackable(type: FieldType, scope: Scope): boolean {
  return wireType(type, scope) !== 2;
}

// ---- encoding ----

/** The size of one value without tag, as an expression. */
function measureValue(type: FieldType, value: string, scope: Scope): string {
  const kind = kindOf(type, scope);
  if (kind === "message") return `measureMessage(${codec("measure", type, scope)}, ${value}, sizes)`;
  return `measure${kind.charAt(0).toUpperCase()}${kind.slice(1)}(${value}${kind === "string" ? ", sizes" : ""})`;
}

function writeValue(type: FieldType, value: string, scope: Scope): string[] {
  const kind = kindOf(type, scope);
  if (kind !== "message") return [`writer.${kind}(${value});`];
  return ["writer.uint32(writer.size());", `${codec("write", type, scope)}(${value}, writer);`];
}

/** Whether the singular field `name` is on the wire. */
function isWritten(entry: Field, name: string, scope: Scope): string {
  const present = `${name} !== undefined`;
  if (hasPresence(entry, scope)) return present;
  switch (kindOf(entry.type, scope)) {
    case "string":
      return `${present} && ${name} !== ""`;
    case "bytes":
      return `${present} && ${name}.length !== 0`;
    case "bool":
      return `${name} === true`;
    case "double":
    case "float":
      return `${present} && !Object.is(${name}, 0)`; // -0 is not the default.
    default:
      return `${present} && ${name} !== 0`;
  }
}

function valueOf(entry: Field, name: string): string {
  return isWrapper(entry) ? `{ value: ${name} }` : name;
}

function measureText(entry: Field, scope: Scope): string {
  const { localName: name, type } = entry;
  const tagSize = entry.number < 16 ? 1 : entry.number < 2048 ? 2 : 3;
  const declare = `  const ${variable(name)} = message.${name};\n`;
  const it = variable(name);
  if (entry.shape === "singular") {
    return `${declare}  if (${isWritten(entry, it, scope)}) size += ${tagSize} + ${measureValue(type, valueOf(entry, it), scope)};\n`;
  }
  if (entry.shape === "map") {
    const key = measureValue({ scalar: entry.keyType ?? "string" }, "key", scope);
    return `${declare}  if (${it} !== undefined) {
    for (const [key, value] of ${it}) {
      const index = sizes.push(0) - 1;
      const entrySize = 1 + ${key} + 1 + ${measureValue(type, "value", scope)};
      sizes[index] = entrySize;
      size += ${tagSize} + varintSize(entrySize) + entrySize;
    }
  }
`;
  }
  if (!isPackable(type, scope)) {
    return `${declare}  if (${it} !== undefined) for (const value of ${it}) size += ${tagSize} + ${measureValue(type, "value", scope)};\n`;
  }
  return `${declare}  if (${it} !== undefined && ${it}.length > 0) {
    let packed = 0;
    for (const value of ${it}) packed += ${measureValue(type, "value", scope)};
    size += ${tagSize} + measurePacked(packed, sizes);
  }
`;
}

function writeText(entry: Field, scope: Scope): string {
  const { localName: name, type } = entry;
  const it = variable(name);
  const declare = `  const ${it} = message.${name};\n`;
  const tag = (wire: number) => `writer.uint32(${tagOf(entry.number, wire)});`;
  const block = (condition: string, lines: readonly string[]) =>
    `${declare}  ${condition} {\n${lines.map((line) => `    ${line}\n`).join("")}  }\n`;
  if (entry.shape === "singular") {
    const value = writeValue(type, valueOf(entry, it), scope);
    return block(`if (${isWritten(entry, it, scope)})`, [tag(wireType(type, scope)), ...value]);
  }
  if (entry.shape === "map") {
    const keyType: FieldType = { scalar: entry.keyType ?? "string" };
    return block(`if (${it} !== undefined) for (const [key, value] of ${it})`, [
      tag(2),
      "writer.uint32(writer.size());",
      `writer.uint32(${tagOf(1, wireType(keyType, scope))});`,
      ...writeValue(keyType, "key", scope),
      `writer.uint32(${tagOf(2, wireType(type, scope))});`,
      ...writeValue(type, "value", scope),
    ]);
  }
  if (!isPackable(type, scope)) {
    return block(`if (${it} !== undefined) for (const value of ${it})`, [tag(2), ...writeValue(type, "value", scope)]);
  }
  return block(`if (${it} !== undefined && ${it}.length > 0)`, [
    tag(2),
    "writer.uint32(writer.size());",
    `for (const value of ${it}) ${writeValue(type, "value", scope).join(" ")}`,
  ]);
}

/** A name that collides neither with a keyword nor with what the functions declare. */
function variable(name: string): string {
  return `${name}_`;
}
