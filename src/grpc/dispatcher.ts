// Accepts or refuses a request, in the order of the table in section 3.1, and starts its call.
//
// Invariant: a refused request never reaches a handler. Refusals say what was wrong and what was expected.

import { Code, StatusError, toStatusError, type StatusDetail } from "../base/status.ts";
import type { HeaderField } from "../http2/header-block.ts";
import { HeaderBlock } from "../http2/header-block.ts";
import { ignoringReceiver, type RequestReceiver, type RequestStream } from "../http2/request-stream.ts";
import type { Logger } from "../telemetry/log.ts";
import type { CallHost } from "./call.ts";
import { readCallHeaders } from "./call-headers.ts";
import { DeadlineWheel } from "./deadline-wheel.ts";
import { ACCEPT_ENCODING } from "./message-encoding.ts";
import type { MethodEntry, MethodTable } from "./method-table.ts";
import { maxTrailerBytes, trailersOnly } from "./status-trailers.ts";
import { StreamingCall } from "./stream-call.ts";
import { parseTimeoutMs } from "./timeout.ts";
import { UnaryCall } from "./unary-call.ts";
import { UploadMemory } from "./upload-memory.ts";

const NO_DETAILS: readonly StatusDetail[] = [];

/** Octets of a body without gRPC content that are read before the answer; then the client is told to stop. */
const MAX_IGNORED_BYTES = 1024 * 1024;

export class Dispatcher implements CallHost {
  readonly deadlines = new DeadlineWheel();
  readonly uploadMemory: UploadMemory;
  readonly #methods: MethodTable;
  readonly #logger: Logger;
  #activeCalls = 0;

  constructor(methods: MethodTable, logger: Logger, uploadMemory: UploadMemory = new UploadMemory()) {
    this.uploadMemory = uploadMemory;
    this.#methods = methods;
    this.#logger = logger;
  }

  /** Calls whose handler has not settled. */
  get activeCalls(): number {
    return this.#activeCalls;
  }

  /** Serves one request. */
  accept(stream: RequestStream): void {
    const { headers } = stream;
    const { contentType, timeout: timeoutText, hosts, authorizations, binaryValid } = readCallHeaders(headers);
    if (hosts > 1) {
      return refuse(stream, {
        code: Code.INTERNAL,
        message: "Bad request: more than one host header",
        httpStatus: 400,
      });
    }
    if (!isGrpcContentType(contentType)) return answerWithoutGrpc(stream);
    if (headers.method !== "POST") {
      const message = `Bad request: method ${headers.method}, expected POST`;
      return refuse(stream, { code: Code.INTERNAL, message, httpStatus: 405, extra: [["allow", "POST"]] });
    }
    const timeoutMs = timeoutText === undefined ? undefined : parseTimeoutMs(timeoutText);
    if (timeoutText !== undefined && timeoutMs === undefined) {
      const expected = "expected 1 to 8 digits and one of H, M, S, m, u, n";
      const message = `malformed grpc-timeout ${JSON.stringify(timeoutText.slice(0, 40))}: ${expected}`;
      return refuse(stream, { code: Code.INTERNAL, message });
    }
    if (!binaryValid) {
      return refuse(stream, { code: Code.INTERNAL, message: "A -bin header is not base64" });
    }
    if (authorizations > 1) {
      return refuse(stream, { code: Code.UNAUTHENTICATED, message: "More than one authorization header" });
    }
    const entry = this.#methods.find(headers.path);
    if (entry === undefined) {
      const message = this.#methods.explainAbsence(headers.path);
      return refuse(stream, { code: Code.UNIMPLEMENTED, message, extra: [ACCEPT_ENCODING] });
    }
    if (timeoutMs !== undefined && timeoutMs <= 0) {
      entry.count(Code.DEADLINE_EXCEEDED);
      const message = `The deadline of ${headers.path} had passed when the call arrived`;
      return refuse(stream, { code: Code.DEADLINE_EXCEEDED, message });
    }
    this.#start(stream, entry, timeoutMs);
  }

  callEnded(): void {
    this.#activeCalls--;
  }

  onLingering(entry: MethodEntry): void {
    this.#logger.warn("a handler goes on 30 s after its call ended; its stream's place stays taken", {
      path: entry.method.path,
    });
  }

  statusOf(error: unknown, path: string): StatusError {
    if (error instanceof StatusError) return error;
    if (error instanceof Error && error.name === "AbortError") return toStatusError(error);
    this.#logger.error("a handler failed", {
      path,
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    return new StatusError(Code.INTERNAL, `Internal error in ${path}: the server's log has the cause`, {
      cause: error,
    });
  }

  #start(stream: RequestStream, entry: MethodEntry, timeoutMs: number | undefined): void {
    this.#activeCalls++;
    const { method } = entry;
    if (method.kind === "unary") new UnaryCall(stream, entry, method.handler, this, timeoutMs).start();
    else new StreamingCall(stream, entry, method, this, timeoutMs).start();
  }
}

/** `application/grpc`, `+proto` or parameters behind it; not `application/grpc-web` (G-1). */
export function isGrpcContentType(value: string | undefined): boolean {
  if (value === undefined) return false;
  if (value === "application/grpc" || value === "application/grpc+proto") return true;
  return /^application\/grpc(\+proto)?\s*(;.*)?$/i.test(value);
}

interface Refusal {
  readonly code: Code;
  readonly message: string;
  readonly httpStatus?: number;
  readonly extra?: readonly HeaderField[];
}

function refuse(stream: RequestStream, refusal: Refusal): void {
  const { code, message, httpStatus = 200, extra = [] } = refusal;
  const maxBytes = maxTrailerBytes(stream.maxHeaderListBytes);
  stream.attach(ignoringReceiver);
  stream.respond(trailersOnly({ code, message, details: NO_DETAILS }, { maxBytes, httpStatus, extra }));
  stream.release();
}

const PLAIN_TEXT = new TextEncoder().encode("This port speaks gRPC over HTTP/2 and plain HTTP over HTTP/1.1.\n");
const NOT_GRPC = new HeaderBlock([
  [":status", "415"],
  ["content-type", "text/plain; charset=utf-8"],
  ["content-length", String(PLAIN_TEXT.length)],
  // For gRPC clients behind something that changed the content type (G-36).
  ["grpc-status", String(Code.INVALID_ARGUMENT)],
  ["grpc-message", "Bad content-type, expected application/grpc"],
]);

/** Reads the body to its end first, so that a client that only reads after writing gets its answer. */
function answerWithoutGrpc(stream: RequestStream): void {
  let ignoredBytes = 0;
  let answered = false;
  const answer = (): void => {
    if (answered) return;
    answered = true;
    if (stream.headers.method === "HEAD") stream.respond(NOT_GRPC);
    else stream.respond(NOT_GRPC, { body: PLAIN_TEXT });
    stream.release();
  };
  const receiver: RequestReceiver = {
    onData(chunk) {
      stream.credit(chunk.length);
      ignoredBytes += chunk.length;
      if (ignoredBytes > MAX_IGNORED_BYTES) answer();
    },
    onEnd: answer,
    onAbort() {
      if (!answered) stream.release();
      answered = true;
    },
  };
  stream.attach(receiver);
}
