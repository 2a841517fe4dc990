// A call with a stream on at least one side: read and write by pull.
//
// Credit: octets of the message being assembled go back to the client at once (its size was checked on its prefix);
// octets that arrive behind an unread message go back when that is read. So a call holds one message that its handler
// works on plus at most one stream window, and a client never waits for credit that only a finished message would free.

import { Code, StatusError, toStatusError } from "../base/status.ts";
import { ErrorCode } from "../http2/error-code.ts";
import type { RequestReceiver, RequestStream } from "../http2/request-stream.ts";
import { ServerCall, type CallHost } from "./call.ts";
import { ACCEPT_ENCODING, decompressMessage } from "./message-encoding.ts";
import { messagePrefix, PREFIX_BYTES } from "./message-prefix.ts";
import { MessageReader, type ReceivedMessage } from "./message-reader.ts";
import type { MethodEntry } from "./method-table.ts";
import type { AnswerAtOnce, StreamCall, StreamMethod } from "./service.ts";
import { RESPONSE_HEAD } from "./status-trailers.ts";
import { endInsideMessage, isOnePlainMessage } from "./unary-call.ts";

/** One for all calls: making an error with its stack took a tenth of a small read. */
const HAS_ENDED = new StatusError(Code.CANCELLED, "The call has ended");

interface Waiter<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: StatusError) => void;
}

export class StreamingCall extends ServerCall implements StreamCall, RequestReceiver {
  readonly #method: StreamMethod;
  /** Only where the method can answer at once: otherwise nobody wants the body in one piece. */
  readonly onBody: ((octets: Uint8Array, start: number, end: number) => void) | undefined;
  readonly #reader: MessageReader;
  #ended = false;
  /** The handler has nothing to do. */
  #answersAtOnce = false;
  /** Octets that arrived behind an unread message. */
  #withheldBytes = 0;
  /** The message whose missing octets have been announced is the one being filled. */
  #announced = false;
  #waitingRead: Waiter<ReceivedMessage | undefined> | undefined;
  #waitingWrite: Waiter<void> | undefined;

  constructor(
    stream: RequestStream,
    entry: MethodEntry,
    method: StreamMethod,
    host: CallHost,
    timeoutMs: number | undefined,
  ) {
    super(stream, entry, host, timeoutMs);
    this.#method = method;
    const { answerAtOnce } = method;
    this.onBody =
      answerAtOnce === undefined
        ? undefined
        : (octets, start, end) => this.#onWhole(octets, { start, end, answerAtOnce });
    this.#reader = new MessageReader(this.path, entry.maxRequestBytes);
  }

