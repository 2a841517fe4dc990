// What every call has: metadata, deadline, cancellation, and exactly one end.
//
// Invariants: a call is answered at most once; after `over` is set nothing is sent but that answer; the stream's slot is
// released when the handler has settled, not when the wire says so (F-27). Reading bodies is left to the subclasses.

import { Code, StatusError } from "../base/status.ts";
import type { RequestStream } from "../http2/request-stream.ts";
import { decodeBinaryValue } from "./binary-metadata.ts";
import type { DeadlineEntry, DeadlineWheel } from "./deadline-wheel.ts";
import { PREFIX_BYTES, putMessagePrefix } from "./message-prefix.ts";
import type { MethodEntry } from "./method-table.ts";
import type { Call, ClientCertificate } from "./service.ts";
import { PartialMessage, type UploadMemory } from "./upload-memory.ts";
import {
  maxTrailerBytes,
  OK_TRAILERS,
  RESPONSE_HEAD,
  statusTrailers,
  trailersOnly,
  type Status,
} from "./status-trailers.ts";

/** What the calls of one transport share. */
export interface CallHost {
  readonly deadlines: DeadlineWheel;
  readonly uploadMemory: UploadMemory;
  /** The handler has settled and the call has been answered, or there is nobody to answer. */
  callEnded(entry: MethodEntry): void;
  /** A handler goes on although nobody has waited for it for a while (G-44). */
  onLingering(entry: MethodEntry): void;
  /** Makes the status for something a handler threw; logs what is no StatusError. */
  statusOf(error: unknown, path: string): StatusError;
}

const OK_STATUS: Status = { code: Code.OK, message: "", details: [] };
const OK_TRAILERS_ONLY = trailersOnly(OK_STATUS);

/** How long a handler may take to notice that its call is over before the log says so (G-44). */
const LINGERING_MS = 30_000;

/** Reused: `respond` copies it. */
const PREFIX = new Uint8Array(PREFIX_BYTES);

export abstract class ServerCall implements Call {
  readonly entry: MethodEntry;
  readonly deadlineMs: number | undefined;
  protected readonly stream: RequestStream;
  protected readonly host: CallHost;
  /** Why the call ended before its handler did. */
  protected over: StatusError | undefined;
  protected headSent = false;
  #answered = false;
  #abort: AbortController | undefined;
  #deadline: DeadlineEntry | undefined;
  #partial: PartialMessage | undefined;
  #lingering: DeadlineEntry | undefined;
  #settled = false;
  readonly #timeoutMs: number | undefined;

  constructor(stream: RequestStream, entry: MethodEntry, host: CallHost, timeoutMs: number | undefined) {
    this.stream = stream;
    this.entry = entry;
    this.host = host;
    this.#timeoutMs = timeoutMs;
    this.deadlineMs = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
  }

  get path(): string {
    return this.entry.method.path;
  }

  get peer(): string {
    return this.stream.connection.peer;
  }

  get connectionId(): number {
    return this.stream.connection.id;
  }

  get clientCertificate(): ClientCertificate | undefined {
    return this.stream.connection.clientCertificate;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.over !== undefined) this.#abort.abort(this.over);
    }
    return this.#abort.signal;
  }

  metadata(name: string): string | undefined {
    return this.stream.headers.get(name);
  }

  binaryMetadata(name: string): Uint8Array | undefined {
    const text = this.stream.headers.get(name);
    return text === undefined ? undefined : decodeBinaryValue(text);
  }

  onAbort(): void {
    if (this.#answered) this.cancelWork(new StatusError(Code.CANCELLED, `The client cancelled ${this.path}`));
    else this.answerNothing(new StatusError(Code.CANCELLED, `The client cancelled ${this.path}`));
  }

  /** Starts the deadline's clock; calls that end synchronously never need it. Idempotent. */
  protected armDeadline(): void {
    if (this.#timeoutMs === undefined || this.#answered || this.#deadline !== undefined) return;
    this.#deadline = this.host.deadlines.add(this.#timeoutMs, () => {
      this.fail(
        new StatusError(Code.DEADLINE_EXCEEDED, `The deadline of ${this.path} passed after ${this.#timeoutMs} ms`),
      );
    });
  }

  /** Ends the call with status OK after the messages sent before, if any. */
  protected succeed(): void {
    if (this.#answered) return;
    this.#end(Code.OK);
    if (this.headSent) this.stream.sendTrailers(OK_TRAILERS);
    else this.stream.respond(OK_TRAILERS_ONLY);
  }

  /** Ends a unary call with its response. */
  protected succeedWith(message: Uint8Array): void {
    if (this.#answered) return;
    this.#end(Code.OK);
    putMessagePrefix(PREFIX, message.length);
    this.stream.respond(RESPONSE_HEAD, { lead: PREFIX, body: message, trailers: OK_TRAILERS });
  }

  /** Ends the call with an error, now; whoever still works for it is told by `signal`, `read` and `write`. */
  protected fail(status: StatusError): void {
    if (this.#answered) return;
    this.#end(status.code);
    this.cancelWork(status);
    const maxBytes = maxTrailerBytes(this.stream.maxHeaderListBytes);
    if (this.headSent) this.stream.sendTrailers(statusTrailers(status, { maxBytes }));
    else this.stream.respond(trailersOnly(status, { maxBytes, extra: this.errorFields(status) }));
  }

  /** Ends a call without a message before, whose handler has nothing more to do, with what that returned. */
  protected failWith(failure: Status): void {
    if (this.#answered) return;
    this.#end(failure.code);
    this.stream.respond(trailersOnly(failure, { maxBytes: maxTrailerBytes(this.stream.maxHeaderListBytes) }));
  }

  /** Ends a call whose client has gone. */
  protected answerNothing(status: StatusError): void {
    this.#end(status.code);
    this.cancelWork(status);
  }

  /** The body has grown by `receivedBytes`; throws when there is no room for the `missingBytes` of its message. */
  protected onProgress(receivedBytes: number, missingBytes: number): void {
    if (this.#partial === undefined) {
      if (missingBytes === 0) return;
      const { uploadMemory: memory, deadlines } = this.host;
      this.#partial = new PartialMessage({
        path: this.path,
        memory,
        deadlines,
        onStalled: (status) => this.fail(status),
      });
    }
    this.#partial.update(receivedBytes, missingBytes);
  }

  /** The handler has not read what is there, so the rest may not come (see PartialMessage.excuse). */
  protected excuseSlowness(): void {
    this.#partial?.excuse();
  }

  /** Tells the handler that nobody waits for it any more. */
  protected cancelWork(status: StatusError): void {
    if (this.over !== undefined) return;
    this.over = status;
    if (!this.#settled) {
      this.#lingering = this.host.deadlines.add(LINGERING_MS, () => this.host.onLingering(this.entry));
    }
    this.#abort?.abort(status);
  }

  /** The handler has settled. */
  protected settled(): void {
    this.#settled = true;
    if (this.#lingering !== undefined) this.host.deadlines.remove(this.#lingering);
    this.stream.release();
    this.host.callEnded(this.entry);
  }

  protected errorFields(_status: StatusError): readonly (readonly [string, string])[] {
    return [];
  }

  #end(code: Code): void {
    this.#answered = true;
    this.#partial?.end();
    this.entry.count(code);
    if (this.#deadline === undefined) return;
    this.host.deadlines.remove(this.#deadline);
    this.#deadline = undefined;
  }
}
