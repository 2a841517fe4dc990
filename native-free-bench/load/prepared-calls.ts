// Requests as bytes that can be sent again: the framing of prepared calls.

import type { MessageType } from "../../src/proto/wire.ts";
import { WriteRequest } from "../../src/proto/bytestream.ts";
import { ByteStream } from "../../src/proto/bytestream.ts";
import { frameMessage } from "../client/message-framing.ts";
import type { PreparedCall } from "./raw-connection.ts";

/** Data per message of an upload: what Bazel and BuildBox send is between 16 KiB and 1 MiB. */
export const WRITE_CHUNK_BYTES = 1024 * 1024;

export function prepare<Input>(
  method: { readonly path: string; readonly input: MessageType<unknown, Input> },
  request: Input,
): PreparedCall {
  return { path: method.path, body: [frameMessage(method.input.encode(request))] };
}

/** A whole upload; `data` is sent without a copy when it is large. */
export function prepareWrite(resourceName: string, data: Uint8Array): PreparedCall {
  const body: Uint8Array[] = [];
  for (let start = 0; start === 0 || start < data.length; start += WRITE_CHUNK_BYTES) {
    const end = Math.min(data.length, start + WRITE_CHUNK_BYTES);
    body.push(
      writeMessage({
        resourceName: start === 0 ? resourceName : "",
        writeOffset: start,
        finishWrite: end === data.length,
        data: data.subarray(start, end),
      }),
    );
  }
  return { path: ByteStream.methods.Write.path, body };
}

export function writeMessage(request: {
  readonly resourceName: string;
  readonly writeOffset: number;
  readonly finishWrite: boolean;
  readonly data: Uint8Array;
}): Buffer {
  return frameMessage(WriteRequest.encode(request));
}