  /** Runs the handler; to be called once. */
  start(): void {
    this.stream.attach(this);
    if (this.#answersAtOnce) return;
    this.armDeadline();
    this.#run().catch((error: unknown) => this.host.statusOf(error, this.path));
  }

  async read(): Promise<Uint8Array | undefined> {
    const message = await this.#nextMessage();
    if (message === undefined || !message.compressed) return message?.bytes;
    const encoding = this.metadata("grpc-encoding");
    return decompressMessage(message.bytes, { encoding, maxBytes: this.entry.maxRequestBytes, path: this.path });
  }

  write(message: Uint8Array | readonly Uint8Array[], written?: () => void): Promise<void> {
    if (this.over !== undefined) return Promise.reject(this.over);
    if (this.#waitingWrite !== undefined)
      return Promise.reject(new Error(`${this.path}: write() called before the last one settled`));
    if (!this.headSent) {
      this.headSent = true;
      this.stream.sendHead(RESPONSE_HEAD);
    }
    const slices = message instanceof Uint8Array ? [message] : message;
    let sizeBytes = 0;
    for (const slice of slices) sizeBytes += slice.length;
    return new Promise((resolve, reject) => {
      this.#waitingWrite = { resolve, reject };
      const taken = (): void => {
        this.#waitingWrite = undefined;
        resolve();
      };
      this.stream.sendBody([messagePrefix(sizeBytes), ...slices], taken, written);
    });
  }

  onData(chunk: Uint8Array): void {
    if (this.over !== undefined) {
      this.stream.credit(chunk.length);
      return;
    }
    try {
      this.#reader.push(chunk);
      this.onProgress(chunk.length, this.#reader.missingBytes);
      if (this.#reader.readyCount > 0) this.excuseSlowness();
    } catch (error) {
      this.fail(toStatusError(error));
      return;
    }
    if (this.#reader.readyCount > 0) this.#withheldBytes += chunk.length;
    else this.stream.credit(chunk.length);
    this.#announceMissing();
    this.#wakeReader();
  }

  onEnd(): void {
    this.#ended = true;
    this.#wakeReader();
  }

  protected override cancelWork(status: StatusError): void {
    if (this.over !== undefined) return;
    super.cancelWork(status);
    this.#waitingRead?.reject(status);
    this.#waitingRead = undefined;
    if (this.#waitingWrite === undefined) return;
    this.#waitingWrite.reject(status);
    this.#waitingWrite = undefined;
    // The client does not take what is queued before the trailers, so they would never leave.
    this.stream.reset(ErrorCode.CANCEL);
  }

  protected override errorFields(status: StatusError): readonly (readonly [string, string])[] {
    return status.code === Code.UNIMPLEMENTED ? [ACCEPT_ENCODING] : [];
  }

  #onWhole(
    octets: Uint8Array,
    { start, end, answerAtOnce }: { start: number; end: number; answerAtOnce: AnswerAtOnce },
  ): void {
    const sizeBytes = end - start - PREFIX_BYTES;
    if (!isOnePlainMessage(octets, start, end) || sizeBytes > this.entry.maxRequestBytes) {
      this.#takeWhole(octets, start, end);
      return;
    }
    let answer: Uint8Array | Promise<Uint8Array> | undefined;
    let failure: unknown;
    try {
      answer = answerAtOnce(octets.subarray(start + PREFIX_BYTES, end), this);
    } catch (error) {
      failure = error;
    }
    if (answer === undefined && failure === undefined) {
      this.#takeWhole(octets, start, end);
      return;
    }
    this.stream.credit(end - start);
    this.#answersAtOnce = true;
    if (answer === undefined) this.#endWith(failure);
    else if (answer instanceof Uint8Array) this.#endWithAnswer(answer);
    else {
      this.armDeadline();
      answer.then(
        (bytes) => this.#endWithAnswer(bytes),
        (error: unknown) => this.#endWith(error),
      );
    }
  }

  #endWithAnswer(answer: Uint8Array): void {
    this.succeedWith(answer);
    this.over ??= HAS_ENDED;
    this.settled();
  }

  #endWith(error: unknown): void {
    if (this.over === undefined) this.fail(this.host.statusOf(error, this.path));
    this.over ??= HAS_ENDED;
    this.settled();
  }

  #takeWhole(octets: Uint8Array, start: number, end: number): void {
    if (end > start) this.onData(octets.subarray(start, end));
    this.onEnd();
  }

  async #run(): Promise<void> {
    try {
      await this.#method.handler(this);
      this.succeed();
    } catch (error) {
      // What a handler throws because its call is over is the echo of that end, not news.
      if (this.over === undefined) this.fail(this.host.statusOf(error, this.path));
    } finally {
      // What arrives from now on is for nobody.
      this.over ??= HAS_ENDED;
      this.settled();
    }
  }

  #nextMessage(): Promise<ReceivedMessage | undefined> {
    if (this.over !== undefined) return Promise.reject(this.over);
    if (this.#waitingRead !== undefined)
      return Promise.reject(new Error(`${this.path}: read() called before the last one settled`));
    const { promise, resolve, reject } = Promise.withResolvers<ReceivedMessage | undefined>();
    this.#waitingRead = { resolve, reject };
    this.#wakeReader();
    return promise;
  }

  #wakeReader(): void {
    const waiter = this.#waitingRead;
    if (waiter === undefined) return;
    try {
      const message = this.#reader.take();
      if (message === undefined && !this.#ended) return;
      if (message === undefined && !this.#reader.atBoundary) throw endInsideMessage(this.path);
      this.#waitingRead = undefined;
      if (message !== undefined) this.#creditFor(message);
      waiter.resolve(message);
    } catch (error) {
      this.fail(toStatusError(error));
    }
  }

  #creditFor(message: ReceivedMessage): void {
    const last = this.#reader.readyCount === 0;
    const sizeBytes = last ? this.#withheldBytes : Math.min(this.#withheldBytes, message.bytes.length + 5);
    this.#announced = false;
    if (sizeBytes === 0) return;
    this.#withheldBytes -= sizeBytes;
    this.stream.credit(sizeBytes);
    this.#announceMissing();
  }

  #announceMissing(): void {
    const { missingBytes, readyCount } = this.#reader;
    if (missingBytes === 0) this.#announced = false;
    else if (!this.#announced && readyCount === 0) {
      this.#announced = true;
      this.stream.expect(missingBytes);
    }
  }
}
