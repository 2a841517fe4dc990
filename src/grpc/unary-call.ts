// A unary call: exactly one request message, one handler call, one response.
//
// The handler's synchronous answer leaves without a promise. The body's octets are credited as they arrive: they lie in
// one message whose size was checked on its prefix.

import { Code, Failure, StatusError, toStatusError } from "../base/status.ts";
import type { RequestReceiver, RequestStream } from "../http2/request-stream.ts";
import { ServerCall, type CallHost } from "./call.ts";
import { ACCEPT_ENCODING, decompressMessage } from "./message-encoding.ts";
import { PREFIX_BYTES } from "./message-prefix.ts";
import { allocateSmall } from "./small-messages.ts";
import { MessageReader, type ReceivedMessage } from "./message-reader.ts";
import type { MethodEntry } from "./method-table.ts";
import type { UnaryAnswer, UnaryHandler } from "./service.ts";

export class UnaryCall extends ServerCall implements RequestReceiver {
  readonly #handler: UnaryHandler;
  #reader: MessageReader | undefined;
  #expected = false;
  #started = false;

  constructor(
    stream: RequestStream,
    entry: MethodEntry,
    handler: UnaryHandler,
    host: CallHost,
    timeoutMs: number | undefined,
  ) {
    super(stream, entry, host, timeoutMs);
    this.#handler = handler;
  }

  /** Waits for the request; to be called once. */
  start(): void {
    this.stream.attach(this);
    if (!this.#started) this.armDeadline();
  }

  /** The usual small request: headers, message and end came in one read. */
  onBody(octets: Uint8Array, start: number, end: number): void {
    const sizeBytes = end - start - PREFIX_BYTES;
    if (!isOnePlainMessage(octets, start, end) || sizeBytes > this.entry.maxRequestBytes) {
      if (end > start) this.onData(octets.subarray(start, end));
      this.onEnd();
      return;
    }
    this.stream.credit(end - start);
    this.#started = true;
    // A copy, since an asynchronous handler still has it when the next read overwrites `octets`.
    const message = allocateSmall(sizeBytes);
    message.set(octets.subarray(start + PREFIX_BYTES, end));
    this.#run(message);
  }

  onData(chunk: Uint8Array): void {
    this.stream.credit(chunk.length);
    if (this.over !== undefined || this.#started) return;
    this.#reader ??= new MessageReader(this.path, this.entry.maxRequestBytes);
    try {
      this.#reader.push(chunk);
      this.onProgress(chunk.length, this.#reader.missingBytes);
      if (this.#reader.readyCount > 1) throw wrongCardinality("more than one message", this.path);
    } catch (error) {
      this.fail(toStatusError(error));
      return;
    }
    if (this.#expected || this.#reader.missingBytes === 0) return;
    this.#expected = true;
    this.stream.expect(this.#reader.missingBytes);
  }

  onEnd(): void {
    if (this.over !== undefined || this.#started) return;
    const message = this.#reader?.take();
    if (message !== undefined && this.#reader?.atBoundary === true) {
      this.#started = true;
      this.#handle(message);
      return;
    }
    const midMessage = this.#reader !== undefined && !this.#reader.atBoundary;
    this.fail(midMessage ? endInsideMessage(this.path) : wrongCardinality("no message", this.path));
  }

  override onAbort(): void {
    super.onAbort();
    this.#settleUnstarted();
  }

  protected override fail(status: StatusError): void {
    super.fail(status);
    this.#settleUnstarted();
  }

  protected override errorFields(status: StatusError): readonly (readonly [string, string])[] {
    return status.code === Code.UNIMPLEMENTED ? [ACCEPT_ENCODING] : [];
  }

  #handle(message: ReceivedMessage): void {
    if (!message.compressed) {
      this.#run(message.bytes);
      return;
    }
    const encoding = this.metadata("grpc-encoding");
    const { path } = this;
    decompressMessage(message.bytes, { encoding, maxBytes: this.entry.maxRequestBytes, path }).then(
      (bytes) => this.#run(bytes),
      (error: unknown) => this.#finishWith(error),
    );
  }

  #run(request: Uint8Array): void {
    try {
      const answer = this.#handler(request, this);
      if (!(answer instanceof Promise)) {
        this.#finish(answer);
        return;
      }
      this.armDeadline();
      answer.then(
        (late) => this.#finish(late),
        (error: unknown) => this.#finishWith(error),
      );
    } catch (error) {
      this.#finishWith(error);
    }
  }

  #finish(answer: UnaryAnswer): void {
    if (answer instanceof Failure) this.failWith(answer);
    else this.succeedWith(answer);
    this.settled();
  }

  #finishWith(error: unknown): void {
    // What a handler throws because its call is over is the echo of that end, not news.
    if (this.over === undefined) super.fail(this.host.statusOf(error, this.path));
    this.settled();
  }

  /** A call that ends before its handler has started has no work to wait for. */
  #settleUnstarted(): void {
    if (this.#started) return;
    this.#started = true;
    this.settled();
  }
}

/** Whether octets `start` to `end` are one message that is not compressed, prefix included. */
export function isOnePlainMessage(octets: Uint8Array, start: number, end: number): boolean {
  const sizeBytes = end - start - PREFIX_BYTES;
  return sizeBytes >= 0 && octets[start] === 0 && readLength(octets, start + 1) === sizeBytes;
}

function readLength(octets: Uint8Array, at: number): number {
  return ((octets[at]! << 24) | (octets[at + 1]! << 16) | (octets[at + 2]! << 8) | octets[at + 3]!) >>> 0;
}

export function wrongCardinality(what: string, path: string): StatusError {
  return new StatusError(Code.UNIMPLEMENTED, `Cannot call ${path}: the request has ${what}, expected exactly one`);
}

export function endInsideMessage(path: string): StatusError {
  return new StatusError(Code.INTERNAL, `Cannot read a message of ${path}: the request ended inside it`);
}
