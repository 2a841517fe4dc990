// Message encodings that we take: identity, gzip, deflate (G-22 to G-24). Answers are never compressed: blobs are
// mostly incompressible or zstd already.
//
// Invariant: the output is bounded by the message limit, whatever the input claims.

import { promisify } from "node:util";
import { gunzip, gunzipSync, inflate, inflateSync, type ZlibOptions } from "node:zlib";
import { Code, StatusError } from "../base/status.ts";
import type { HeaderField } from "../http2/header-block.ts";
import { messageTooLarge } from "./message-reader.ts";

export const ACCEPT_ENCODING: HeaderField = ["grpc-accept-encoding", "identity,gzip,deflate"];

/** Inputs up to this many octets are inflated in place; larger ones on libuv's pool, as they would stall the loop. */
const IN_PLACE_BYTES = 16 * 1024;

interface Inflater {
  readonly inPlace: (bytes: Uint8Array, options: ZlibOptions) => Uint8Array;
  readonly onPool: (bytes: Uint8Array, options: ZlibOptions) => Promise<Uint8Array>;
}

const INFLATERS = new Map<string, Inflater>([
  ["gzip", { inPlace: gunzipSync, onPool: promisify<Uint8Array, ZlibOptions, Buffer>(gunzip) }],
  ["deflate", { inPlace: inflateSync, onPool: promisify<Uint8Array, ZlibOptions, Buffer>(inflate) }],
]);

export interface DecompressOptions {
  readonly encoding: string | undefined;
  readonly maxBytes: number;
  readonly path: string;
}

/** Returns the plain octets of one message whose compressed flag was set. */
export async function decompressMessage(bytes: Uint8Array, options: DecompressOptions): Promise<Uint8Array> {
  const { encoding, maxBytes, path } = options;
  if (encoding === undefined || encoding === "identity") {
    throw new StatusError(
      Code.INTERNAL,
      `Cannot read a message of ${path}: it is flagged as compressed, but grpc-encoding names no compression`,
    );
  }
  const inflater = INFLATERS.get(encoding);
  if (inflater === undefined) throw unknownEncoding(encoding, path);
  const limits: ZlibOptions = { maxOutputLength: Math.max(maxBytes, 1) };
  try {
    return bytes.length <= IN_PLACE_BYTES ? inflater.inPlace(bytes, limits) : await inflater.onPool(bytes, limits);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE") {
      throw messageTooLarge(`more than ${maxBytes} bytes after decompression`, maxBytes, path);
    }
    throw new StatusError(Code.INTERNAL, `Cannot read a message of ${path}: its ${encoding} data is corrupt`, {
      cause: error,
    });
  }
}

function unknownEncoding(encoding: string, path: string): StatusError {
  return new StatusError(
    Code.UNIMPLEMENTED,
    `Cannot read a message of ${path}: grpc-encoding "${encoding}" is not supported, expected one of ${ACCEPT_ENCODING[1]}`,
  );
}
