// Collects the fields of one block and decides whether they are a request (section 1.6 of the requirements).
//
// Invariant: a block that breaks a rule yields a reason and no request (F-58); a list above the limits is walked to its
// end without being stored, so that HPACK stays in step (L-25). One collector serves all connections: decoding a block
// is never interrupted.

import { ErrorCode } from "./error-code.ts";
import { ConnectionError } from "./frame.ts";
import type { FieldSink } from "./hpack-decoder.ts";
import { RequestHeaders } from "./request-headers.ts";

/** What we advertise; above it the request is answered 431. */
export const MAX_HEADER_LIST_BYTES = 32 * 1024;
/** Above this the connection ends (H-10). */
const HARD_HEADER_LIST_BYTES = 4 * MAX_HEADER_LIST_BYTES;
const MAX_FIELDS = 128;
const MAX_NAME_BYTES = 256;
const MAX_VALUE_BYTES = 16 * 1024;

/** Pseudo-headers as bits, to see duplicates and what is missing. */
const METHOD = 1;
const SCHEME = 2;
const PATH = 4;
const AUTHORITY = 8;

export class RequestFields implements FieldSink {
  #flat: string[] = [];
  #listBytes = 0;
  #count = 0;
  #seen = 0;
  #method = "";
  #scheme = "";
  #path = "";
  #authority = "";
  #host: string | undefined;
  #hosts = 0;
  #contentLength = -1;
  #malformed: string | undefined;
  #tooLarge = false;
  #regularSeen = false;

  /** Why the block is no request; undefined when it is one. */
  get malformed(): string | undefined {
    return this.#malformed;
  }

  /** The list is above our limits: to be answered with 431. */
  get tooLarge(): boolean {
    return this.#tooLarge;
  }

  /** -1 when the request does not say. */
  get contentLength(): number {
    return this.#contentLength;
  }

  begin(): void {
    this.#flat = [];
    this.#listBytes = 0;
    this.#count = 0;
    this.#seen = 0;
    this.#method = "";
    this.#scheme = "";
    this.#path = "";
    this.#authority = "";
    this.#host = undefined;
    this.#hosts = 0;
    this.#contentLength = -1;
    this.#malformed = undefined;
    this.#tooLarge = false;
    this.#regularSeen = false;
  }

  onField(name: string, value: string, valid: boolean): void {
    this.#listBytes += name.length + value.length + 32;
    this.#count++;
    if (this.#listBytes > MAX_HEADER_LIST_BYTES || this.#count > MAX_FIELDS) this.#onTooLarge();
    if (name.length > MAX_NAME_BYTES || value.length > MAX_VALUE_BYTES) this.#onTooLarge();
    if (!valid) this.#malformed ??= "a field name or value with illegal octets";
    if (this.#malformed !== undefined || (this.#tooLarge && name.charCodeAt(0) !== 0x3a)) return;
    if (name.charCodeAt(0) === 0x3a) {
      if (this.#regularSeen) this.#malformed = "a pseudo-header after a field";
      else this.#onPseudo(name, value);
      return;
    }
    this.#regularSeen = true;
    this.#checkRegular(name, value);
    this.#flat.push(name, value);
  }

  /** Checks a block that ends a request: trailers have no pseudo-headers (F-25). */
  finishTrailers(): void {
    if (this.#seen !== 0) this.#malformed ??= "a pseudo-header in trailers";
  }

  /** The request, or undefined when it is malformed. */
  finishRequest(): RequestHeaders | undefined {
    const missing = METHOD | SCHEME | PATH;
    if ((this.#seen & missing) !== missing) this.#malformed ??= "a pseudo-header is missing";
    if (this.#malformed === undefined) this.#checkTarget();
    if (this.#malformed !== undefined) return undefined;
    return new RequestHeaders(
      {
        method: this.#method,
        scheme: this.#scheme,
        path: this.#path,
        authority: this.#authority === "" ? (this.#host ?? "") : this.#authority,
      },
      this.#flat,
    );
  }

  #onTooLarge(): void {
    this.#tooLarge = true;
    if (this.#listBytes > HARD_HEADER_LIST_BYTES) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `header list above ${HARD_HEADER_LIST_BYTES} octets`);
    }
  }

  #onPseudo(name: string, value: string): void {
    switch (name) {
      case ":method":
        this.#mark(METHOD);
        this.#method = value;
        return;
      case ":scheme":
        this.#mark(SCHEME);
        this.#scheme = value;
        return;
      case ":path":
        this.#mark(PATH);
        this.#path = value;
        return;
      case ":authority":
        this.#mark(AUTHORITY);
        this.#authority = value;
        return;
      default:
        this.#malformed = "an unknown pseudo-header";
    }
  }

  #mark(bit: number): void {
    if ((this.#seen & bit) !== 0) this.#malformed = "a pseudo-header twice";
    this.#seen |= bit;
  }

  /** Names that have rules of their own; told apart by their length first, as most fields have none. */
  #checkRegular(name: string, value: string): void {
    switch (name.length) {
      case 2:
        if (name === "te" && value !== "trailers") this.#malformed = 'te is not "trailers"';
        return;
      case 4:
        if (name !== "host") return;
        this.#hosts++;
        this.#host = value;
        return;
      case 7:
      case 10:
      case 16:
      case 17:
        if (CONNECTION_SPECIFIC.has(name)) this.#malformed = `a connection-specific field: ${name}`;
        return;
      case 14:
        if (name === "content-length") this.#checkContentLength(value);
        return;
      default:
    }
  }

  #checkContentLength(value: string): void {
    const length = /^\d{1,16}$/.test(value) ? Number(value) : -1;
    if (length < 0 || !Number.isSafeInteger(length)) this.#malformed = "content-length is no number";
    else if (this.#contentLength !== -1 && this.#contentLength !== length) this.#malformed = "content-length twice";
    this.#contentLength = length;
  }

  /** F-50, F-51, F-54. More than one `host` is answered by the layer above. */
  #checkTarget(): void {
    if (this.#method === "" || this.#scheme === "" || this.#path === "") this.#malformed = "an empty pseudo-header";
    else if (this.#method === "CONNECT") this.#malformed = "CONNECT is not served";
    else if (!isPath(this.#path)) this.#malformed = "a :path with illegal characters";
    else if (this.#authority.includes("@")) this.#malformed = "an :authority with user information";
    else if (this.#authority !== "" && this.#host !== undefined && this.#hosts === 1) {
      const authority = withoutDefaultPort(this.#authority, this.#scheme);
      if (authority !== withoutDefaultPort(this.#host, this.#scheme)) this.#malformed = "host and :authority differ";
    }
  }
}

/** F-53. `te` has its own rule. */
const CONNECTION_SPECIFIC = new Set(["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"]);

/** No octet up to 0x20, none from 0x7f, no "#". That it starts with "/" is for the layer above to say (F-51). */
function isPath(path: string): boolean {
  for (let at = 0; at < path.length; at++) {
    const code = path.charCodeAt(at);
    if (code <= 0x20 || code >= 0x7f || code === 0x23) return false;
  }
  return true;
}

function withoutDefaultPort(authority: string, scheme: string): string {
  const port = scheme === "https" ? ":443" : ":80";
  const lower = authority.toLowerCase();
  return lower.endsWith(port) ? lower.slice(0, -port.length) : lower;
}
