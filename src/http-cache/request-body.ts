// The body of a PUT as plain bytes in buffers of our own, exactly as many as were declared.
//
// Invariant: what is yielded may be transferred to a thread: Node's chunks share memory with each other, so they are
// copied once, into slabs. At most one slab and one chunk are held. Backpressure is the pull: nobody reads ahead.

import type { IncomingMessage } from "node:http";
import type { Zstd } from "../base/zstd.ts";
import { invalidArgument } from "../base/status.ts";
import type { BodyEncoding } from "./request-headers.ts";

/** Large enough that the hop to the hashing thread vanishes; half of it doubles the hops. */
const SLAB_BYTES = 512 * 1024;

/** Throws INVALID_ARGUMENT when there are more or fewer bytes, or the zstd stream is corrupt. */
export function readBody(
  request: IncomingMessage,
  declared: { readonly sizeBytes: number; readonly encoding: BodyEncoding },
  zstd: Zstd,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { sizeBytes, encoding } = declared;
  return encoding === "zstd"
    ? slabsOf(decompressed(request, zstd, sizeBytes), sizeBytes)
    : readPlainBody(request, sizeBytes);
}

/** The same for a body that is not compressed. */
export function readPlainBody(request: IncomingMessage, sizeBytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  return slabsOf(chunksOf(request), sizeBytes);
}

async function* slabsOf(source: AsyncIterable<Uint8Array>, sizeBytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let slab = new Uint8Array(Math.min(SLAB_BYTES, sizeBytes));
  let used = 0;
  let receivedBytes = 0;
  for await (const piece of source) {
    receivedBytes += piece.length;
    if (receivedBytes > sizeBytes) throw invalidArgument(`the body is longer than the declared ${sizeBytes} bytes`);
    for (let rest = piece; rest.length > 0;) {
      const part = rest.subarray(0, slab.length - used);
      slab.set(part, used);
      used += part.length;
      rest = rest.subarray(part.length);
      if (used < slab.length) continue;
      yield slab;
      slab = new Uint8Array(Math.min(SLAB_BYTES, sizeBytes - receivedBytes + rest.length));
      used = 0;
    }
  }
  if (receivedBytes !== sizeBytes) {
    throw invalidArgument(`the body has ${receivedBytes} bytes, declared were ${sizeBytes}`);
  }
}

/** The whole body, for what is small. The caller bounds the size first. */
export async function readWholeBody(
  request: IncomingMessage,
  declared: { readonly sizeBytes: number; readonly encoding: BodyEncoding },
  zstd: Zstd,
): Promise<Uint8Array> {
  const slabs: Uint8Array[] = [];
  for await (const slab of readBody(request, declared, zstd)) slabs.push(slab);
  return slabs.length === 1 ? slabs[0]! : Buffer.concat(slabs);
}

/** The chunks as they come. Leaving the loop early leaves the connection as it is, so that it can be answered. */
export function chunksOf(request: IncomingMessage): AsyncIterable<Uint8Array> {
  return request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}

async function* decompressed(request: IncomingMessage, zstd: Zstd, sizeBytes: number): AsyncGenerator<Uint8Array> {
  const decompressor = zstd.createDecompressor(sizeBytes);
  try {
    for await (const chunk of chunksOf(request)) yield* decompressor.push(chunk);
    yield* decompressor.finish();
  } finally {
    decompressor.close();
  }
}
