// What a check holds in its hands: the target's calls in the words of the protocol, and blobs nobody has seen before.
//
// Invariant: every blob a probe makes is unique in the run, so checks neither help nor hurt each other and may run
// against a server in use. A probe decides nothing: `store` and `missingOf` fail the check when the preparation itself
// fails, everything else returns the answer. Actions are actions.ts.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { ByteStream, ReadResponse, WriteRequest, WriteResponse } from "../../src/proto/bytestream.ts";
import {
  ActionCache,
  ContentAddressableStorage as Cas,
  Directory,
  DigestFunction_Value,
} from "../../src/proto/remote_execution.ts";
import type {
  ActionResult,
  ActionResultInit,
  BatchReadBlobsResponse,
  BatchUpdateBlobsRequest_RequestInit,
  BatchUpdateBlobsResponse,
  DigestInit,
  DirectoryInit,
  FindMissingBlobsResponse,
  GetTreeRequestInit,
  GetTreeResponse,
  ServerCapabilities,
} from "../../src/proto/remote_execution.ts";
import type { MessageType } from "../../src/proto/wire.ts";
import {
  Http2Channel,
  type CallOptions,
  type Method,
  type Outcome,
  type Reply,
  type StreamReply,
} from "../client/http2-channel.ts";
import { httpRequest, type HttpAnswer, type HttpRequest, type HttpTarget } from "../client/http1-client.ts";
import { digestOf, findDigestFunction, type BlobDigest, type DigestFunctionSpec } from "../digest-functions.ts";
import type { RandomData } from "../random-data.ts";
import { CheckFailed, NotApplicable, expectOk, expectThat } from "./check.ts";
import type { Feature } from "./features.ts";

export interface Blob {
  readonly data: Uint8Array;
  readonly digest: BlobDigest;
}

export interface WritePart {
  readonly offset: number;
  readonly data?: Uint8Array;
  readonly finish?: boolean;
  /** In place of the call's name; "" leaves it out. */
  readonly name?: string;
}

export interface ReadOutcome extends Outcome {
  readonly data: Buffer;
  readonly messageSizes: readonly number[];
}

export interface ProbeOptions {
  readonly channel: Http2Channel;
  readonly openChannel: () => Http2Channel;
  readonly http: HttpTarget | undefined;
  readonly capabilities: ServerCapabilities;
  readonly features: ReadonlySet<Feature>;
  readonly instanceName: string;
  readonly fn: DigestFunctionSpec;
  readonly random: RandomData;
  readonly platform: ReadonlyMap<string, string>;
  /** Aborted when the check's time is over. */
  readonly signal: AbortSignal;
  readonly onSend: (sizeBytes: number) => void;
}

/** Uploads above this go through ByteStream; every server takes a batch of this size. */
const BATCH_BYTES = 1024 * 1024;

export class Probe {
  readonly options: ProbeOptions;
  readonly capabilities: ServerCapabilities;
  readonly instanceName: string;
  readonly fn: DigestFunctionSpec;
  readonly random: RandomData;
  readonly signal: AbortSignal;

  constructor(options: ProbeOptions) {
    this.options = options;
    this.capabilities = options.capabilities;
    this.instanceName = options.instanceName;
    this.fn = options.fn;
    this.random = options.random;
    this.signal = options.signal;
  }

  /** The same target with digests of another function; NotApplicable when it is not advertised or not known here. */
  withFunction(value: number): Probe {
    const fn = findDigestFunction(value);
    const advertised = this.capabilities.cacheCapabilities?.digestFunctions ?? [];
    if (fn === undefined || !advertised.includes(value))
      throw new NotApplicable("the digest function is not advertised");
    return new Probe({ ...this.options, fn });
  }

  withInstance(instanceName: string): Probe {
    return new Probe({ ...this.options, instanceName });
  }

  /** A further connection, closed with the check. */
  newConnection(): Probe {
    return new Probe({ ...this.options, channel: this.options.openChannel() });
  }

  has(feature: Feature): boolean {
    return this.options.features.has(feature);
  }

  // --- blobs ---------------------------------------------------------------------------------------------------------

  /** A new blob; half of it compressible. */
  blob(sizeBytes: number): Blob {
    return this.blobOf(this.random.compressibleBytes(sizeBytes, 0.5));
  }

  blobOf(data: Uint8Array): Blob {
    return { data, digest: digestOf(this.fn, data) };
  }

  blobs(count: number, sizeBytes: number): Blob[] {
    return Array.from({ length: count }, () => this.blob(sizeBytes));
  }

  /** The digest of a blob that was never stored. */
  absentDigest(sizeBytes = 100): BlobDigest {
    return this.blob(sizeBytes).digest;
  }

