// ByteStream of the fake server, with its faults.

import { zstdCompressSync } from "node:zlib";
import { Code, StatusError, invalidArgument } from "../../../src/base/status.ts";
import { ByteStream } from "../../../src/proto/bytestream.ts";
import { DigestFunction_Value as Fn } from "../../../src/proto/remote_execution.ts";
import { inflate } from "./fake-cas.ts";
import type { FakeCall, Handler } from "./fake-grpc.ts";
import { BLOB_LIMIT_BYTES, type FakeStore, type Key } from "./fake-store.ts";

const READ_NAME = /^(?:(.*?)\/)?(?:blobs|compressed-blobs\/([^/]*))\/(?:(blake3)\/)?([^/]*)\/([0-9]+)$/;
const WRITE_NAME =
  /^(?:(.*?)\/)?uploads\/([^/]+)\/(?:blobs|compressed-blobs\/([^/]*))\/(?:(blake3)\/)?([^/]*)\/([0-9]+)(?:\/.*)?$/;

interface Name {
  readonly key: Key;
  readonly isCompressed: boolean;
}

export function byteStreamHandlers(store: FakeStore): Map<string, Handler> {
  const partial = new Map<string, Buffer>();
  const running = new Map<string, Buffer[]>();
  return new Map<string, Handler>([
    [ByteStream.methods.Read.path, async (call) => await read(store, call)],
    [ByteStream.methods.Write.path, async (call) => await write(store, call, partial, running)],
    [ByteStream.methods.QueryWriteStatus.path, async (call) => await queryWriteStatus(store, call, partial)],
  ]);
}

