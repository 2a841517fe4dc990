// What a gRPC service is to the transport: paths and handlers over bytes.
//
// A transport (one in the product, an oracle in the tests) serves these. test/grpc/transport-contract.ts runs against
// every transport through @grpc/grpc-js as the client. Nothing of Node's streams, emitters or headers appears here.
// A handler that throws a StatusError ends the call with that status; anything else is INTERNAL and logged once.

import type { Failure, StatusDetail } from "../base/status.ts";

/** What a handler may know of its call, unary or streaming. */
export interface Call {
  /** `/package.Service/Method`, exactly the string that was routed on. */
  readonly path: string;
  /** `127.0.0.1:5123`, `[::1]:5123` or `unix:`; for logs and provenance. */
  readonly peer: string;
  /** A small integer that is the same for all calls of one connection. */
  readonly connectionId: number;
  /** Value of an ASCII metadata key in lower case, or undefined; several values are joined with ",". */
  metadata(name: string): string | undefined;
  /** First value of a `-bin` key, decoded; undefined when absent or not base64. */
  binaryMetadata(name: string): Uint8Array | undefined;
  /** When the client stops waiting, in epoch milliseconds; undefined without grpc-timeout. */
  readonly deadlineMs: number | undefined;
  /** Aborted when the client cancels, its connection ends, or the deadline passes. Made on first use. */
  readonly signal: AbortSignal;
  /** The verified client certificate, with mutual TLS. */
  readonly clientCertificate: ClientCertificate | undefined;
}

export interface ClientCertificate {
  readonly subject: string;
  readonly subjectAltNames: readonly string[];
}

/** A call with a stream on at least one side. Pull on both: nothing is read or sent before it is asked for. */
export interface StreamCall extends Call {
  /**
   * The next request message, or undefined after the client's half-close. The bytes belong to the handler; the
   * ArrayBuffer of a message above 64 KiB is its alone, so that it can be transferred to a thread.
   * Throws CANCELLED or DEADLINE_EXCEEDED when the call is over.
   */
  read(): Promise<Uint8Array | undefined>;
  /**
   * Sends one response message, given whole or as slices that make it up in order. The bytes are the transport's from
   * now on. The promise is the credit: await it before making the next message. Throws as `read`. `written` is called when
   * the bytes have left and are the handler's again, to be used for another message; perhaps never.
   */
  write(message: Uint8Array | readonly Uint8Array[], written?: () => void): Promise<void>;
}

/**
 * Returns the response, or the failure that is the answer; the synchronous return is a real path, not a convenience.
 * `request` is valid during the call.
 */
export type UnaryHandler = (request: Uint8Array, call: Call) => UnaryAnswer | Promise<UnaryAnswer>;
export type UnaryAnswer = Uint8Array | Failure;

/**
 * Resolves when the call is over with status OK. Resolving before the client's half-close ends the call early: response,
 * trailers, RST_STREAM(NO_ERROR) (duplicate uploads).
 */
export type StreamHandler = (call: StreamCall) => Promise<void>;

interface MethodBase {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Bytes of one request message after decompression; larger ones end the call with RESOURCE_EXHAUSTED. */
  readonly maxRequestBytes?: number;
}

export interface UnaryMethod extends MethodBase {
  readonly kind: "unary";
  readonly handler: UnaryHandler;
}

/**
 * The only answer to the only request, or a promise of it; undefined leaves the call to the method's handler. `request` is
 * valid until it returns, also when it returns a promise. An error ends the call, as a handler's does.
 */
export type AnswerAtOnce = (request: Uint8Array, call: Call) => Uint8Array | Promise<Uint8Array> | undefined;

export interface StreamMethod extends MethodBase {
  readonly kind: "stream";
  readonly handler: StreamHandler;
  /** Asked first when a request has come whole in one read: no promise is made then. */
  readonly answerAtOnce?: AnswerAtOnce | undefined;
}

export type Method = UnaryMethod | StreamMethod;

export interface Service {
  /** `package.Service`; an unknown method of a known service is UNIMPLEMENTED, as is an unknown service. */
  readonly name: string;
  readonly methods: readonly Method[];
}

export type { StatusDetail };