  get emptyDigest(): BlobDigest {
    return digestOf(this.fn, new Uint8Array(0));
  }

  /** The largest batch of data that the target takes, at most what fits a default message. */
  get batchBytes(): number {
    const limit = this.capabilities.cacheCapabilities?.maxBatchTotalSizeBytes ?? 0;
    return limit > 0 ? Math.min(limit, BATCH_BYTES) : BATCH_BYTES;
  }

  /** Stores blobs; the check fails when that does not work. */
  async store(...blobs: readonly Blob[]): Promise<void> {
    let batch: Blob[] = [];
    let batchedBytes = 0;
    const flush = async (): Promise<void> => {
      if (batch.length === 0) return;
      const reply = await this.batchUpdate(batch.map(({ data, digest }) => ({ data, digest })));
      expectOk(reply, "Preparing: BatchUpdateBlobs");
      for (const { status } of reply.response?.responses ?? []) {
        expectOk(
          { code: status?.code ?? 0, message: status?.message ?? "" },
          "Preparing: BatchUpdateBlobs of a correct blob",
        );
      }
      batch = [];
      batchedBytes = 0;
    };
    for (const blob of blobs) {
      if (blob.data.length > this.batchBytes / 2) {
        expectOk(
          await this.write(this.writeName(blob.digest), inParts(blob.data)),
          "Preparing: ByteStream.Write of a correct blob",
        );
        continue;
      }
      if (batchedBytes + blob.data.length > this.batchBytes || batch.length >= 500) await flush();
      batch.push(blob);
      batchedBytes += blob.data.length;
    }
    await flush();
  }

  async storeNew(sizeBytes: number): Promise<Blob> {
    const blob = this.blob(sizeBytes);
    await this.store(blob);
    return blob;
  }

  async storeMessage<Init>(type: MessageType<unknown, Init>, message: Init): Promise<BlobDigest> {
    const blob = this.blobOf(type.encode(message));
    if (blob.data.length > 0) await this.store(blob);
    return blob.digest;
  }

  async storeDirectory(directory: DirectoryInit): Promise<BlobDigest> {
    return await this.storeMessage(Directory, directory);
  }

  // --- content-addressable storage -----------------------------------------------------------------------------------

  async call<Input, Output>(
    method: Method<Input, Output>,
    request: Input,
    options: CallOptions = {},
  ): Promise<Reply<Output>> {
    return await this.options.channel.unary(method, request, { signal: this.signal, ...options });
  }