async function read(store: FakeStore, call: FakeCall): Promise<void> {
  const { has } = store;
  const { Read } = ByteStream.methods;
  const request = Read.input.decode(await call.request());
  const match = READ_NAME.exec(request.resourceName);
  if (match === null || /(^|\/)uploads\//.test(`${match[1] ?? ""}/`))
    throw invalidArgument(`"${request.resourceName}" is not a name of a blob`);
  const { key, isCompressed } = nameOf(store, { compressor: match[2], fn: match[3], hash: match[4], size: match[5] });
  let data = has("read.size-ignored") ? (store.findByHash(key.hash) ?? store.find(key)) : store.find(key);
  if (data === undefined && has("read.absent-is-empty")) data = Buffer.alloc(0);
  else data ??= store.get(key);
  const offset = request.readOffset;
  if (request.readLimit < 0) throw invalidArgument("read_limit is negative");
  if (offset < 0 || (offset > key.sizeBytes && !has("read.beyond-is-empty")))
    throw new StatusError(Code.OUT_OF_RANGE, "read_offset");
  let start = has("read.offset-ignored") ? 0 : offset;
  if (has("read.offset-plus-one") && offset > 65_536) start++;
  if (isCompressed && !has("zstd.plain")) {
    if (request.readLimit !== 0 && !has("zstd.limit-accepted"))
      throw invalidArgument("read_limit with a compressed name");
    data = has("zstd.offset-compressed")
      ? zstdCompressSync(data).subarray(offset)
      : zstdCompressSync(data.subarray(start));
  } else {
    const limit =
      request.readLimit === 0 || has("read.limit-ignored")
        ? data.length
        : has("read.limit-from-start")
          ? request.readLimit - start
          : request.readLimit;
    data = data.subarray(start, start + Math.max(0, limit));
  }
  const chunk = has("read.one-message") ? data.length : 256 * 1024;
  for (let from = 0; from < data.length && !call.cancelled; from += chunk) {
    if (has("read.last-chunk-lost") && from > 0 && from + chunk >= data.length) return;
    await call.write(Read.output.encode({ data: data.subarray(from, from + chunk) }));
  }
}

async function write(
  store: FakeStore,
  call: FakeCall,
  partial: Map<string, Buffer>,
  running: Map<string, Buffer[]>,
): Promise<void> {
  const { has } = store;
  const { Write } = ByteStream.methods;
  const first = Write.input.decode(await call.request());
  const resourceName = first.resourceName;
  const { key, isCompressed } = parseWrite(store, resourceName);
  if (key.sizeBytes > BLOB_LIMIT_BYTES) throw invalidArgument("the blob is too large");
  const isDuplicate = store.find(key) !== undefined;
  if (isDuplicate && has("write.duplicate-refused")) throw new StatusError(Code.ALREADY_EXISTS, "the blob is here");
  const early = { committedSize: isCompressed ? -1 : key.sizeBytes };
  if (isDuplicate && !has("write.duplicate-late")) return await call.write(Write.output.encode(early));
  if (has("write.locked") && running.has(key.hash)) throw new StatusError(Code.ABORTED, "another upload is running");
  const kept = partial.get(resourceName) ?? Buffer.alloc(0);
  if (first.writeOffset !== kept.length && !has("write.offset-ignored"))
    throw invalidArgument(`write_offset is ${first.writeOffset}, expected ${kept.length}`);
  const parts: Buffer[] = has("write.shared-buffer") ? (running.get(key.hash) ?? []) : [];
  running.set(key.hash, parts);
  parts.push(kept);
  let received = kept.length;
  let finished = false;
  try {
    for (let message: typeof first | undefined = first; message !== undefined;) {
      if (message.resourceName !== "" && message.resourceName !== resourceName && !has("write.name-unchecked"))
        throw invalidArgument("another name");
      if (message.writeOffset !== received && !has("write.offset-ignored"))
        throw invalidArgument(`write_offset is ${message.writeOffset}, expected ${received}`);
      parts.push(Buffer.from(message.data));
      received += message.data.length;
      if (!isCompressed && received > key.sizeBytes && !has("write.cut-at-size"))
        throw invalidArgument("more data than the size");
      if (has("write.visible-early") && received >= key.sizeBytes) store.put(key, Buffer.concat(parts));
      finished = message.finishWrite;
      if (finished) break;
      const bytes = await call.read();
      message = bytes === undefined ? undefined : Write.input.decode(bytes);
    }
  } finally {
    running.delete(key.hash);
  }
  let data = Buffer.concat(parts);
  if (!finished && has("write.prefix-published")) store.put(key, data);
  if (!finished) {
    partial.set(resourceName, data);
    return await call.write(Write.output.encode({ committedSize: data.length }));
  }
  partial.delete(resourceName);
  if (store.find(key) !== undefined) return await call.write(Write.output.encode(early));
  if (has("write.cut-at-size") && !isCompressed) data = data.subarray(0, key.sizeBytes);
  const plain = isCompressed ? inflate(store, data, key.sizeBytes) : data;
  if (!store.matches(key, plain) && !has("write.no-verify") && !has("write.cut-at-size"))
    throw invalidArgument("the data does not match the digest");
  store.put(key, plain);
  const committedSize = has("write.committed-size-zero")
    ? 0
    : isCompressed && has("zstd.committed-uncompressed")
      ? plain.length
      : received;
  await call.write(Write.output.encode({ committedSize }));
}

async function queryWriteStatus(store: FakeStore, call: FakeCall, partial: Map<string, Buffer>): Promise<void> {
  const { has } = store;
  const { QueryWriteStatus } = ByteStream.methods;
  const { resourceName } = QueryWriteStatus.input.decode(await call.request());
  const { key } = parseWrite(store, resourceName);
  const complete = store.find(key) !== undefined && !has("write-status.never-complete");
  const kept = partial.get(resourceName)?.length ?? 0;
  const committedSize = complete ? key.sizeBytes : kept + (kept > 0 && has("write-status.one-too-many") ? 1 : 0);
  await call.write(QueryWriteStatus.output.encode({ complete, committedSize }));
}

function parseWrite(store: FakeStore, name: string): Name {
  const match = WRITE_NAME.exec(name);
  if (match === null) throw invalidArgument(`"${name}" is not a name of an upload`);
  return nameOf(store, { compressor: match[3], fn: match[4], hash: match[5], size: match[6] });
}

function nameOf(
  store: FakeStore,
  parts: { compressor: string | undefined; fn: string | undefined; hash: string | undefined; size: string | undefined },
): Name {
  if (parts.compressor !== undefined && (parts.compressor !== "zstd" || store.has("capabilities.zstd-lie")))
    throw invalidArgument(`compressor "${parts.compressor}"`);
  const key = store.keyOf(
    { hash: parts.hash ?? "", sizeBytes: Number(parts.size) },
    parts.fn === undefined ? Fn.SHA256 : Fn.BLAKE3,
  );
  return { key, isCompressed: parts.compressor !== undefined };
}
