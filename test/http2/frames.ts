// Frames as octets, right or wrong, and octets as frames: the tests' own writer and reader, apart from the product's.

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;
export const PADDED = 0x8;
export const PRIORITY = 0x20;

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

export function uint32(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

export const data = (streamId: number, payload: Uint8Array, flags = 0): Buffer => frame(0, flags, streamId, payload);
export const headers = (streamId: number, block: Uint8Array, flags = END_HEADERS | END_STREAM): Buffer =>
  frame(1, flags, streamId, block);
export const rst = (streamId: number, code = 8): Buffer => frame(3, 0, streamId, uint32(code));
export const settings = (entries: readonly (readonly [number, number])[] = []): Buffer =>
  frame(4, 0, 0, settingsPayload(entries));
export const settingsAck = (): Buffer => frame(4, ACK, 0);
export const ping = (payload = "12345678", flags = 0): Buffer => frame(6, flags, 0, Buffer.from(payload));
export const goaway = (code = 0): Buffer => frame(7, 0, 0, Buffer.concat([uint32(0), uint32(code)]));
export const windowUpdate = (streamId: number, increment: number): Buffer => frame(8, 0, streamId, uint32(increment));
export const continuation = (streamId: number, block: Uint8Array, flags = END_HEADERS): Buffer =>
  frame(9, flags, streamId, block);
export const priority = (streamId: number, dependency: number, weight = 15): Buffer =>
  frame(2, 0, streamId, Buffer.concat([uint32(dependency), Buffer.from([weight])]));

function settingsPayload(entries: readonly (readonly [number, number])[]): Buffer {
  const octets = Buffer.alloc(entries.length * 6);
  for (const [index, [id, value]] of entries.entries()) {
    octets.writeUInt16BE(id, index * 6);
    octets.writeUInt32BE(value, index * 6 + 2);
  }
  return octets;
}

/** Literals without indexing and without Huffman; enough for a test's requests. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  const text = (value: string): Buffer => {
    const octets = Buffer.from(value, "latin1");
    return Buffer.concat([integer(octets.length, 7, 0), octets]);
  };
  return Buffer.concat(fields.map(([name, value]) => Buffer.concat([Buffer.from([0]), text(name), text(value)])));
}

export function integer(value: number, prefixBits: number, first: number): Buffer {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Buffer.from([first | value]);
  const out = [first | mask];
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  out.push(rest);
  return Buffer.from(out);
}

export const request = (extra: readonly (readonly [string, string])[] = [], method = "POST"): Buffer =>
  block([[":method", method], [":scheme", "http"], [":path", "/test"], [":authority", "localhost"], ...extra]);

/** Cuts whole frames; returns what is left. */
export function readFrames(octets: Buffer): { readonly frames: Frame[]; readonly rest: Buffer } {
  const frames: Frame[] = [];
  let at = 0;
  while (octets.length - at >= 9) {
    const length = octets.readUIntBE(at, 3);
    if (octets.length - at - 9 < length) break;
    frames.push({
      type: octets[at + 3] ?? 0,
      flags: octets[at + 4] ?? 0,
      streamId: octets.readUInt32BE(at + 5) & 0x7fffffff,
      payload: octets.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return { frames, rest: octets.subarray(at) };
}

const NAMES = [
  "DATA",
  "HEADERS",
  "PRIORITY",
  "RST_STREAM",
  "SETTINGS",
  "PUSH_PROMISE",
  "PING",
  "GOAWAY",
  "WINDOW_UPDATE",
  "CONTINUATION",
];

/** One line per frame, for assertions: `RST_STREAM(1) 8`, `GOAWAY 1 "text"`, `DATA(3) 5 END_STREAM`. */
export function describeFrame({ type, flags, streamId, payload }: Frame): string {
  const name = NAMES[type] ?? `type ${type}`;
  const ended = (flags & END_STREAM) !== 0 ? " END_STREAM" : "";
  if (name === "RST_STREAM") return `RST_STREAM(${streamId}) ${payload.readUInt32BE()}`;
  if (name === "GOAWAY")
    return `GOAWAY ${payload.readUInt32BE(4)} last=${payload.readUInt32BE(0)} ${payload.toString("latin1", 8)}`.trimEnd();
  if (name === "WINDOW_UPDATE") return `WINDOW_UPDATE(${streamId}) ${payload.readUInt32BE()}`;
  if (name === "SETTINGS") return (flags & ACK) !== 0 ? "SETTINGS ACK" : "SETTINGS";
  if (name === "PING") return `PING${(flags & ACK) !== 0 ? " ACK" : ""} ${payload.toString("latin1")}`;
  if (name === "DATA") return `DATA(${streamId}) ${payload.length}${ended}`;
  return `${name}(${streamId})${ended}`;
}
