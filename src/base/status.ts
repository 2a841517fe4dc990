// The one operational error of this program: a gRPC status code, a message for a person, and optional details.
//
// Services answer clients with it, inner layers throw it. Anything else that is thrown is a bug and becomes INTERNAL.
// Source of the codes: google.rpc.Code.

export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

/** A google.protobuf.Any: `value` is the serialized message that `typeUrl` names. */
export interface StatusDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export interface StatusErrorOptions {
  readonly cause?: unknown;
  readonly details?: readonly StatusDetail[];
}

export class StatusError extends Error {
  readonly code: Code;
  readonly details: readonly StatusDetail[];

  constructor(code: Code, message: string, options: StatusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "StatusError";
    this.code = code;
    this.details = options.details ?? [];
  }
}

/**
 * A status as a value: what a handler may return for an everyday outcome, such as a miss. Making an Error and throwing it,
 * for which V8 walks the stack, costs more than looking something up.
 */
export class Failure {
  readonly code: Code;
  readonly message: string;
  readonly details: readonly StatusDetail[] = NO_DETAILS;

  constructor(code: Code, message: string) {
    this.code = code;
    this.message = message;
  }
}

const NO_DETAILS: readonly StatusDetail[] = [];

export function invalidArgument(message: string, cause?: unknown): StatusError {
  return new StatusError(Code.INVALID_ARGUMENT, message, { cause });
}

/** Without a stack: it is the usual answer of an empty cache, and finding the stack costs as much as the look-up. */
export function notFound(message: string): StatusError {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return new StatusError(Code.NOT_FOUND, message);
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Returns `error` as a StatusError with `context` before its message; unknown errors become INTERNAL. */
export function wrapStatus(error: unknown, context: string): StatusError {
  const status = toStatusError(error);
  return new StatusError(status.code, `${context}: ${status.message}`, { cause: error, details: status.details });
}

/** Returns `error` itself when it is a StatusError, CANCELLED for an abort, INTERNAL for everything else. */
export function toStatusError(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  if (error instanceof Error && error.name === "AbortError") {
    return new StatusError(Code.CANCELLED, error.message, { cause: error });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new StatusError(Code.INTERNAL, message, { cause: error });
}

export function codeName(code: number): string {
  for (const [name, value] of Object.entries(Code)) if (value === code) return name;
  return `code ${code}`;
}
