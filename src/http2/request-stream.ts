// The seam between HTTP/2 and what is served over it: one request and its response.
//
// Implementations: stream.ts, and one over node:http2 in the tests. Pushed on the way in, because bytes arrive when
// they arrive; back pressure is credit: octets count against the stream's window until `credit` gives them back.

import type { ErrorCode } from "./error-code.ts";
import type { HeaderBlock } from "./header-block.ts";
import type { RequestHeaders } from "./request-headers.ts";

/** What is known of a connection. */
export interface ConnectionFacts {
  readonly id: number;
  /** `127.0.0.1:5123`, `[::1]:5123` or `unix:`. */
  readonly peer: string;
  readonly clientCertificate: PeerCertificate | undefined;
}

/** A verified certificate. */
export interface PeerCertificate {
  readonly subject: string;
  readonly subjectAltNames: readonly string[];
}

/** Gets the request's body. After `onAbort` nothing more is called. */
export interface RequestReceiver {
  /**
   * The whole body and its end at once, in place of onData and onEnd, when it is there already in one piece. Octets `start` to `end`
   * are valid during the call only, and owed back like those of onData.
   */
  readonly onBody?: ((octets: Uint8Array, start: number, end: number) => void) | undefined;
  /** A part of the body, valid during the call only. Its octets are owed back through `credit`. */
  onData(chunk: Uint8Array): void;
  /** The client has half-closed. */
  onEnd(): void;
  /** Reset by the client, broken, or its connection gone; nothing can be sent any more. */
  onAbort(): void;
}

/** A receiver for a body that nobody wants. */
export const ignoringReceiver: RequestReceiver = {
  onData: () => undefined,
  onEnd: () => undefined,
  onAbort: () => undefined,
};

export interface WholeResponse {
  readonly lead?: Uint8Array | undefined;
  readonly body: Uint8Array;
  readonly trailers?: HeaderBlock | undefined;
}

/** After an abort, a reset or the end of the response every method is a no-op. */
export interface RequestStream {
  readonly connection: ConnectionFacts;
  readonly headers: RequestHeaders;
  /** Names who gets the body; what has arrived already is delivered before this returns. To be called exactly once. */
  attach(receiver: RequestReceiver): void;
  /** Gives `sizeBytes` octets of received body back to the client's windows. */
  credit(sizeBytes: number): void;
  /** Announces that at least `sizeBytes` more octets of body are wanted (FC-15). */
  expect(sizeBytes: number): void;
  /** What the client takes of response fields (SETTINGS_MAX_HEADER_LIST_SIZE), by the count of HeaderBlock. */
  readonly maxHeaderListBytes: number;
  /**
   * Sends the whole response: head, `lead` and `body` (its octets are the stream's until sent, those of `lead` are
   * copied), trailers. Without trailers the body (or, when it is empty, the head) ends the stream. When the request has
   * not ended, RST_STREAM(NO_ERROR) follows (F-63).
   */
  respond(head: HeaderBlock, response?: WholeResponse): void;
  /** Sends the response's head; body and trailers follow. */
  sendHead(head: HeaderBlock): void;
  /**
   * Sends a part of the body and calls `taken` once when the next one is wanted. One at a time. Never calls it after an
   * abort. Calls `written` when the kernel has it, and the slices are the caller's again; perhaps never.
   */
  sendBody(slices: readonly Uint8Array[], taken: () => void, written?: () => void): void;
  /** Ends a response that `sendHead` began, after the body that is still queued. */
  sendTrailers(trailers: HeaderBlock): void;
  /** Ends the stream at once and drops what is queued. */
  reset(code: ErrorCode): void;
  /** The work behind the request is over: until then it counts against the client's streams (F-27). */
  release(): void;
}
