// A serialized message as its fields, so that some can be changed and the others, unknown ones included, stay as they are.
//
// Invariant: the concatenation of all `bytes` is the message. Source: protobuf.dev, "Encoding".

import { Reader } from "../proto/wire.ts";

export interface RawField {
  readonly tag: number;
  /** Tag, length and payload: a view. */
  readonly bytes: Uint8Array;
  /** What a length-delimited field holds: a view; empty for others. */
  readonly payload: Uint8Array;
}

const NO_PAYLOAD = new Uint8Array(0);

/** Throws ProtoError when `message` is not a message; `typeName` is for its text. */
export function* rawFields(message: Uint8Array, typeName: string): Generator<RawField> {
  const reader = new Reader(message, typeName);
  while (reader.pos < reader.end) {
    const start = reader.pos;
    const tag = reader.tag();
    let payload: Uint8Array = NO_PAYLOAD;
    if ((tag & 7) === 2) payload = reader.bytes();
    else reader.skip(tag);
    yield { tag, bytes: message.subarray(start, reader.pos), payload };
  }
}