  async findMissing(
    blobDigests: readonly DigestInit[],
    options: CallOptions = {},
  ): Promise<Reply<FindMissingBlobsResponse>> {
    return await this.call(Cas.methods.FindMissingBlobs, { ...this.#scope(), blobDigests }, options);
  }

  /** The hashes that the target reports missing. */
  async missingOf(digests: readonly DigestInit[]): Promise<Set<string>> {
    const reply = await this.findMissing(digests);
    expectOk(reply, "FindMissingBlobs");
    return new Set((reply.response?.missingBlobDigests ?? []).map(({ hash }) => hash));
  }

  async expectStored(digest: BlobDigest, what: string): Promise<void> {
    if ((await this.missingOf([digest])).size > 0)
      throw new CheckFailed(`${what}: FindMissingBlobs reports the blob missing`);
  }

  async expectAbsent(digest: BlobDigest, what: string): Promise<void> {
    if ((await this.missingOf([digest])).size === 0)
      throw new CheckFailed(`${what}: FindMissingBlobs reports the blob present`);
  }

  async batchUpdate(
    requests: readonly BatchUpdateBlobsRequest_RequestInit[],
  ): Promise<Reply<BatchUpdateBlobsResponse>> {
    return await this.call(Cas.methods.BatchUpdateBlobs, { ...this.#scope(), requests });
  }

  async batchRead(
    digests: readonly DigestInit[],
    acceptableCompressors: readonly number[] = [],
  ): Promise<Reply<BatchReadBlobsResponse>> {
    return await this.call(Cas.methods.BatchReadBlobs, { ...this.#scope(), digests, acceptableCompressors });
  }

  async getTree(request: GetTreeRequestInit): Promise<StreamReply<GetTreeResponse>> {
    const method = Cas.methods.GetTree;
    return await this.options.channel.serverStream(method, { ...this.#scope(), ...request }, { signal: this.signal });
  }

  // --- ByteStream ----------------------------------------------------------------------------------------------------

  get instancePrefix(): string {
    return this.instanceName === "" ? "" : `${this.instanceName}/`;
  }

  readName(digest: BlobDigest, compressor = ""): string {
    return `${this.instancePrefix}${this.#blobPath(digest, compressor)}`;
  }

  writeName(digest: BlobDigest, options: { uuid?: string; compressor?: string } = {}): string {
    const uuid = options.uuid ?? this.random.uuid();
    return `${this.instancePrefix}uploads/${uuid}/${this.#blobPath(digest, options.compressor ?? "")}`;
  }

  async read(
    resourceName: string,
    options: { offset?: number; limit?: number; metadata?: Record<string, string> } = {},
  ): Promise<ReadOutcome> {
    const request = { resourceName, readOffset: options.offset, readLimit: options.limit };
    const callOptions = {
      signal: this.signal,
      ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
    };
    const reply = await this.options.channel.serverStream(ByteStream.methods.Read, request, callOptions);
    const parts = reply.messages.map((message: ReadResponse) => message.data);
    return { ...reply, data: Buffer.concat(parts), messageSizes: parts.map((part) => part.length) };
  }

  /** Sends `parts` one after the other, stopping when the server answers, and half-closes. */
  async write(
    resourceName: string,
    parts: readonly WritePart[],
    options: CallOptions = {},
  ): Promise<Reply<WriteResponse>> {
    const call = await this.options.channel.start(ByteStream.methods.Write.path, { signal: this.signal, ...options });
    for (const [index, part] of parts.entries()) {
      if (call.isOver) break;
      const name = part.name ?? (index === 0 ? resourceName : "");
      await call.send(
        WriteRequest.encode({
          resourceName: name,
          writeOffset: part.offset,
          data: part.data,
          finishWrite: part.finish,
        }),
      );
    }
    call.end();
    const message = await call.receive();
    const outcome = await call.outcome;
    return { ...outcome, response: message === undefined ? undefined : WriteResponse.decode(message) };
  }

  async writeStatus(resourceName: string): Promise<Reply<{ committedSize: number; complete: boolean }>> {
    return await this.call(ByteStream.methods.QueryWriteStatus, { resourceName });
  }

  // --- action cache --------------------------------------------------------------------------------------------------

  async getActionResult(
    actionDigest: DigestInit,
    hints: { inlineStdout?: boolean; inlineStderr?: boolean; inlineOutputFiles?: readonly string[] } = {},
  ): Promise<Reply<ActionResult>> {
    return await this.call(ActionCache.methods.GetActionResult, { ...this.#scope(), actionDigest, ...hints });
  }

  async updateActionResult(actionDigest: DigestInit, actionResult: ActionResultInit): Promise<Reply<ActionResult>> {
    return await this.call(ActionCache.methods.UpdateActionResult, { ...this.#scope(), actionDigest, actionResult });
  }

  // --- HTTP cache ----------------------------------------------------------------------------------------------------

  async http(request: Omit<HttpRequest, "timeoutMs">): Promise<HttpAnswer> {
    const target = this.options.http;
    if (target === undefined) throw new NotApplicable("no HTTP address");
    return await httpRequest(target, { timeoutMs: 10_000, onSend: this.options.onSend, ...request });
  }

  // --- small tools ---------------------------------------------------------------------------------------------------

  zstd(data: Uint8Array): Buffer {
    return zstdCompressSync(data);
  }

  /** Decompresses what the target sent; the check fails when that is not zstd. */
  unzstd(data: Uint8Array): Buffer {
    expectThat(data.length > 0, "the compressed stream is empty; even an empty blob needs a zstd frame");
    try {
      return zstdDecompressSync(data);
    } catch (error) {
      throw new CheckFailed(`the data is not a zstd stream: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async pause(ms: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, ms));
  }

  #scope(): { instanceName: string; digestFunction: number } {
    // SHA256 and its elders may be left out; half of the clients do, so the suite does as well and digest.* sends it.
    return {
      instanceName: this.instanceName,
      digestFunction: this.fn.segment === "" ? DigestFunction_Value.UNKNOWN : this.fn.value,
    };
  }

  #blobPath(digest: BlobDigest, compressor: string): string {
    const kind = compressor === "" ? "blobs" : `compressed-blobs/${compressor}`;
    const fn = this.fn.segment === "" ? "" : `${this.fn.segment}/`;
    return `${kind}/${fn}${digest.hash}/${digest.sizeBytes}`;
  }
}

/** The data as a client would send it: in parts of `partBytes`, the last one finishing. */
export function inParts(data: Uint8Array, partBytes = 256 * 1024, firstOffset = 0): WritePart[] {
  const parts: WritePart[] = [];
  for (let start = 0; start === 0 || start < data.length; start += partBytes) {
    const end = Math.min(start + partBytes, data.length);
    parts.push({ offset: firstOffset + start, data: data.subarray(start, end), finish: end === data.length });
  }
  return parts;
}
