// ByteStream.Read: a blob or a part of it, plain or as one fresh zstd stream.
//
// Invariant: no more than two chunks are in memory: one on its way to the client, one being read. Errors of the request
// come before the first byte. Offsets count uncompressed bytes; a compressed read has no limit.

import type { BlobReader, BlobStore } from "../cas/blob-store.ts";
import type { StreamCall, StreamHandler } from "../grpc/service.ts";
import { compressZstd, createZstdCompressor } from "../base/zstd.ts";
import { Code, StatusError, invalidArgument, notFound } from "../base/status.ts";
import { formatDigest, type Digest } from "../digest/digest.ts";
import { parseReadName } from "../digest/resource-name.ts";
import { ReadRequest } from "../proto/bytestream.ts";
import { fieldHeader } from "../proto/wire.ts";
import { decodeOnlyRequest } from "./decode.ts";
import { assertResourceNameHeader } from "./resource-name-header.ts";

const TAG_DATA = 0x52;
/** Blobs up to here are fetched whole: one message, and no reader to open and close. */
const WHOLE_BYTES = 64 * 1024;

export function createRead(blobs: BlobStore): StreamHandler {
  return async (call) => {
    const request = await decodeOnlyRequest(ReadRequest, call);
    const { digest, encoding } = parseReadName(request.resourceName);
    assertResourceNameHeader(call, request.resourceName);
    const offsetBytes = request.readOffset;
    const limitBytes = request.readLimit;
    assertRange(digest, offsetBytes, limitBytes);
    if (encoding === "zstd" && limitBytes !== 0) {
      throw invalidArgument(`read_limit ${limitBytes} with a compressed resource: it must be 0 there`);
    }
    if (digest.sizeBytes <= WHOLE_BYTES) {
      const part = await readWhole(blobs, digest, { offsetBytes, limitBytes });
      if (encoding === "zstd") await sendData(call, await compressZstd(part));
      else if (part.length > 0) await sendData(call, part);
      return;
    }
    const reader = await blobs.openRead(digest, { offsetBytes, limitBytes });
    try {
      if (encoding === "zstd") await sendCompressed(call, reader);
      else await sendPlain(call, reader);
    } finally {
      await reader.close();
    }
  };
}

function assertRange(digest: Digest, offsetBytes: number, limitBytes: number): void {
  if (offsetBytes < 0) throw new StatusError(Code.OUT_OF_RANGE, `read_offset ${offsetBytes} is negative`);
  if (limitBytes < 0) throw invalidArgument(`read_limit ${limitBytes} is negative; 0 means no limit`);
  if (offsetBytes > digest.sizeBytes) {
    throw new StatusError(
      Code.OUT_OF_RANGE,
      `read_offset ${offsetBytes} is beyond the end of blob "${formatDigest(digest)}"`,
    );
  }
}

async function readWhole(
  blobs: BlobStore,
  digest: Digest,
  range: { readonly offsetBytes: number; readonly limitBytes: number },
): Promise<Uint8Array> {
  const data = await blobs.get(digest);
  if (data === undefined) throw notFound(`blob "${formatDigest(digest)}" is not in the CAS`);
  const end = range.limitBytes === 0 ? data.length : range.offsetBytes + range.limitBytes;
  return data.subarray(range.offsetBytes, end);
}

async function sendPlain(call: StreamCall, reader: BlobReader): Promise<void> {
  let reading = readAhead(reader);
  for (let chunk = await reading; chunk !== undefined; chunk = await reading) {
    reading = readAhead(reader);
    await sendData(call, chunk);
  }
}

/** The next chunk; when the call ends while it is being read, nobody looks at its error. */
function readAhead(reader: BlobReader): Promise<Uint8Array | undefined> {
  const reading = reader.next();
  reading.catch(() => undefined);
  return reading;
}

async function sendCompressed(call: StreamCall, reader: BlobReader): Promise<void> {
  const compressor = createZstdCompressor();
  try {
    for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) {
      for await (const output of compressor.push(chunk)) await sendData(call, output);
    }
    for await (const output of compressor.finish()) await sendData(call, output);
  } finally {
    compressor.close();
  }
}

/** A ReadResponse around `data`, without copying it. */
function sendData(call: StreamCall, data: Uint8Array): Promise<void> {
  return call.write([fieldHeader(TAG_DATA, data.length), data]);
}
